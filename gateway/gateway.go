package gateway

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/openapi"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/gen/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/compression"
	"github.com/headgate/headgate/internal/traffic"
)

const (
	defaultMaxTimeout       = 30 * time.Second
	defaultMaxStreamTimeout = time.Hour
	defaultMaxConcurrent    = 4096
	defaultMaxStreams       = 16_384
	// delayedShare divides MaxConcurrent: the bound of the rejected calls whose answers are
	// delayed.
	delayedShare = 16
)

// Defaults of a [Config].
const (
	DefaultMaxBytes    = 512 << 20
	DefaultTenantShare = 0.5
	DefaultCallerShare = 1.0 / 16
)

// Gateway is the edge of the platform. Call Listen, then Serve.
type Gateway struct {
	config    Config
	server    *rpc.Server
	admin     *rpc.Server
	table     atomic.Pointer[policy.Table]
	verifier  *auth.Verifier
	routes    *route.Table
	pool      *upstream.Pool
	opener    upstream.Opener
	prober    *probe.Prober
	audit     *audit.Recorder
	log       zerolog.Logger
	retries   *limit.Retries
	breakers  *breaker.Set
	counters  *counters
	traffic   traffic.Recorder
	platform  map[string]bool // by the principal's subject
	standings fleet.Tenants
	live      liveStreams
	readiness *tenantReadiness
	tickets   *tickets // nil: the gateway issues no tickets
	rest      atomic.Pointer[edge.REST]
	*budgets

	mu        sync.Mutex // serializes Describe
	catalog   *policy.Catalog
	described []description // sorted by start, the newest first

	undescribed sync.Map // node → kind, of nodes that have not described their services
}

// New returns a gateway that forwards the methods of the catalog to the nodes of routes, and
// publishes its audit records to js.
func New(
	config Config, catalog *policy.Catalog, routes *route.Table, js jetstream.JetStream, log zerolog.Logger,
) (*Gateway, error) {
	config = config.withDefaults()
	if err := errors.Join(
		config.Upstream.Validate(), config.Breakers.Validate(), config.Probes.Validate(), config.Query.Validate(),
		config.HSTS.Validate(),
	); err != nil {
		return nil, err
	}
	verifier, err := auth.NewVerifier(config.Auth)
	if err != nil {
		return nil, err
	}
	budgets, err := newBudgets(&config)
	if err != nil {
		return nil, err
	}
	pool := upstream.NewPool(config.Upstream)
	transport := upstream.NewTransport(pool)
	var nodes upstream.Opener = transport
	if config.OnUpstreamCall != nil {
		nodes = upstream.Watched(transport, config.OnUpstreamCall)
	}
	g := &Gateway{
		config:   config,
		catalog:  catalog,
		verifier: verifier,
		routes:   routes,
		pool:     pool,
		opener:   nodes,
		prober:   probe.New(config.Probes, routes, contextkit.NewClient(transport), pool, log),
		log:      log,
		budgets:  budgets,
		retries:  limit.NewRetries(),
		breakers: breaker.NewSet(config.Breakers),
	}
	g.readiness, g.tickets = newTenantReadiness(g), newTickets(config.TicketSecret)
	g.platform = make(map[string]bool, len(config.Platform))
	for _, principal := range config.Platform {
		g.platform[principal] = true
	}
	origins, err := crossOrigin(config.Origins)
	if err != nil {
		return nil, err
	}
	if len(config.Auth.Authorities) > 0 {
		config.Listen.ClientAuthorities = verifier.ClientAuthorities
	}
	json := frame.JSONCodec()
	g.server = rpc.NewEdge(config.Listen, g.ready, log, rpc.Edge{
		Options: []connecthttp.Option{
			connecthttp.WithCodecs(frame.ProtoCodec(), json),
			connecthttp.WithCompressors(compression.All()...), connecthttp.WithCompressMinBytes(rpc.CompressMinBytes),
		},
		Codec:   frame.GRPCCodec{},
		JSON:    json,
		Timeout: g.timeout,
		Margin:  deadlineMargin,
		Front: func(next http.Handler) http.Handler {
			return config.HSTS.handler(origins(privateCaching(edge.WebText(next))))
		},
		Degraded: g.degradedParts,
		MayAsk:   g.authorizeReadiness,
	}, contextkit.EdgeInterceptor, g.limitHealthChecks)
	metrics := g.server.Metrics.Registerer(config.Listen.Name)
	g.counters = newCounters(metrics)
	metrics.MustRegister(collector{g}, verifier)
	if config.Timeline != nil {
		metrics.MustRegister(config.Timeline)
	}
	g.admin = g.newAdmin()
	g.audit = audit.NewRecorder(js, metrics, log)
	table, rest, err := g.register(g.server, catalog)
	if err != nil {
		return nil, err
	}
	g.table.Store(table)
	g.rest.Store(rest)
	return g, nil
}

// register registers all methods of the catalog that have a policy.
func (g *Gateway) register(server *rpc.Server, catalog *policy.Catalog) (*policy.Table, *edge.REST, error) {
	files := policy.Files(catalog)
	if g.config.ForeignOnly {
		files = catalog.Foreign()
	}
	table, err := policy.Build(files, transcode.NewCompiler(catalog))
	if err != nil {
		return nil, nil, err
	}
	for _, method := range table.Methods() {
		server.RPC.Register(connect.Method{Spec: method.Spec, Handler: g.handler(server.Metrics, method)})
	}
	// Reflection shows the served methods to every caller with a credential.
	server.Guard(g.local, func(rpc *connect.Server) {
		grpcreflect.Register(rpc, grpcreflect.WithNamer(table), grpcreflect.WithDescriptorResolver(catalog))
	})
	server.Guard(
		func(next connect.ServerFunc) connect.ServerFunc { return g.local(rpc.Validate(next)) },
		func(rpc *connect.Server) {
			gatewayv1connect.RegisterSessionServiceHandler(rpc, session{Gateway: g})
		},
	)
	if g.config.UI != nil {
		server.HTTP.Handle("GET /ui/", g.config.UI)
		server.HTTP.Handle("GET /{$}", http.RedirectHandler("/ui/", http.StatusFound))
	}
	rest, err := edge.NewREST(
		server.RPC, table, server.MaxBodyBytes(),
		edge.Options{
			Query:     g.config.Query,
			KeepAlive: g.config.KeepAlive,
			Pages:     []string{"/health", "/ready", pageOpenAPI},
		},
		compression.All()...,
	)
	if err != nil {
		return nil, nil, err
	}
	server.Fallback(rest)
	server.HTTP.Handle("GET "+pageOpenAPI,
		contextkit.HTTPMiddleware(g.localPage(pageOpenAPI, openapi.Handler("Headgate", "v1", table))))
	return table, rest, nil
}

// Listen binds the addresses for clients and operators.
func (g *Gateway) Listen(ctx context.Context) error {
	return errors.Join(g.server.Listen(ctx), g.admin.Listen(ctx))
}

// GRPCAddr returns the address of the gRPC-only port, after Listen; "": there is none.
func (g *Gateway) GRPCAddr() string { return g.server.GRPCAddr() }

// URL returns the base URL for clients, after Listen.
func (g *Gateway) URL() string { return g.server.URL() }

// Addr returns the address for clients, after Listen.
func (g *Gateway) Addr() string { return g.server.Addr() }

// Register adds collectors to the gateway's metrics.
func (g *Gateway) Register(metrics ...prometheus.Collector) {
	g.server.Metrics.Registerer(g.config.Listen.Name).MustRegister(metrics...)
}

// AdminURL returns the base URL for operators, after Listen.
func (g *Gateway) AdminURL() string { return g.admin.URL() }

// Ready returns nil if the gateway is ready for calls, else the reason that it is not.
func (g *Gateway) Ready(ctx context.Context) error { return g.server.Ready(ctx) }

// Server returns the server of the gateway's main address, for facts about it.
func (g *Gateway) Server() *rpc.Server { return g.server }

// Load returns the gateway's load of the last seconds.
func (g *Gateway) Load() rpc.Load { return g.server.Metrics.Load() }

// Traffic returns windows of the gateway's calls to announce, see [traffic.Recorder.Announce].
func (g *Gateway) Traffic() []traffic.Window { return g.traffic.Announce(time.Now()) }

// Serve answers calls until ctx ends and the calls in flight have been answered.
func (g *Gateway) Serve(ctx context.Context) error {
	// Later layers stop after earlier ones: connections to nodes outlive the calls, and the audit
	// records of the last calls are published.
	return rpc.RunLayers(ctx,
		rpc.Layer{g.server.Serve},
		rpc.Layer{
			g.prober.Run, g.refreshKeys, g.followAuthorities, g.followAPIKeys, g.followRevocations, g.followSignIns,
			g.admin.Serve,
		},
		rpc.Layer{g.closePool},
		rpc.Layer{g.audit.Run},
	)
}

// closePool closes the connections to nodes when ctx ends.
func (g *Gateway) closePool(ctx context.Context) error {
	<-ctx.Done()
	g.pool.Close()
	return nil
}
