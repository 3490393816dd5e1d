package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	_ "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/fastpath"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
)

func TestMain(m *testing.M) {
	if os.Getenv(conformanceDescriptor) != "" {
		if err := serveConformance(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	natstest.Main(m)
}

// edge is a gateway on loopback in front of an upstreamNode.
type edge struct {
	url    string
	admin  string
	grpc   string // the URL for gRPC alone
	routes *route.Table
	edge   *gateway.Gateway
	node   *upstreamNode
	js     jetstream.JetStream
	issuer *auth.Issuer
	plain  *http.Client
	h2c    *http.Client
}

func start(t testing.TB, change func(*gateway.Config)) *edge { return startWith(t, change, nil) }

// startWith is start with a further service, given by its descriptor set and its registration at
// the node.
func startWith(t testing.TB, change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
	t.Helper()
	return startUpstream(t, overMainPort, change, register, sets...)
}

// upstreamTransport is the transport of upstream calls.
type upstreamTransport string

const (
	overMainPort upstreamTransport = "over gRPC"
	overGRPCPort upstreamTransport = "over the gRPC-only port"
	inProcess    upstreamTransport = "in process"
	// allPlain is overGRPCPort with the plain implementation of every fast path, in the gateway and in the node.
	allPlain upstreamTransport = "with plain implementations"
)

// starter is [startWith] with a fixed transport of upstream calls.
type starter func(change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge

// everyUpstream runs a test with nodes that are called over gRPC, at each of their ports, and with a
// node in the gateway's process; and with the plain implementation of every fast path.
func everyUpstream(t *testing.T, test func(t *testing.T, start starter)) {
	t.Helper()
	for _, transport := range []upstreamTransport{overMainPort, overGRPCPort, inProcess, allPlain} {
		if testing.Short() && (transport == allPlain || transport == overMainPort) {
			continue // under the race detector; tests that use no other transport run over the main port
		}
		t.Run(string(transport), func(t *testing.T) {
			test(t, func(change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
				return startUpstream(t, transport, change, register, sets...)
			})
		})
	}
}

// startUpstream is startWith with a transport of upstream calls.
func startUpstream(
	t testing.TB, transport upstreamTransport, change func(*gateway.Config), register func(*connect.Server),
	sets ...[]byte,
) *edge {
	t.Helper()
	// NATS stops after the gateway, which stores its last audit records when it stops.
	e := &edge{node: &upstreamNode{}, js: natstest.Start(t)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	serve := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	var paths fastpath.Paths
	if transport == allPlain {
		paths = fastpath.AllPlain()
	}
	server := rpc.NewServer(rpc.Config{
		Name:      "node",
		Addr:      "127.0.0.1:0",
		GRPC:      "127.0.0.1:0",
		FastPaths: paths,
	},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	queriesconnect.RegisterQueryServiceHandler(server.RPC, e.node)
	commandsconnect.RegisterCommandServiceHandler(server.RPC, e.node)
	if register != nil {
		register(server.RPC)
	}
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve(server.Serve)
	endpoint := server.Addr()
	if transport == overGRPCPort || transport == allPlain {
		endpoint = server.GRPCAddr()
	}

	var err error
	if e.issuer, err = auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate"); err != nil {
		t.Fatal(err)
	}
	accepted, err := e.issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.routes = route.NewTable()
	if err := e.routes.Replace([]route.Node{
		{ID: "a", Kind: contextkit.KindAggregate, Endpoint: endpoint, Ready: true},
		{ID: "p", Kind: contextkit.KindProjection, Endpoint: endpoint, Ready: true},
		{ID: "t", Kind: "ticker", Endpoint: endpoint, Ready: true},
		{ID: "gone", Kind: contextkit.KindRunner, Endpoint: "127.0.0.1:1", Ready: true},
	}, nil); err != nil {
		t.Fatal(err)
	}
	config := gateway.Config{
		Listen: rpc.Config{
			Name:      "gateway",
			Addr:      "127.0.0.1:0",
			GRPC:      "127.0.0.1:0",
			FastPaths: paths,
		},
		Auth:     accepted,
		Probes:   probe.Config{Every: time.Hour}, // once, so that tests determine readiness
		Upstream: upstream.PoolConfig{FastPaths: paths},
	}
	if transport == inProcess {
		local := server.InProcess(frame.GRPCCodec{})
		config.Upstream.Local = func(at string) upstream.Opener {
			if at != endpoint {
				return nil
			}
			return local
		}
	}
	if change != nil {
		change(&config)
	}
	catalog, err := policy.NewCatalog(sets...)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(config, catalog, e.routes, e.js, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve(g.Serve)
	e.edge = g
	e.url, e.admin, e.grpc = g.URL(), g.AdminURL(), "http://"+g.GRPCAddr()
	e.plain = &http.Client{Transport: &http.Transport{}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	e.h2c = &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(e.plain.CloseIdleConnections)
	t.Cleanup(e.h2c.CloseIdleConnections)
	return e
}

// token issues a token; tenants are separated by commas.
func (e *edge) token(t testing.TB, tenants string, rights ...string) string {
	t.Helper()
	p := &auth.Principal{Subject: "app"}
	for name := range strings.SplitSeq(tenants, ",") {
		if name == "*" {
			p.AnyTenant = true
			continue
		}
		p.Tenants = append(p.Tenants, natstest.Tenant(t, name))
	}
	for _, text := range rights {
		right, err := auth.ParseRight(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Rights = append(p.Rights, right)
	}
	token, err := e.issuer.Issue(p, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}
