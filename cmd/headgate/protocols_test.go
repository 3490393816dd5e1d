package main_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
)

func TestProtocols_EveryProcessServesProbesReflectionAndProtocols(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	control := freePort(t)
	p := start(t, t.TempDir(), nil, "--control-listen", control)
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), time.Minute)
	defer cancel()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer h2c.CloseIdleConnections()
	credential := func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			info, _ := connect.CallInfoForClientContext(ctx)
			info.RequestHeader().Set("authorization", "Bearer "+p.tokens["OPERATOR"])
			return next(ctx, spec)
		}
	}
	check := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
	for name, process := range map[string]struct{ url, service string }{
		"gateway":    {p.gateway, "runner.admin.v1.RunnerAdmin"},
		"aggregate":  {p.aggregate, "aggregate.gateway.v1.CommandService"},
		"projection": {p.projection, "projection.gateway.v1.QueryService"},
		"runner":     {p.runner, "runner.admin.v1.RunnerAdmin"},
		"control":    {"http://" + control, "control.v1.PlacementService"},
	} {
		t.Run(name, func(t *testing.T) {
			for path, want := range map[string]string{
				"/health": `"alive"`, "/ready": `"ready"`, "/ready?tenant=acme": `"acme"`,
				"/metrics": "headgate_rpc_in_flight",
			} {
				at := process.url
				if name == "gateway" && path == "/metrics" {
					at = p.admin // not for the edge's clients
				}
				if name == "gateway" && strings.HasPrefix(path, "/ready?") {
					at = p.admin // the edge shows it to the tenant's own credentials only
				}
				if status, text, err := get(ctx, at+path); err != nil || status != http.StatusOK ||
					(path != "/metrics" && !strings.Contains(text, want)) {
					t.Errorf("%s: %d %s %v", path, status, text, err)
				}
			}
			for protocol, options := range map[string][]connecthttp.Option{
				"connect+json": {connecthttp.WithProtoJSON()}, "connect+proto": {}, "grpc": {connecthttp.WithGRPC()},
				"grpcweb": {connecthttp.WithGRPCWeb()},
			} {
				client := contextkit.NewClient(connecthttp.NewTransport(h2c, process.url, options...), credential)
				var res healthv1.HealthCheckResponse
				if err := client.CallUnary(
					ctx, check, &healthv1.HealthCheckRequest{Service: process.service}, &res,
				); err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
					t.Errorf("health over %s: %v, %v", protocol, res.GetStatus(), err)
				}
			}
			client := contextkit.NewClient(connecthttp.NewTransport(h2c, process.url, connecthttp.WithGRPC()),
				credential)
			stream := grpcreflect.NewClient(client).NewStream(ctx)
			defer stream.Close()
			names, err := stream.ListServices()
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, service := range names {
				found = found || string(service) == process.service
			}
			if files, err := stream.FileContainingSymbol("runner.admin.v1.RunnerAdmin"); !found ||
				(name == "runner" && (err != nil || len(files) == 0)) {
				t.Errorf("services by reflection: %v, %v", names, err)
			}
		})
	}
	p.stop(t)
}
