package main

import (
	"context"
	"os"
	"time"

	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/node"
)

type natsConfigCommand struct {
	Dir     string   `arg:"" optional:"" type:"path" help:"Directory to write the files to; existing seeds are retained. Without one, everything is printed."`
	Node    []string `help:"Node to make a user for, KIND=ID; KIND=* for one user of all nodes of the kind. Default: KIND=* for each of the platform's kinds. Repeatable." placeholder:"KIND=ID"`
	Server  []string `help:"Host name of a server; three of them are a cluster. Repeatable. Default: one server." placeholder:"HOST"`
	Name    string   `help:"Name of each server, such as $POD_NAME, a variable of its environment: all servers then have the same file." placeholder:"NAME"`
	Listen  string   `default:"0.0.0.0:4222" help:"Address for clients."`
	Monitor string   `default:"127.0.0.1:8222" help:"Address of health checks and statistics, which need no credential."`
	Store   string   `default:"/data" help:"Directory of the streams on the server."`
	TLSCert string   `name:"tls-cert" help:"Path on the server of its certificate (PEM), which is then required, and checked, on all connections."`
	TLSKey  string   `name:"tls-key" help:"Path on the server of its key."`
	TLSCA   string   `name:"tls-ca" help:"Path on the server of the authority (PEM) that clients' and the other servers' certificates come from. Without one, clients need no certificate."`
	Open    bool     `help:"Add a user 'open' with all permissions and the password in open.password, for processes that have no user yet while a running platform is given users."`
}

// Run writes or prints the configuration of NATS servers and the seeds of their users.
func (c *natsConfigCommand) Run() error {
	return access.Write(access.Config{
		Dir:     c.Dir,
		Nodes:   c.Node,
		Servers: c.Server,
		Name:    c.Name,
		Listen:  c.Listen,
		Monitor: c.Monitor,
		Store:   c.Store,
		Cert:    c.TLSCert,
		Key:     c.TLSKey,
		CA:      c.TLSCA,
		Open:    c.Open,
	}, os.Stdout)
}

type natsSetupCommand struct {
	Config     string        `required:"" type:"existingfile" help:"File of settings of 'serve', of any role; its section 'nats' names the servers."`
	NKey       string        `name:"nkey" type:"existingfile" help:"File with the seed of the set-up user, setup.nk of 'nats-config'. Without one, the user of the settings is used."`
	Wait       time.Duration `default:"5m" help:"How long to wait for NATS and JetStream while they are unavailable; 0: not at all."`
	NewJournal bool          `help:"Start with an empty journal although other streams or buckets were made from a lost one, and accept the loss of its events."`
}

// Run creates and updates the streams, buckets and secrets of a platform.
func (c *natsSetupCommand) Run(ctx context.Context) error {
	return node.SetUpNATS(ctx, node.NATSSetup{
		Settings:   c.Config,
		NKey:       c.NKey,
		NewJournal: c.NewJournal,
		Wait:       c.Wait,
	}, os.Stdout, os.Stderr)
}
