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
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/traffic"
)

// Config describes a gateway.
type Config struct {
	// Listen configures the server for clients.
	Listen rpc.Config
	// Admin is the address of the server for operators: metrics, nodes, profiles. "": a loopback
	// port that the system chooses.
	Admin string
	// LocalAdmin makes that server reject requests whose Host is another machine's DNS name.
	LocalAdmin bool
	// Auth configures the accepted credentials.
	Auth auth.Config
	// Platform lists the principals (by [auth.Principal].Subject) whose calls for tenants are the
	// platform's own, such as the runner's commands: they are audited only if they are denied or
	// the method's policy requires it, and nodes receive [contextkit.HeaderPlatform]. A principal
	// counts only if it acts for every tenant. Calls for tenants by all other principals that act
	// for every tenant are audited as operators' calls.
	Platform []string
	// Upstream bounds the connections to nodes.
	Upstream upstream.PoolConfig
	// Breakers configures when calls are diverted from a failing node.
	Breakers breaker.Config
	// Probes configures the health checks of nodes.
	Probes probe.Config
	// MaxTimeout bounds the duration of every call and MaxStreamTimeout that of every server
	// stream, even if the method's policy allows more. 0: 30 s and 1 h.
	MaxTimeout, MaxStreamTimeout time.Duration
	// MaxConcurrent bounds the calls in flight, including those whose request is still arriving.
	// Further calls are rejected, those of low priority first. 0: 4096.
	MaxConcurrent int
	// MaxStreams bounds the server streams in flight, which MaxConcurrent does not count. 0: 16384.
	MaxStreams int
	// MaxBytes bounds the bytes of messages in memory. 0: 512 MiB.
	MaxBytes int64
	// TenantShare is the share of these three bounds that one tenant may use, above 0 and at most
	// 1. 0: one half.
	TenantShare float64
	// CallerShare is the share of these bounds that one principal may use for calls whose tenant is
	// not known yet and for calls of the platform, and one client address for calls without a
	// credential. 0: one sixteenth.
	CallerShare float64
	// Limits is the default quota of a tenant.
	Limits limit.Config
	// Origins are the origins whose pages may call the gateway from a browser. Default: none.
	Origins []Origin
	// HSTS is the Strict-Transport-Security policy for clients that use TLS.
	HSTS HSTS
	// TicketSecret is the secret of tickets, shared by all gateways of a platform; nil: the gateway
	// issues no tickets.
	TicketSecret []byte
	// Query configures how the query strings of REST calls are parsed.
	Query edge.Query
	// KeepAlive is the idle time after which a REST server stream sends a keep-alive. 0:
	// [edge.DefaultKeepAlive]; below 0: never.
	KeepAlive time.Duration
	// ForeignOnly serves only the services of descriptor sets and of nodes that describe
	// themselves, and not the platform's own services.
	ForeignOnly bool
	// Optional lists kinds of nodes that serve operators only: a tenant is ready without them
	// (/ready?tenant=), and they are reported as degraded.
	Optional []contextkit.Kind
	// Degraded returns the degraded parts of the platform other than kinds of nodes, each with the
	// reason, which /ready shows; nil: none. The gateway owns the returned map.
	Degraded func() map[string]string
	// UI serves the pages of the Control UI under /ui/; nil: no UI.
	UI http.Handler
	// Timeline records calls that change state or fail; nil: no calls are recorded.
	Timeline *timeline.Recorder
	// OnEnd is called when a call has ended, including calls that the pipeline rejected; nil: no
	// function is called. It must not block.
	OnEnd func(contextkit.RequestContext, Ended)
	// OnUpstreamCall is called when an upstream call of a sampled trace has ended, for each
	// attempt; nil: no function is called. It must not block.
	OnUpstreamCall rpc.AskedFunc
}

// Ended describes a call that has ended, with the gateway's decisions on it.
type Ended struct {
	rpc.Ended

	// Principal is the subject of the caller, and Node the id of the node that answered; "":
	// unknown.
	Principal, Node string
	// Attempts counts the upstream calls.
	Attempts int
	// Request is the HTTP request of a call over REST, zero for any other call.
	Request edge.Request
}

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

// timeout returns the maximum duration of a call of the procedure.
func (g *Gateway) timeout(procedure string) time.Duration {
	if method, ok := g.table.Load().Method(procedure); ok {
		return min(method.Timeout, g.maxTimeout(method))
	}
	return g.config.MaxTimeout
}

// maxTimeout returns the maximum duration of any call of the method's kind: unary or server stream.
func (g *Gateway) maxTimeout(method *policy.Method) time.Duration {
	if method.Spec.StreamType&connect.StreamTypeServer != 0 {
		return g.config.MaxStreamTimeout
	}
	return g.config.MaxTimeout
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
		rpc.Layer{g.prober.Run, g.refreshKeys, g.followAPIKeys, g.followRevocations, g.admin.Serve},
		rpc.Layer{g.closePool},
		rpc.Layer{g.audit.Run},
	)
}

// refreshKeys refreshes the signing keys of tokens until ctx ends, and ends the streams that were
// admitted by a revoked key.
func (g *Gateway) refreshKeys(ctx context.Context) error {
	var running sync.WaitGroup
	for _, issuer := range g.config.Auth.Issuers {
		log := g.log.With().Str("issuer", issuer.Issuer).Logger()
		running.Go(func() {
			issuer.Keys.Run(ctx, func() {
				log.Info().Msg("the signing keys of tokens have changed")
				g.endRevoked(g.live.all()...)
			}, func(err error) {
				log.Error().Err(err).Msg(
					"refreshing the signing keys of tokens failed; the current keys stay in use, until they are too old",
				)
			})
		})
	}
	running.Wait()
	<-ctx.Done()
	return nil
}

// followAPIKeys reloads the API keys from their source until ctx ends, and ends the streams that
// were admitted by a revoked key.
func (g *Gateway) followAPIKeys(ctx context.Context) error {
	if g.config.Auth.APIKeys == nil {
		<-ctx.Done()
		return nil
	}
	g.config.Auth.APIKeys.Run(ctx, func() {
		g.log.Info().Msg("the API keys have changed")
		g.endRevoked(g.live.all()...)
	}, func(err error) {
		g.log.Error().Err(err).Msg("reloading the API keys failed; the current keys stay in use")
	})
	return nil
}

// SetRevocations replaces the platform's revocations of tokens, and ends the streams that revoked
// tokens have admitted.
func (g *Gateway) SetRevocations(set *auth.Revocations) { g.revoke(auth.RevocationsPlatform, set) }

// RevocationsAway reports that the platform's revocations are not received: the known ones apply.
func (g *Gateway) RevocationsAway() { g.verifier.RevocationsAway(auth.RevocationsPlatform) }

func (g *Gateway) revoke(source string, set *auth.Revocations) {
	g.verifier.SetRevocations(source, set)
	g.endRevoked(g.live.all()...)
}

// followRevocations reloads the list of revocations of the settings until ctx ends.
func (g *Gateway) followRevocations(ctx context.Context) error {
	if g.config.Auth.Revocations == nil {
		<-ctx.Done()
		return nil
	}
	g.config.Auth.Revocations.Run(ctx, func(set *auth.Revocations) {
		g.log.Info().Msg("the list of revoked tokens has changed")
		g.revoke(auth.RevocationsFile, set)
	}, func(err error) {
		g.verifier.RevocationsAway(auth.RevocationsFile)
		g.log.Error().Err(err).Msg("reloading the list of revoked tokens failed; the former list stays in use")
	})
	return nil
}

// closePool closes the connections to nodes when ctx ends.
func (g *Gateway) closePool(ctx context.Context) error {
	<-ctx.Done()
	g.pool.Close()
	return nil
}

// stage adds its results to a call, or rejects it.
type stage func(ctx context.Context, call *Call) (context.Context, error)

// stages returns the pipeline between the transport contract, which an interceptor extracts, and
// forward. Stage x is in the file stage_x.go.
func (g *Gateway) stages() []stage {
	return []stage{
		g.authenticate,
		g.right,
		g.standing,
		g.admission,
		g.deadline,
		g.headers,
		g.receive,
		g.tenant,
		g.authorize,
		g.quota,
		g.route,
	}
}

// handler returns the handler of a method: it runs the stages, then forward.
func (g *Gateway) handler(metrics *rpc.Metrics, method *policy.Method) connect.ServerFunc {
	stages, calls := g.stages(), metrics.Calls(method.Spec.Procedure)
	log := g.log.With().Str("procedure", method.Spec.Procedure).Logger()
	limit := min(method.Timeout, g.maxTimeout(method))
	return func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := &Call{
			Method: method,
			Info:   info,
			Stream: stream,
			end: rpc.Outcome{
				Procedure: method.Spec.Procedure,
				Protocol:  info.Protocol,
				Started:   contextkit.In(ctx).Began(),
				Err:       rpc.ErrUnfinished,
			},
		}
		calls.Begin()
		defer func() { calls.End(&call.end, method.Spec.StreamType, contextkit.In(ctx).TraceID) }()
		defer call.use.ReleaseAll()
		call.until.Plain = g.config.Listen.FastPaths.Deadlines.IsPlain()
		ctx, call.clientDeadline = rpc.HandlerContext(ctx, &call.until, call.end.Started, limit, deadlineMargin)
		defer call.until.Cancel()
		var err error
		for _, stage := range stages {
			if ctx, err = stage(ctx, call); err != nil {
				g.accountRefusal(ctx, call)
				break
			}
		}
		if err == nil && method.Spec.StreamType != connect.StreamTypeUnary && g.isOperatorCall(call) {
			g.recordOperation(contextkit.In(ctx), call, nil) // now, because a stream transfers data long before it ends
		}
		if err == nil {
			if err = g.forward(ctx, call); err != nil {
				call.noteNodeDenial(err)
			}
		}
		err = rpc.Bounded(err)
		g.conclude(ctx, &log, call, err)
		return err
	}
}
