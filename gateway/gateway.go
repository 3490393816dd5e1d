package gateway

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"connectrpc.com/validate"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
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
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config describes a gateway.
type Config struct {
	// Listen is where clients reach it.
	Listen rpc.Config
	// Admin is where operators reach it: metrics, nodes, profiles. "" is a port
	// of this machine that the system chooses.
	Admin string
	// Auth says which tokens count.
	Auth auth.Config
	// Platform lists the principals (by [auth.Principal].Subject) whose calls for tenants are
	// the platform's own, such as the runner's commands: audit records them only if they are
	// denied or the method's policy requires it, and nodes get [contextkit.HeaderPlatform]. A
	// principal counts only if it acts for every tenant. Calls for tenants by all other principals
	// that act for every tenant are recorded as operators' calls.
	Platform []string
	// Upstream bounds the channels to nodes.
	Upstream upstream.PoolConfig
	// Breakers say when nodes are left alone.
	Breakers breaker.Config
	// Probes say how nodes are asked whether they take calls.
	Probes probe.Config
	// MaxTimeout bounds every call, whatever its policy says, and MaxStreamTimeout
	// every stream of answers. 0: 30 s and 1 h.
	MaxTimeout, MaxStreamTimeout time.Duration
	// MaxConcurrent bounds the calls in flight, including those whose request is still
	// arriving; more are refused, those of low priority first. 0: 4096.
	MaxConcurrent int
	// MaxStreams bounds the streams of answers in flight, beside the calls. 0:
	// 16384.
	MaxStreams int
	// MaxBytes bounds the bytes of messages in memory. 0: 512 MiB.
	MaxBytes int64
	// TenantShare is the share of these three bounds that one tenant may use, above 0 and at
	// most 1. 0: a half.
	TenantShare float64
	// CallerShare is the share that one principal may use for calls whose tenant is not known
	// yet and for calls of the platform, and one client address for calls without a
	// credential. 0: a sixteenth.
	CallerShare float64
	// Limits bound each tenant.
	Limits limit.Config
	// Origins are the origins whose pages may call the edge from a browser. None by default.
	Origins []Origin
	// HSTS is sent to clients that use TLS.
	HSTS HSTS
	// TicketSecret is the secret of tickets, which all gateways of a platform share; nil: there
	// are no tickets.
	TicketSecret []byte
	// Query is how the query strings of REST calls are read.
	Query edge.Query
	// KeepAlive is the silence after which a stream of answers over REST has a keep-alive. 0:
	// [edge.DefaultKeepAlive]; below 0: it has none.
	KeepAlive time.Duration
	// ForeignOnly serves the services of descriptor sets and of nodes that describe
	// themselves, and not the platform's own, of which there are then no nodes to wait for.
	ForeignOnly bool
	// Optional lists kinds of nodes that serve operators and not tenants' own calls: without
	// them a tenant is ready (/ready?tenant=), and they are shown as degraded.
	Optional []string
	// Degraded returns the degraded parts of the platform other than kinds of nodes, each with
	// the reason, which /ready shows; nil: there are none. The map is the caller's.
	Degraded func() map[string]string
	// UI serves the pages of the Control UI under /ui/; nil: there are none.
	UI http.Handler
	// Timeline records calls that change something or fail; nil: none.
	Timeline *backbone.Timeline
	// Ended is called when a call has ended, including calls that the pipeline refused; nil:
	// no function is called. It must not block.
	Ended func(contextkit.RequestContext, Ended)
	// Asked is called when an upstream call has ended, for each attempt of a call that is
	// retried, if its trace is sampled; nil: no function is called. It must not block.
	Asked rpc.AskedFunc
}

// Ended is a call that has ended, with what the gateway decided on it.
type Ended struct {
	rpc.Ended

	// Principal is who called, and Node who answered; "": not known.
	Principal, Node string
	// Attempts is how often a node was called.
	Attempts int
	// Request is the HTTP request of a call over REST, zero for any other call.
	Request edge.Request
}

const (
	defaultMaxTimeout       = 30 * time.Second
	defaultMaxStreamTimeout = time.Hour
	defaultMaxConcurrent    = 4096
	defaultMaxStreams       = 16_384
	// heldShare is the part of the room for calls that refusals may take which are
	// held back.
	heldShare = 16
)

// Defaults of a [Config].
const (
	DefaultMaxBytes    = 512 << 20
	DefaultTenantShare = 0.5
	DefaultCallerShare = 1.0 / 16
)

// Gateway is the edge. Run it with Listen, then Serve.
type Gateway struct {
	config    Config
	server    *rpc.Server
	admin     *rpc.Server
	table     atomic.Pointer[policy.Table]
	verifier  *auth.Verifier
	routes    *route.Table
	pool      *upstream.Pool
	nodes     upstream.Opener
	prober    *probe.Prober
	audit     *audit.Recorder
	log       zerolog.Logger
	retries   *limit.Retries
	breakers  *breaker.Set
	counters  *counters
	platform  map[string]bool // names of principals
	decided   atomic.Pointer[map[contextkit.TenantID]TenantState]
	live      liveStreams
	standings *standings
	tickets   *tickets // nil: there are none
	rest      atomic.Pointer[edge.REST]
	*budgets

	mu        sync.Mutex // held by Describe
	catalog   *policy.Catalog
	described []description // the newest first

	undescribed sync.Map // node → kind, of nodes that have not described their services
}

func (c Config) withDefaults() Config {
	c.MaxTimeout = cmp.Or(c.MaxTimeout, defaultMaxTimeout)
	c.MaxStreamTimeout = cmp.Or(c.MaxStreamTimeout, defaultMaxStreamTimeout)
	c.MaxConcurrent = cmp.Or(c.MaxConcurrent, defaultMaxConcurrent)
	c.MaxStreams = cmp.Or(c.MaxStreams, defaultMaxStreams)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.TenantShare = cmp.Or(c.TenantShare, DefaultTenantShare)
	c.CallerShare = cmp.Or(c.CallerShare, DefaultCallerShare)
	return c
}

// New returns a gateway that serves the methods of the catalog to the nodes of
// routes. js takes the audit records.
func New(config Config, catalog *policy.Catalog, routes *route.Table, js jetstream.JetStream, log zerolog.Logger) (*Gateway, error) {
	config = config.withDefaults()
	if err := errors.Join(config.Upstream.Validate(), config.Breakers.Validate(), config.Probes.Validate(), config.Query.Validate(), config.HSTS.Validate()); err != nil {
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
	if config.Asked != nil {
		nodes = upstream.Watched(transport, config.Asked)
	}
	g := &Gateway{
		config: config, catalog: catalog, verifier: verifier, routes: routes, pool: pool, nodes: nodes,
		prober: probe.New(config.Probes, routes, contextkit.NewClient(transport), pool, log), log: log,
		budgets: budgets, retries: limit.NewRetries(), breakers: breaker.NewSet(config.Breakers),
	}
	g.standings, g.tickets = newStandings(g), newTickets(config.TicketSecret)
	g.platform = make(map[string]bool, len(config.Platform))
	for _, principal := range config.Platform {
		g.platform[principal] = true
	}
	json := frame.JSONCodec()
	g.server = rpc.NewEdge(config.Listen, g.ready, log, rpc.Edge{
		Options: []connecthttp.Option{
			connecthttp.WithCodecs(frame.ProtoCodec(), json),
			connecthttp.WithCompressors(compression.All()...), connecthttp.WithCompressMinBytes(rpc.CompressMinBytes),
		},
		Codec: frame.GRPCCodec{}, JSON: json, Timeout: g.timeout, Margin: hopMargin,
		Degraded: g.parts, MayAsk: g.mayAsk,
	}, contextkit.EdgeInterceptor, g.boundOpen)
	origins, err := crossOrigin(config.Origins)
	if err != nil {
		return nil, err
	}
	g.server.Front = func(next http.Handler) http.Handler {
		return config.HSTS.handler(origins(privately(edge.WebText(next))))
	}
	metrics := g.server.Metrics.Registerer(config.Listen.Name)
	g.counters = newCounters(metrics)
	metrics.MustRegister(collector{g}, verifier)
	if config.Timeline != nil {
		metrics.MustRegister(config.Timeline)
	}
	g.admin = g.newAdmin()
	g.audit = audit.NewRecorder(js, metrics, log)
	table, rest, err := g.fill(g.server, catalog)
	if err != nil {
		return nil, err
	}
	g.table.Store(table)
	g.rest.Store(rest)
	return g, nil
}

// fill registers everything that the catalog describes and a policy lets out.
func (g *Gateway) fill(server *rpc.Server, catalog *policy.Catalog) (*policy.Table, *edge.REST, error) {
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
	server.Guard(g.own, func(rpc *connect.Server) {
		grpcreflect.Register(rpc, grpcreflect.WithNamer(table), grpcreflect.WithDescriptorResolver(catalog))
	})
	check := validate.NewServerInterceptor()
	server.Guard(func(next connect.ServerFunc) connect.ServerFunc { return g.own(check(next)) }, func(rpc *connect.Server) {
		gatewayv1connect.RegisterSessionServiceHandler(rpc, session{Gateway: g})
	})
	if g.config.UI != nil {
		server.HTTP.Handle("GET /ui/", g.config.UI)
		server.HTTP.Handle("GET /{$}", http.RedirectHandler("/ui/", http.StatusFound))
	}
	rest, err := edge.NewREST(server.RPC, table, server.MaxBodyBytes(), edge.Options{Query: g.config.Query, KeepAlive: g.config.KeepAlive}, compression.All()...)
	if err != nil {
		return nil, nil, err
	}
	server.HTTP.Handle("/", rest)
	server.Unclean = rest
	server.HTTP.Handle("GET /openapi.json", contextkit.HTTPMiddleware(g.ownPage("/openapi.json", openapi.Handler("Headgate", "v1", table))))
	return table, rest, nil
}

// timeout is the longest that a call of the procedure may take.
func (g *Gateway) timeout(procedure string) time.Duration {
	if method, ok := g.table.Load().Method(procedure); ok {
		return min(method.Timeout, g.longest(method))
	}
	return g.config.MaxTimeout
}

// longest is the longest that any call of the method's kind may take.
func (g *Gateway) longest(method *policy.Method) time.Duration {
	if method.Spec.StreamType&connect.StreamTypeServer != 0 {
		return g.config.MaxStreamTimeout
	}
	return g.config.MaxTimeout
}

// Listen binds the edge's address and the operators'.
func (g *Gateway) Listen(ctx context.Context) error {
	return errors.Join(g.server.Listen(ctx), g.admin.Listen(ctx))
}

// GRPCAddr returns the address for gRPC alone, once it listens; "" for none.
func (g *Gateway) GRPCAddr() string { return g.server.GRPCAddr() }

// URL returns the edge's base URL, once it listens.
func (g *Gateway) URL() string { return g.server.URL() }

// Addr returns the edge's address, once it listens.
func (g *Gateway) Addr() string { return g.server.Addr() }

// Register adds metrics to the gateway's own.
func (g *Gateway) Register(metrics ...prometheus.Collector) {
	g.server.Metrics.Registerer(g.config.Listen.Name).MustRegister(metrics...)
}

// AdminURL returns the operators' base URL, once it listens.
func (g *Gateway) AdminURL() string { return g.admin.URL() }

// Ready reports why the gateway takes no calls, nil when it does.
func (g *Gateway) Ready(ctx context.Context) error { return g.server.Ready(ctx) }

// Load returns what the gateway has been doing in the last seconds.
func (g *Gateway) Load() rpc.Load { return g.server.Metrics.Load() }

// Serve answers calls until ctx ends and those in flight have been answered.
func (g *Gateway) Serve(ctx context.Context) error {
	// What serves the calls ends after them; the last calls' audit records are
	// published first.
	return rpc.RunLayers(ctx,
		rpc.Layer{g.server.Serve},
		rpc.Layer{g.prober.Run, g.refreshKeys, g.followAPIKeys, g.admin.Serve},
		rpc.Layer{g.closePool},
		rpc.Layer{g.audit.Run},
	)
}

// refreshKeys refreshes the keys of tokens until ctx ends, and ends the streams that were
// admitted under withdrawn ones.
func (g *Gateway) refreshKeys(ctx context.Context) error {
	g.config.Auth.Keys.Run(ctx, func() {
		g.log.Info().Msg("the keys of tokens have changed")
		g.endWithdrawn(g.live.all()...)
	}, func(err error) { g.log.Error().Err(err).Msg("the keys of tokens are not refreshed; those in use stay") })
	return nil
}

// followAPIKeys keeps the API keys as their source has them until ctx ends.
func (g *Gateway) followAPIKeys(ctx context.Context) error {
	if g.config.Auth.APIKeys == nil {
		<-ctx.Done()
		return nil
	}
	g.config.Auth.APIKeys.Run(ctx, func() {
		g.log.Info().Msg("the API keys have changed")
		g.endWithdrawn(g.live.all()...)
	}, func(err error) { g.log.Error().Err(err).Msg("the API keys are not renewed; those in use stay") })
	return nil
}

// closePool closes the channels to nodes when ctx ends.
func (g *Gateway) closePool(ctx context.Context) error {
	<-ctx.Done()
	g.pool.Close()
	return nil
}

// stage adds what it finds out to a call, or refuses it.
type stage func(ctx context.Context, call *Call) (context.Context, error)

// stages is the pipeline between the transport contract, which an interceptor
// has taken in already, and the upstream.
func (g *Gateway) stages() []stage {
	return []stage{
		g.authenticate,
		g.admit,
		g.standing,
		g.admission,
		g.deadline,
		g.headers,
		g.receive,
		g.tenant,
		g.authorize,
		g.limits,
		g.route,
	}
}

// handler returns the method's handler: the stages, then the upstream.
func (g *Gateway) handler(metrics *rpc.Metrics, method *policy.Method) connect.ServerFunc {
	stages, calls := g.stages(), metrics.Calls(method.Spec.Procedure)
	log := g.log.With().Str("procedure", method.Spec.Procedure).Logger()
	longest := min(method.Timeout, g.longest(method))
	return func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := &Call{Method: method, Info: info, Stream: stream, end: rpc.Outcome{
			Procedure: method.Spec.Procedure, Protocol: info.Protocol, Started: contextkit.In(ctx).Began(), Err: rpc.ErrUnfinished,
		}}
		calls.Begin()
		defer func() { calls.End(&call.end, method.Spec.StreamType, contextkit.In(ctx).TraceID) }()
		defer call.use.Leave()
		ctx, call.chosen = rpc.Hop(ctx, &call.until, call.end.Started, longest, hopMargin)
		defer call.until.Cancel()
		var err error
		for _, stage := range stages {
			if ctx, err = stage(ctx, call); err != nil {
				g.refused(ctx, call)
				break
			}
		}
		if err == nil && method.Spec.StreamType != connect.StreamTypeUnary && g.operates(call) {
			g.recordOperation(contextkit.In(ctx), call, nil) // a stream's data flows long before it ends
		}
		if err == nil {
			if err = g.forward(ctx, call); err != nil {
				call.noteDenial(err)
			}
		}
		err = rpc.Bounded(err)
		g.conclude(ctx, &log, call, err)
		return err
	}
}
