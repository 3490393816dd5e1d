package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// followAgain is the wait before nodes are followed again after a failure.
const followAgain = time.Second

// router keeps a gateway's routing table: the nodes and placements of its
// configuration, and those that it hears of over NATS.
type router struct {
	table  *route.Table
	fixed  []route.Node
	placed []route.Placement
	log    zerolog.Logger
	// stranger hears of nodes that ask to be asked for their services.
	stranger func(backbone.Node)
	// answers reports whether a node of the table answers the gateway's probes, and whether that
	// is known; nil: it is not.
	answers func(node string) (answers, known bool)
	fleet   backbone.FleetMetrics

	mu        sync.Mutex
	announced backbone.Fleet
	words     map[string]word // by node: what the table has taken in
	// revision is that of the placements that the table routes by.
	revision atomic.Uint64
}

// word is what a node announces about taking calls.
type word struct {
	started  time.Time
	endpoint string
	ready    bool
}

// newRouter returns a router over a table that has what is configured.
func newRouter(table *route.Table, placed []route.Placement, log zerolog.Logger) *router {
	return &router{table: table, fixed: slices.Clone(table.Nodes()), placed: placed, log: log}
}

// followNodes keeps the table's nodes until ctx ends. A node that is not heard stays while it
// answers the gateway's probes, which decide whether it takes calls.
func (r *router) followNodes(ctx context.Context, js jetstream.JetStream) error {
	backbone.FollowNodes(ctx, js, backbone.Follower{
		Each: func(fleet backbone.Fleet) {
			r.fleet.Set(fleet)
			r.mu.Lock()
			r.announced = fleet
			r.apply()
			r.mu.Unlock()
			r.table.SetLost(lostNodes(fleet.Lost))
			for _, node := range fleet.Nodes {
				if node.Reflect && r.stranger != nil {
					r.stranger(node)
				}
			}
		},
		Ask: r.ask,
		Failed: func(err error) {
			r.log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg("announcements of nodes are not received; those known stay while they answer probes")
		},
	})
	return nil
}

// ask returns what the gateway's probes know of silent nodes. A node that a heard one has replaced
// at its address is gone, whoever answers there.
func (r *router) ask(_ context.Context, silent []backbone.Node) map[string]backbone.Verdict {
	taken := r.heardEndpoints(silent)
	verdicts := make(map[string]backbone.Verdict, len(silent))
	for _, node := range silent {
		if r.answers == nil || node.Kind == kindGateway {
			continue // gateways are not probed
		}
		switch answers, known := r.answers(node.ID); {
		case taken[node.Endpoint], known && !answers:
			verdicts[node.ID] = backbone.Gone
		case known:
			verdicts[node.ID] = backbone.Answers
		}
	}
	return verdicts
}

// heardEndpoints returns the endpoints of configured nodes, and of those that announce themselves:
// all but the silent ones.
func (r *router) heardEndpoints(silent []backbone.Node) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	endpoints := map[string]bool{}
	for _, node := range r.fixed {
		endpoints[node.Endpoint] = true
	}
	for _, node := range r.announced.Nodes {
		if !slices.ContainsFunc(silent, func(s backbone.Node) bool { return s.ID == node.ID }) {
			endpoints[node.Endpoint] = true
		}
	}
	return endpoints
}

// journalDamaged reports whether a node announces that the journal is damaged.
func (r *router) journalDamaged() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.announced.Nodes, func(n backbone.Node) bool {
		return n.Kind != kindGateway && slices.Contains(n.Degraded, backbone.DegradedJournal)
	})
}

// lostNodes returns the nodes that a gateway would call and that are lost.
func lostNodes(lost []backbone.LostNode) []route.Node {
	var nodes []route.Node
	for _, l := range lost {
		if l.Node.Kind != kindGateway && l.Node.Kind != "" {
			nodes = append(nodes, route.Node{ID: l.Node.ID, Kind: l.Node.Kind, Endpoint: l.Node.Endpoint})
		}
	}
	return nodes
}

// loadPlacements takes in the placements that there are: a gateway that did not know
// them would send the calls of a placed tenant to nodes that do not have it.
func (r *router) loadPlacements(ctx context.Context, js jetstream.JetStream) error {
	placements, err := backbone.OpenBucket[backbone.Placement](ctx, js, backbone.BucketPlacement)
	if err != nil {
		return err
	}
	all, err := placements.All(ctx)
	if err == nil {
		r.place(backbone.Changes[backbone.Placement]{Put: all, Whole: true})
	}
	return err
}

// place puts changed placements into the table: instead of, or beside, what is
// configured.
func (r *router) place(changes backbone.Changes[backbone.Placement]) {
	var placed []route.Placement
	if changes.Whole {
		placed = slices.Clone(r.placed)
	}
	revision := r.revision.Load()
	for key, kept := range changes.Put {
		revision = max(revision, kept.Revision)
		kind, tenant, ok := backbone.ParsePlacementKey(key)
		switch {
		case !ok:
		case kept.Value.Node == "":
			placed = append(placed, r.configured(kind, tenant))
		default:
			if node, known := r.table.Node(kept.Value.Node); known && node.Kind != kind {
				r.log.Warn().Str("placement", key).Str("node", node.ID).Msg("a tenant is placed on a node of another kind")
			}
			placed = append(placed, route.Placement{Tenant: tenant, Kind: kind, Node: kept.Value.Node, Only: true})
		}
	}
	for _, key := range changes.Deleted {
		if kind, tenant, ok := backbone.ParsePlacementKey(key); ok {
			placed = append(placed, r.configured(kind, tenant))
		}
	}
	if changes.Whole {
		r.table.PlaceAll(placed)
	} else {
		r.table.Place(placed...)
	}
	r.revision.Store(revision)
}

// configured returns the tenant's placement by the configuration, one without a node
// if there is none.
func (r *router) configured(kind string, tenant contextkit.TenantID) route.Placement {
	for _, p := range r.placed {
		if p.Tenant == tenant && p.Kind == kind {
			return p
		}
	}
	return route.Placement{Tenant: tenant, Kind: kind}
}

// followPlacements keeps the table's placements until ctx ends.
func (r *router) followPlacements(ctx context.Context, js jetstream.JetStream) error {
	backbone.FollowBucket(ctx, js, backbone.BucketPlacement, r.place, func(err error) {
		r.log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg("placements are not followed; those known stay")
	})
	return nil
}

// apply puts the nodes that are known into the table. What probes know of a node stays:
// of a configured one always, and of one that announces itself until it has something
// else to say than before, or is silent. r.mu is held.
func (r *router) apply() {
	var nodes []route.Node
	words := make(map[string]word, len(r.announced.Nodes))
	known := map[string]route.Node{}
	add := func(node route.Node) {
		nodes = append(nodes, node)
		known[node.ID] = node
	}
	refusals := map[string]string{}
	for _, n := range r.announced.Nodes {
		refusals[n.ID] = n.Refusal
	}
	for _, node := range r.fixed {
		if now, ok := r.table.Node(node.ID); ok {
			node.Ready = now.Ready
		}
		node.Refusal = refusals[node.ID]
		add(node)
	}
	for _, n := range r.announced.Nodes {
		if n.Kind == kindGateway {
			continue // no call is routed to one
		}
		silent := !r.announced.Silent[n.ID].IsZero()
		other, taken := known[n.ID]
		if taken && other.Kind == n.Kind && other.Endpoint == n.Endpoint {
			continue
		}
		if taken || n.Kind == "" || n.Endpoint == "" {
			r.log.Warn().Str("node", n.ID).Msg("a node has announced itself that is configured already, or says too little")
			continue
		}
		said, ready := word{n.Started.UTC(), n.Endpoint, n.Ready}, n.Ready
		if now, ok := r.table.Node(n.ID); ok && r.words[n.ID] == said {
			ready = (ready || silent) && now.Ready
		}
		words[n.ID] = said
		add(route.Node{ID: n.ID, Kind: n.Kind, Endpoint: n.Endpoint, Ready: ready, Silent: silent, Refusal: n.Refusal})
	}
	r.words = words
	slices.SortFunc(nodes, func(a, b route.Node) int { return strings.Compare(a.ID, b.ID) })
	if err := r.table.SetNodes(nodes); err != nil {
		r.log.Error().Err(err).Msg("the nodes that there are cannot be routed to; the old ones stay")
	}
}
