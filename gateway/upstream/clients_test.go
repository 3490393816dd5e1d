package upstream

import (
	"context"
	"testing"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fastpath"
	"github.com/headgate/headgate/internal/rpc"
)

// eachClient runs a test over both clients of calls to nodes.
func eachClient(t *testing.T, test func(t *testing.T, config PoolConfig)) {
	t.Helper()
	for _, path := range []fastpath.Path{fastpath.Fast, fastpath.Plain} {
		t.Run(string(path), func(t *testing.T) {
			test(t, PoolConfig{FastPaths: fastpath.Paths{Upstream: path}})
		})
	}
}

// BenchmarkCall calls a node of the same process over a socket.
func BenchmarkCall(b *testing.B) {
	server := rpc.NewServer(rpc.Config{Name: "node", Addr: "127.0.0.1:0"},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	gatewayv1connect.RegisterQueryServiceHandler(server.RPC, views{})
	ctx, cancel := context.WithCancel(context.Background())
	if err := server.Listen(ctx); err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range []fastpath.Path{fastpath.Fast, fastpath.Plain} {
		b.Run(string(path), func(b *testing.B) {
			pool := NewPool(PoolConfig{FastPaths: fastpath.Paths{Upstream: path}})
			defer pool.Close()
			client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(NewTransport(pool)))
			call := WithEndpoint(contextkit.TenantContext(b.Context(), acme), server.Addr())
			b.ReportAllocs()
			for b.Loop() {
				if _, err := client.ListViews(call, &projectionv1.ListViewsRequest{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
