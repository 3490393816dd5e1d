package node

import (
	"context"
	"errors"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/rs/zerolog"
)

// edge is a gateway with what it follows: nodes, placements, what operators decide about
// tenants, and the services that nodes describe.
type edge struct {
	id        string
	js        *bus
	gateway   *gateway.Gateway
	router    *router
	reflector *reflector
	timeline  *backbone.Timeline
	spans     spans
	keys      *auth.APIKeyRing // nil: there are none
	log       zerolog.Logger
}

// edgeConfig describes an edge.
type edgeConfig struct {
	// gateway is complete but for its timeline, its spans and its optional kinds of nodes.
	gateway gateway.Config
	id      string
	tracing tracing.Config
	// descriptors are FileDescriptorSets of further services.
	descriptors [][]byte
	// routes has the configured nodes, and placed the configured placements.
	routes *route.Table
	placed []route.Placement
	// nodes are the configured nodes that may describe their services.
	nodes []nodeSettings
}

// openEdge returns an edge that listens and knows the placements and tenants that there are.
// Nothing needs NATS after the edge has begun to listen, so that a failed attempt can be
// repeated with the same addresses.
func openEdge(ctx context.Context, js *bus, c edgeConfig, log zerolog.Logger) (_ *edge, err error) {
	e := &edge{id: c.id, js: js, keys: c.gateway.Auth.APIKeys, log: log, router: newRouter(c.routes, c.placed, log)}
	catalog, err := policy.NewCatalog(c.descriptors...)
	if err != nil {
		return nil, err
	}
	if e.timeline, err = backbone.NewTimeline(js); err != nil {
		return nil, err
	}
	if e.spans, err = openSpans(ctx, c.tracing, "gateway", c.id, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.spans.close(ctx))
		}
	}()
	config := c.gateway
	config.Timeline, config.Optional = e.timeline, []string{kindControl, kindRunner}
	config.Degraded = e.degraded
	if e.spans.Exporter != nil {
		config.OnEnd, config.OnUpstreamCall = e.spans.edgeCall, e.spans.asked
	}
	if config.TicketSecret, err = backbone.SharedSecret(ctx, js, "tokens"); err != nil {
		return nil, err
	}
	if e.gateway, err = gateway.New(config, catalog, c.routes, js, log); err != nil {
		return nil, err
	}
	e.gateway.Register(append(e.spans.metrics(), append(js.collectors(), &e.router.fleet)...)...)
	if err := errors.Join(e.router.loadPlacements(ctx, js), loadTenants(ctx, js, e.gateway)); err != nil {
		return nil, err
	}
	if err := e.gateway.Listen(ctx); err != nil {
		return nil, err
	}
	e.reflector = newReflector(c.nodes, config.Upstream, log)
	e.reflector.start(ctx, e.gateway)
	e.router.stranger, e.router.answers = e.reflector.announce, e.gateway.Answers
	return e, nil
}

// degraded returns the degraded parts of the platform: NATS while it is away, since what the
// gateway knows over it is then as of its last answer, and the journal while nodes announce that
// it is damaged.
func (e *edge) degraded() map[string]string {
	parts := map[string]string{}
	if outage, away := e.js.monitor.Outage(); away {
		parts["nats"] = outage.String() + ": nodes, placements, tenants and their limits are those known then"
	}
	if e.router.journalDamaged() {
		parts[backbone.DegradedJournal] = "events of the journal are missing: GET /v1/control/journal returns their sequences"
	}
	return parts
}

// layers returns what the edge runs, in the order in which it ends: the announcement of the
// node, the calls in flight, then the timeline and spans of those calls.
func (e *edge) layers(node backbone.Node) []rpc.Layer {
	announce := func(ctx context.Context) error {
		return ended(ctx, backbone.Announce(ctx, e.js, node, func(ctx context.Context, now *backbone.Node) error {
			now.Load, now.Routing, now.Open = loadOf(e.gateway.Load()), e.router.revision.Load(), e.gateway.OpenBreakers()
			now.Degraded = e.gateway.Degraded(ctx)
			return e.gateway.Ready(ctx)
		}))
	}
	return []rpc.Layer{
		{announce},
		{
			e.gateway.Serve,
			func(ctx context.Context) error { return e.router.followNodes(ctx, e.js) },
			func(ctx context.Context) error { return e.router.followPlacements(ctx, e.js) },
			func(ctx context.Context) error { return followTenants(ctx, e.js, e.gateway, e.log) },
			func(ctx context.Context) error { return watchRights(ctx, e.js, e.keys, e.log) },
			e.reflector.run,
		},
		{func(ctx context.Context) error { return e.timeline.Run(ctx, e.id) }, e.spans.Run},
	}
}
