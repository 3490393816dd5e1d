package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	gatewayfleet "github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/tracing"
)

// edge is a gateway with everything that it follows: nodes, placements, the standing of tenants, and the services that
// nodes describe.
type edge struct {
	id        string
	js        *bus
	gateway   *gateway.Gateway
	router    *gatewayfleet.Router
	drained   *fleet.Drained
	issued    *gatewayfleet.Credentials
	reflector *gatewayfleet.Reflector
	timeline  *timeline.Recorder
	spans     spans
	keys      *auth.APIKeyRing // nil: there are none
	log       zerolog.Logger
}

// edgeConfig configures an edge.
type edgeConfig struct {
	// gateway is complete except for its timeline, its spans and its optional kinds of nodes.
	gateway gateway.Config
	id      string
	tracing tracing.Config
	// descriptors are FileDescriptorSets of further services.
	descriptors [][]byte
	// routes has the nodes of the settings, placed the placements.
	routes *route.Table
	placed []route.Placement
	// nodes are the nodes of the settings.
	nodes []nodeSettings
}

// openEdge returns an edge that listens, with the stored placements and tenants loaded. NATS is not used after the edge
// listens, so that a failed attempt can be repeated with the same addresses.
func openEdge(ctx context.Context, js *bus, c edgeConfig, log zerolog.Logger) (_ *edge, err error) {
	catalog, err := policy.NewCatalog(c.descriptors...)
	if err != nil {
		return nil, err
	}
	timeline, err := timeline.New(js)
	if err != nil {
		return nil, err
	}
	spans, err := openSpans(ctx, js, c.tracing, contextkit.KindGateway, c.id, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, spans.close(ctx))
		}
	}()
	router := gatewayfleet.NewRouter(c.routes, c.placed, log)
	config := c.gateway
	config.Timeline, config.Optional = timeline, []contextkit.Kind{contextkit.KindControl, contextkit.KindRunner}
	config.Degraded = func() map[string]string { return degradedEdge(js, router) }
	if spans.Exporter != nil {
		config.OnEnd, config.OnUpstreamCall = spans.edgeCall, spans.asked
	}
	drained, err := fleet.OpenDrained(ctx, js, contextkit.KindGateway, c.id)
	if err != nil {
		return nil, err
	}
	config.Drained = drained.Check
	if config.TicketSecret, err = kv.SharedSecret(ctx, js, kv.SecretTickets); err != nil {
		return nil, err
	}
	edgeGateway, err := gateway.New(config, catalog, c.routes, js, log)
	if err != nil {
		return nil, err
	}
	edgeGateway.Register(slices.Concat(
		spans.metrics(), js.collectors(), router.Collectors(), []prometheus.Collector{drained},
	)...)
	if err := errors.Join(router.LoadPlacements(ctx, js), gatewayfleet.LoadTenants(ctx, js, edgeGateway)); err != nil {
		return nil, err
	}
	issued, err := gatewayfleet.OpenCredentials(ctx, js, edgeGateway, log)
	if err != nil {
		return nil, err
	}
	if err := edgeGateway.Listen(ctx); err != nil {
		return nil, err
	}
	reflector := gatewayfleet.NewReflector(edgeGateway, reflected(c.nodes), config.Upstream, log)
	reflector.DescribeAll(ctx)
	return &edge{
		id:        c.id,
		js:        js,
		gateway:   edgeGateway,
		router:    router,
		drained:   drained,
		issued:    issued,
		reflector: reflector,
		timeline:  timeline,
		spans:     spans,
		keys:      config.Auth.APIKeys,
		log:       log,
	}, nil
}

// reflected returns the nodes of the settings that describe their services by reflection.
func reflected(nodes []nodeSettings) []gatewayfleet.Node {
	var out []gatewayfleet.Node
	for _, node := range nodes {
		if node.Reflect {
			out = append(out, gatewayfleet.Node{ID: node.ID, Kind: node.Kind, Endpoint: node.Endpoint})
		}
	}
	return out
}

// degradedEdge returns the degraded parts of the platform: NATS while it is unreachable, because the gateway then
// knows the state of the last update only, a permission that the process's user lacks, and the journal while nodes
// announce that it is damaged.
func degradedEdge(js *bus, router *gatewayfleet.Router) map[string]string {
	parts := map[string]string{}
	if outage, away := js.monitor.Outage(); away {
		parts["nats"] = outage.String() + ": nodes, placements, tenants and their limits are those known then"
	}
	refused(js, parts)
	if router.JournalDamaged() {
		parts[journal.DegradedJournal] = "events of the journal are missing: GET /v1/control/journal returns their " +
			"sequences"
	}
	return parts
}

// layers returns the parts that the edge runs, in the order in which they stop: the announcement of the
// node, the calls in flight, then the timeline and spans of those calls.
func (e *edge) layers(node fleet.Node) []rpc.Layer {
	details := newDetailing(e.gateway.Server())
	announce := func(ctx context.Context) error {
		return ended(ctx, fleet.Announce(ctx, e.js, node, func(ctx context.Context, now *fleet.Node) error {
			now.Load, now.Routing = loadOf(e.gateway.Load()), e.router.PlacementRevision()
			now.Traffic, now.Details = e.gateway.Traffic(), details.update(time.Now())
			now.Drains, now.Drained = fleet.Drains, e.drained.Check() != nil
			now.Open, now.Degraded = e.gateway.OpenBreakers(), nil
			for _, kind := range e.gateway.Degraded(ctx) {
				now.Degraded = append(now.Degraded, kind.String())
			}
			return e.gateway.Ready(ctx)
		}))
	}
	return []rpc.Layer{
		{announce},
		{
			e.gateway.Serve,
			untilDone(func(ctx context.Context) { e.router.FollowNodes(ctx, e.js, e.gateway, e.reflector.Announce) }),
			untilDone(func(ctx context.Context) { e.router.FollowPlacements(ctx, e.js) }),
			untilDone(func(ctx context.Context) { gatewayfleet.FollowTenants(ctx, e.js, e.gateway, e.log) }),
			untilDone(func(ctx context.Context) { e.drained.Follow(ctx, e.complain) }),
			untilDone(func(ctx context.Context) { e.issued.Follow(ctx, e.outage) }),
			func(ctx context.Context) error { return watchRights(ctx, e.js, e.keys, e.log) },
			e.reflector.Run,
		},
		{func(ctx context.Context) error { return e.timeline.Run(ctx, e.id) }, e.spans.Run},
	}
}

// complain logs a failure to follow the drained nodes, which is retried.
func (e *edge) complain(err error) {
	e.log.Warn().Err(err).Dur("again_in_ms", retryWait).Msg("following the drained nodes failed")
}

// outage reports whether NATS is unreachable.
func (e *edge) outage() bool {
	_, away := e.js.monitor.Outage()
	return away
}

// untilDone returns a part of a layer that does not fail.
func untilDone(follow func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error {
		follow(ctx)
		return nil
	}
}
