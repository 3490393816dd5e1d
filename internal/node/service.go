package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/traffic"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/control"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// serviceRole is what distinguishes one kind of service from another.
type serviceRole struct {
	ready     rpc.Readiness
	register  func(*connect.Server)
	metrics   []prometheus.Collector
	integrity *journal.Integrity // of the journal
	// suspend is called with the suspended tenants; nil: suspension does not concern the role.
	suspend func([]contextkit.TenantID)
	// failingViews returns views that cannot apply an event, and their number; nil: the role has none.
	failingViews func() ([]fleet.FailingView, int)
	// drained reports whether operators have drained the node, so that it answers reads only; nil: it cannot be
	// drained.
	drained func() bool
	// before ends before the server does, since it calls others; after ends when no more calls arrive. Either may be
	// nil.
	before, after func(context.Context) error
	// lag returns the amount of pending work of the node, and the tenants with the most, see [fleet.MostBehind]; nil:
	// there never is any.
	lag func() (lag int64, behind []fleet.TenantLag, count int)
	// close releases what the role has opened.
	close func() error
}

// service is a role of the platform with its server.
type service struct {
	serviceRole

	server *rpc.Server
	member *member
	direct *directCalls
	calls  *traffic.Recorder // of the server
}

// newService returns a service. Its server has spans of its calls, and the metrics that all nodes have.
func newService(m *member, listen rpc.Config, r serviceRole) *service {
	if m.spans.Exporter != nil {
		listen.Ended = m.spans.call
	}
	listen.Degraded = m.degraded(r.integrity)
	direct := newDirectCalls(m)
	listen.Direct = direct.record
	server := rpc.NewServer(listen, m.whileAccepting(r.ready), m.log)
	server.Metrics.Registerer(listen.Name).MustRegister(slices.Concat(
		r.metrics, m.js.collectors(), []prometheus.Collector{r.integrity, m.timeline, m.rollout}, m.spans.metrics(),
		direct.recorder.Collectors())...)
	if m.drained != nil {
		r.drained = func() bool { return m.drained.Check() != nil }
		server.Metrics.Registerer(listen.Name).MustRegister(m.drained)
	}
	calls := &traffic.Recorder{}
	server.Metrics.Count(func(ended time.Time, took time.Duration, stream, failed bool) {
		calls.Observe(traffic.Call{
			Ended:  ended,
			Took:   took,
			Stream: stream,
			Failed: failed,
		})
	})
	r.register(server.RPC)
	return &service{r, server, m, direct, calls}
}

// layers returns the parts that the service runs, in the order in which they stop.
func (s *service) layers() []rpc.Layer {
	var out []rpc.Layer
	for _, part := range []func(context.Context) error{s.before, s.server.Serve, s.after} {
		if part != nil {
			out = append(out, rpc.Layer{part})
		}
	}
	return append(out, rpc.Layer{s.follow, s.member.followTokens, s.guard},
		rpc.Layer{s.member.record, s.member.spans.Run, s.direct.recorder.Run})
}

// follow updates the served tenants, and whether the node is drained, until ctx ends.
func (s *service) follow(ctx context.Context) error {
	return rpc.RunLayers(ctx, rpc.Layer{
		func(ctx context.Context) error { return s.member.follow(ctx, s.suspend) },
		s.member.followDrained,
	})
}

// guard checks the journal until ctx ends; a control node reads all of it.
func (s *service) guard(ctx context.Context) error {
	return s.integrity.Run(ctx, s.member.kind == contextkit.KindControl, s.member.log)
}

// endpoint returns the address at which gateways call the service: its port for gRPC if there is one.
func (s *service) endpoint() string { return cmp.Or(s.server.GRPCAddr(), s.server.Addr()) }

// nothing is the close function of a role that opens nothing.
func nothing() error { return nil }

func newAggregate(
	ctx context.Context, m *member, models *model.Registry, config aggregate.Config, listen rpc.Config,
) (*service, error) {
	config.Tokens, config.Log = m.tokens, m.log
	aggregates, err := aggregate.New(ctx, config, m.js, models, m.tenants, m.timeline)
	if err != nil {
		return nil, err
	}
	return newService(m, listen, serviceRole{
		ready:     aggregates.Ready,
		register:  aggregates.Register,
		metrics:   []prometheus.Collector{aggregates},
		integrity: aggregates.Integrity(),
		after:     aggregates.Run,
		close:     nothing,
	}), nil
}

// viewStore is where a projection has its views.
type viewStore struct {
	open    store.Opener
	ready   func() error
	metrics []prometheus.Collector
	run     func(context.Context) error
	close   func() error
}

// newProjection returns the projection role. It owns views, also after an error.
func newProjection(
	ctx context.Context, m *member, models *model.Registry, config projection.Config, views viewStore,
	listen rpc.Config,
) (*service, error) {
	config.Tokens, config.Outage, config.Store = m.tokens, m.js.monitor.Outage, views.ready
	projections, err := projection.New(ctx, config, m.js, models, m.tenants, views.open, m.timeline, m.log)
	if err != nil {
		return nil, errors.Join(err, views.close())
	}
	return newService(m, listen, serviceRole{
		ready:        projections.Ready,
		register:     projections.Register,
		metrics:      append(views.metrics, projections),
		integrity:    projections.Integrity(),
		failingViews: projections.Announced,
		after: func(ctx context.Context) error {
			return rpc.RunLayers(ctx,
				rpc.Layer{projections.Run, views.run})
		},
		lag:   projections.Lag,
		close: func() error { return errors.Join(projections.Close(), views.close()) },
	}), nil
}

// newRunner returns the runner role. It owns the pool of commands, also after an error.
func newRunner(
	ctx context.Context, m *member, models *model.Registry, config runner.Config, commands *commander,
	hooks webhook.Config, listen rpc.Config,
) (*service, error) {
	config.Node, config.Tokens, hooks.Transport = m.id, m.tokens, m.spans.RoundTripper
	workflows, err := runner.New(ctx, config, m.js, models, m.tenants, commands.client(m.spans.clients()...), hooks,
		m.timeline, m.log)
	if err != nil {
		commands.pool.Close()
		return nil, err
	}
	return newService(m, listen, serviceRole{
		ready:     workflows.Ready,
		register:  workflows.Register,
		metrics:   []prometheus.Collector{workflows},
		integrity: workflows.Integrity(),
		suspend:   workflows.Suspend,
		before:    workflows.Run,
		lag:       workflows.Lag,
		drained:   workflows.Drained,
		close:     closing(commands.pool),
	}), nil
}

// newControl returns the control role. It owns pool, also after an error. fixed states that the model comes from a
// file.
func newControl(
	ctx context.Context, m *member, models *model.Registry, fixed bool, pool *upstream.Pool, listen rpc.Config,
) (*service, error) {
	nodes := control.Nodes{
		Client: contextkit.NewClient(upstream.NewTransport(pool), m.spans.clients()...),
		At:     upstream.WithEndpoint,
	}
	platform, err := control.New(ctx, control.Config{
		ID:     m.id,
		Fixed:  fixed,
		Nodes:  nodes,
		Outage: m.js.monitor.Outage,
	}, m.js, models, m.log)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return newService(m, listen, serviceRole{
		ready:     platform.Ready,
		register:  platform.Register,
		metrics:   []prometheus.Collector{platform},
		integrity: platform.Integrity(),
		before:    platform.Run,
		close:     closing(pool),
	}), nil
}

// closing returns the close function of a role with a pool.
func closing(pool *upstream.Pool) func() error {
	return func() error {
		pool.Close()
		return nil
	}
}
