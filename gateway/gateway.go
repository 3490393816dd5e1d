package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/chassis/compression"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/audit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/openapi"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config describes a gateway.
type Config struct {
	// Listen is where clients reach it.
	Listen chassis.Config
	// Auth says which tokens count.
	Auth auth.Config
	// Upstream bounds the channels to nodes.
	Upstream upstream.PoolConfig
	// MaxTimeout bounds every call, whatever its policy says. 0: 30 s.
	MaxTimeout time.Duration
	// MaxConcurrent bounds the calls in flight; more are refused at once. 0:
	// 4096.
	MaxConcurrent int
	// Limits bound each tenant.
	Limits limit.Config
	// Origins are the origins whose pages may call the edge from a browser,
	// such as "https://app.example.com". None by default.
	Origins []string
}

const (
	defaultMaxTimeout    = 30 * time.Second
	defaultMaxConcurrent = 4096
	// compressMinBytes is the size below which compressing costs more than it
	// saves.
	compressMinBytes = 512
)

// Gateway is the edge. Run it with Listen, then Serve.
type Gateway struct {
	config   Config
	server   *chassis.Server
	table    *policy.Table
	verifier *auth.Verifier
	routes   *route.Table
	pool     *upstream.Pool
	client   *connect.Client
	audit    *audit.Recorder
	log      zerolog.Logger
	slots    chan struct{}
	tenants  *limit.Tenants
	retries  *limit.Budget
	breakers *breaker.Set
	limited  *prometheus.CounterVec
	retried  *prometheus.CounterVec
}

// New returns a gateway that serves the methods of the catalog to the nodes of
// routes. js takes the audit records.
func New(config Config, catalog *policy.Catalog, routes *route.Table, js jetstream.JetStream, log zerolog.Logger) (*Gateway, error) {
	if config.MaxTimeout == 0 {
		config.MaxTimeout = defaultMaxTimeout
	}
	if config.MaxConcurrent == 0 {
		config.MaxConcurrent = defaultMaxConcurrent
	}
	table, err := policy.Build(catalog, transcode.NewCompiler(catalog))
	if err != nil {
		return nil, err
	}
	verifier, err := auth.NewVerifier(config.Auth)
	if err != nil {
		return nil, err
	}
	tenants, err := limit.NewTenants(config.Limits)
	if err != nil {
		return nil, err
	}
	pool := upstream.NewPool(config.Upstream)
	g := &Gateway{
		config: config, table: table, verifier: verifier, routes: routes, pool: pool,
		client: contextkit.NewClient(upstream.NewTransport(pool)),
		log:    log, slots: make(chan struct{}, config.MaxConcurrent), tenants: tenants, retries: limit.NewBudget(), breakers: breaker.NewSet(),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_limited_total", Help: "Calls refused for want of room, by reason."}, []string{"reason"}),
		retried: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_upstream_retries_total", Help: "Further attempts at a node, and those that the budget forbade."}, []string{"outcome"}),
	}
	options := []connecthttp.Option{
		connecthttp.WithCodecs(frame.ProtoCodec(), frame.JSONCodec()),
		connecthttp.WithCompressors(compression.All()...), connecthttp.WithCompressMinBytes(compressMinBytes),
	}
	g.server = chassis.NewEdge(config.Listen, g.ready, log, options, contextkit.EdgeInterceptor)
	if g.server.Front, err = crossOrigin(config.Origins); err != nil {
		return nil, err
	}
	metrics := g.server.Metrics.Registerer(config.Listen.Name)
	metrics.MustRegister(g.limited, g.retried, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_breakers_open", Help: "Nodes that are not called because they do not answer.",
	}, func() float64 { return float64(g.breakers.Open()) }))
	g.audit = audit.NewRecorder(js, metrics, log)
	for _, method := range table.Methods() {
		g.server.RPC.Register(connect.Method{Spec: method.Spec, Handler: g.server.Metrics.Observe(log, zerolog.Disabled)(g.handler(method))})
	}
	// Reflection shows what is served, to whoever has a credential.
	g.server.Guard(g.authenticated, func(server *connect.Server) {
		grpcreflect.Register(server, grpcreflect.WithNamer(table), grpcreflect.WithDescriptorResolver(catalog))
	})
	rest, err := edge.NewREST(g.server.RPC, table, g.server.MaxBodyBytes(), compression.All()...)
	if err != nil {
		return nil, err
	}
	g.server.HTTP.Handle("/", rest)
	document, err := openapi.Document("Headgate", "v1", table)
	if err != nil {
		return nil, err
	}
	g.server.HTTP.Handle("GET /openapi.json", openapi.Handler(document, func(r *http.Request) bool {
		_, err := verifier.Authenticate(r.Context(), r.Header.Values(headerAuthorization))
		return err == nil
	}))
	return g, nil
}

// Listen binds the edge's address.
func (g *Gateway) Listen(ctx context.Context) error { return g.server.Listen(ctx) }

// URL returns the edge's base URL, once it listens.
func (g *Gateway) URL() string { return g.server.URL() }

// Addr returns the edge's address, once it listens.
func (g *Gateway) Addr() string { return g.server.Addr() }

// Serve answers calls until ctx ends and those in flight have been answered.
func (g *Gateway) Serve(ctx context.Context) error {
	auditCtx, stopAudit := context.WithCancel(context.WithoutCancel(ctx))
	audited := make(chan error, 1)
	go func() { audited <- g.audit.Run(auditCtx) }()
	keysCtx, stopKeys := context.WithCancel(ctx)
	var refreshing sync.WaitGroup
	refreshing.Go(func() {
		g.config.Auth.Keys.Run(keysCtx, func(err error) { g.log.Error().Err(err).Msg("the keys of tokens are not refreshed; those in use stay") })
	})
	err := g.server.Serve(ctx)
	stopKeys()
	refreshing.Wait()
	g.pool.Close()
	stopAudit() // the last calls' records are published first
	return errors.Join(err, <-audited)
}

// ready reports why the gateway cannot serve a tenant, or anybody.
func (g *Gateway) ready(_ context.Context, tenant contextkit.TenantID) error {
	asked := map[string]bool{}
	for _, method := range g.table.Methods() {
		if asked[method.Upstream] {
			continue
		}
		asked[method.Upstream] = true
		if _, ok := g.routes.Lookup(method.Upstream, tenant); !ok {
			return fmt.Errorf("no %s node is ready", method.Upstream)
		}
	}
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
		g.deadline,
		g.receive,
		g.tenant,
		g.authorize,
		g.limits,
		g.route,
	}
}

// handler returns the method's handler: the stages, then the upstream.
func (g *Gateway) handler(method *policy.Method) connect.ServerFunc {
	stages := g.stages()
	return func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := &Call{Method: method, Info: info, Stream: stream, start: time.Now()}
		select {
		case g.slots <- struct{}{}:
			defer func() { <-g.slots }()
		default:
			g.limited.WithLabelValues("GATEWAY_FULL").Inc()
			return exhausted("the gateway is full", "GATEWAY_FULL", 0)
		}
		ctx, cancel := context.WithTimeout(ctx, g.config.MaxTimeout)
		defer cancel()
		var err error
		for _, stage := range stages {
			if ctx, err = stage(ctx, call); err != nil {
				break
			}
		}
		if call.leave != nil {
			defer call.leave()
		}
		if err == nil {
			err = g.forward(ctx, call)
		}
		g.conclude(ctx, call, err)
		return err
	}
}
