package node

import (
	"cmp"
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/control"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

// service is a role that listens, with the background tasks besides its server.
type service struct {
	server *rpc.Server
	member *member
	// before ends before the server does, since it calls others; after ends when no more calls arrive. Either may be
	// nil.
	before, after func(context.Context) error
	// lag returns the amount of pending work of the node; nil: there never is any.
	lag   func() int64
	close func() error
}

// layers returns the parts that the service runs, in the order in which they stop.
func (s *service) layers() []rpc.Layer {
	var out []rpc.Layer
	for _, part := range []func(context.Context) error{s.before, s.server.Serve, s.after} {
		if part != nil {
			out = append(out, rpc.Layer{part})
		}
	}
	return append(out, rpc.Layer{s.member.follow, s.member.followTokens, s.member.guard}, rpc.Layer{s.member.record, s.member.spans.Run})
}

// endpoint returns the address at which gateways call the service: its port for gRPC if there is one.
func (s *service) endpoint() string { return cmp.Or(s.server.GRPCAddr(), s.server.Addr()) }

// announce announces the service until ctx ends.
func (s *service) announce(node fleet.Node) func(context.Context) error {
	return func(ctx context.Context) error { return s.member.announce(ctx, node, s.server, s.lag) }
}

// openModel reads the model; its mistakes are the error.
func openModel(ctx context.Context, source model.Source) (*model.Registry, error) {
	models, err := model.Open(ctx, source)
	return models, modelError(err)
}

// modelError wraps err, unless it is nil, as the error of an invalid model.
func modelError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the model cannot be used:\n%w", err)
}

func newAggregate(ctx context.Context, m *member, models *model.Registry, config aggregate.Config, listen rpc.Config) (*service, error) {
	config.Tokens, config.Log = m.tokens, m.log
	aggregates, err := aggregate.New(ctx, config, m.js, models, m.tenants, m.timeline)
	if err != nil {
		return nil, err
	}
	m.integrity = aggregates.Integrity()
	s := &service{server: m.server(listen, aggregates.Ready, aggregates, m.integrity), member: m, after: aggregates.Run, close: func() error { return nil }}
	aggregates.Register(s.server.RPC)
	return s, nil
}

func newProjection(ctx context.Context, m *member, models *model.Registry, config projection.Config, views store.Opener, listen rpc.Config, metrics ...prometheus.Collector) (*service, error) {
	config.Tokens, config.Outage = m.tokens, m.js.monitor.Outage
	projections, err := projection.New(ctx, config, m.js, models, m.tenants, views, m.timeline, m.log)
	if err != nil {
		return nil, err
	}
	m.integrity, m.failingViews = projections.Integrity(), projections.Announced
	s := &service{server: m.server(listen, projections.Ready, append(metrics, projections, m.integrity)...), member: m, after: projections.Run, lag: projections.Lag, close: projections.Close}
	projections.Register(s.server.RPC)
	return s, nil
}

func newRunner(ctx context.Context, m *member, models *model.Registry, config runner.Config, commands gatewayv1connect.CommandServiceClient, hooks webhook.Config, listen rpc.Config) (*service, error) {
	config.Node, config.Tokens, hooks.Transport = m.id, m.tokens, m.spans.RoundTripper
	workflows, err := runner.New(ctx, config, m.js, models, m.tenants, commands, hooks, m.timeline, m.log)
	if err != nil {
		return nil, err
	}
	m.suspend, m.integrity = workflows.Suspend, workflows.Integrity()
	s := &service{server: m.server(listen, workflows.Ready, workflows, m.integrity), member: m, before: workflows.Run, lag: workflows.Lag, close: func() error { return nil }}
	workflows.Register(s.server.RPC)
	return s, nil
}

// newControl returns the control role. fixed states that the model comes from a file.
func newControl(ctx context.Context, m *member, models *model.Registry, fixed bool, pool *upstream.Pool, listen rpc.Config) (*service, error) {
	nodes := control.Nodes{Client: contextkit.NewClient(upstream.NewTransport(pool), m.spans.clients()...), At: upstream.WithEndpoint}
	platform, err := control.New(ctx, control.Config{ID: m.id, Fixed: fixed, Nodes: nodes, Outage: m.js.monitor.Outage}, m.js, models, m.log)
	if err != nil {
		return nil, err
	}
	m.integrity = platform.Integrity()
	s := &service{server: m.server(listen, platform.Ready, platform, m.integrity), member: m, before: platform.Run, close: func() error { return nil }}
	platform.Register(s.server.RPC)
	return s, nil
}
