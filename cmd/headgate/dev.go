package main

import (
	"context"
	"os"

	"github.com/headgate/headgate/internal/node"
)

// devCommand has the fields of [node.DevConfig]. Flags without a default leave the setting of the file unchanged.
type devCommand struct {
	Config           string   `type:"existingfile" help:"File of settings, the same as of 'serve'; flags override it, and a setting that dev cannot honour is an error. 'headgate config' prints one with every setting explained."`
	Data             string   `default:"./data" type:"path" help:"Data directory; created if absent, and used again by the next start."`
	Model            string   `type:"path" help:"Model file (setting model); without one, the applied model or the wallet demo."`
	Tenants          []string `help:"Tenants to serve (setting tenants; acme,globex)."`
	Listen           string   `help:"Address of the gateway (setting gateway.server.listen; 127.0.0.1:8080)."`
	GRPCListen       string   `name:"grpc-listen" help:"Address of the gateway for gRPC alone, at less CPU per call (setting gateway.grpc; 127.0.0.1:8084)."`
	AdminListen      string   `help:"Address of the gateway for operators: metrics, nodes, profiles (setting gateway.admin; 127.0.0.1:9090)."`
	AggregateListen  string   `help:"Address of the aggregate service, for debugging (setting aggregate.server.listen; 127.0.0.1:8081)."`
	ProjectionListen string   `help:"Address of the projection service, for debugging (setting projection.server.listen; 127.0.0.1:8082)."`
	ControlListen    string   `help:"Address of the control service, for debugging (setting control.server.listen; 127.0.0.1:8085)."`
	RunnerListen     string   `help:"Address of the runner service, for debugging (setting runner.server.listen; 127.0.0.1:8083)."`
	Origin           []string `help:"Origin whose pages may call the gateway from a browser. Repeatable."`
	Proxy            []string `help:"Prefix or address of a trusted proxy before the gateway, which names clients' addresses in X-Forwarded-For. Repeatable."`
	Webhook          []string `help:"Host that webhooks of workflows may call, such as 127.0.0.1. Repeatable."`
	APIKeys          string   `type:"existingfile" help:"File of accepted API keys, as made by 'headgate apikey'."`
	Descriptors      []string `type:"existingfile" help:"FileDescriptorSet of further services to serve. Repeatable."`
	Node             []string `help:"Further node, as KIND=HOST:PORT. Repeatable."`
	Reflect          bool     `help:"Ask further nodes for the descriptors of their services (gRPC reflection), and serve those."`
	LazySync         bool     `help:"Let the operating system decide when writes reach the disk: faster, and a power failure may lose acknowledged commands."`
	NewJournal       bool     `help:"Start with an empty journal where the data directory has views or records of one that is gone, and accept the loss of its events."`
	OTLP             string   `name:"otlp" help:"URL of an OpenTelemetry collector that accepts OTLP over gRPC, such as http://127.0.0.1:4317, for spans of calls, commands, projections and steps."`
	LogLevel         string   `default:"" enum:",debug,info,warn,error" help:"Minimum level of the log lines on standard error: debug, info, warn, error (setting log; warn); info logs one line per call."`
}

// Run runs the platform until the process is interrupted.
func (c *devCommand) Run(ctx context.Context) error {
	return node.Dev(ctx, node.DevConfig(*c), os.Stdout, os.Stderr)
}
