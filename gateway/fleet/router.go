package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
)

// followAgain is the wait before nodes, placements or tenants are followed again after a failure.
const followAgain = time.Second

// Router maintains a gateway's routing table from the nodes and placements of its settings and from those announced
// over NATS. Its methods may be called concurrently.
type Router struct {
	table *route.Table
	// nodes and placements are those of the settings.
	nodes      []route.Node
	placements []route.Placement
	log        zerolog.Logger
	metrics    fleet.Metrics
	// revision is the KV revision of the newest placement in the table.
	revision atomic.Uint64

	mu        sync.Mutex
	announced fleet.Fleet
	applied   map[string]announcement // by node
}

// announcement is the part of a node's announcement that overrides probes when it changes.
type announcement struct {
	started  time.Time
	endpoint string
	ready    bool
}

// NewRouter returns a router of a table that has the nodes of the settings. placements are those of the settings.
func NewRouter(table *route.Table, placements []route.Placement, log zerolog.Logger) *Router {
	return &Router{
		table:      table,
		nodes:      slices.Clone(table.Nodes()),
		placements: placements,
		log:        log,
	}
}

// Collectors returns the router's metrics.
func (r *Router) Collectors() []prometheus.Collector { return []prometheus.Collector{&r.metrics} }

// Prober knows the results of a gateway's probes.
type Prober interface {
	// Answers reports whether a node of the table answers probes. known is false for a node that was not probed yet.
	Answers(node string) (answers, known bool)
}

// FollowNodes maintains the table's nodes until ctx ends. A node whose announcements are no longer received stays in
// the table while it answers probes. describes is called with each announced node that describes its services by
// reflection, after each of its announcements; it must not block.
func (r *Router) FollowNodes(ctx context.Context, js jetstream.JetStream, probes Prober, describes func(fleet.Node)) {
	fleet.FollowNodes(ctx, js, fleet.Follower{
		Each: func(fleet fleet.Fleet) {
			r.announce(fleet)
			for _, node := range fleet.Nodes {
				if node.Reflect {
					describes(node)
				}
			}
		},
		Ask: func(_ context.Context, silent []fleet.Node) map[string]fleet.Verdict {
			return r.examine(silent, probes)
		},
		Failed: func(err error) {
			r.log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg(
				"announcements of nodes are not received; known nodes stay while they answer probes",
			)
		},
	})
}

// announce applies the announced nodes to the table.
func (r *Router) announce(fleet fleet.Fleet) {
	r.metrics.Set(fleet)
	r.mu.Lock()
	r.announced = fleet
	r.apply()
	r.mu.Unlock()
	r.table.SetLost(lostNodes(fleet.Lost))
}

// examine returns the probes' verdicts on silent nodes. A node is gone if another node announces its address.
func (r *Router) examine(silent []fleet.Node, probes Prober) map[string]fleet.Verdict {
	taken := r.activeEndpoints(silent)
	verdicts := make(map[string]fleet.Verdict, len(silent))
	for _, node := range silent {
		if node.Kind == contextkit.KindGateway {
			continue // gateways are not probed
		}
		switch answers, known := probes.Answers(node.ID); {
		case taken[node.Endpoint], known && !answers:
			verdicts[node.ID] = fleet.Gone
		case known:
			verdicts[node.ID] = fleet.Answers
		}
	}
	return verdicts
}

// activeEndpoints returns the endpoints of the settings' nodes and of announced nodes that are not silent.
func (r *Router) activeEndpoints(silent []fleet.Node) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	endpoints := map[string]bool{}
	for _, node := range r.nodes {
		endpoints[node.Endpoint] = true
	}
	for _, node := range r.announced.Nodes {
		if !slices.ContainsFunc(silent, func(s fleet.Node) bool { return s.ID == node.ID }) {
			endpoints[node.Endpoint] = true
		}
	}
	return endpoints
}

// JournalDamaged reports whether a node announces that the journal is damaged.
func (r *Router) JournalDamaged() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.announced.Nodes, func(n fleet.Node) bool {
		return n.Kind != contextkit.KindGateway && slices.Contains(n.Degraded, journal.DegradedJournal)
	})
}

// lostNodes returns the lost nodes that are not gateways.
func lostNodes(lost []fleet.LostNode) []route.Node {
	var nodes []route.Node
	for _, l := range lost {
		if l.Node.Kind != contextkit.KindGateway && l.Node.Kind != "" {
			nodes = append(nodes, route.Node{ID: l.Node.ID, Kind: l.Node.Kind, Endpoint: l.Node.Endpoint})
		}
	}
	return nodes
}

// apply puts the known nodes into the table. The readiness that probes found stays: for a node of the settings always,
// for an announced node until its announcement changes, or while it is silent. The caller holds r.mu.
func (r *Router) apply() {
	nodes, known := r.configuredNodes()
	applied := make(map[string]announcement, len(r.announced.Nodes))
	for _, n := range r.announced.Nodes {
		if n.Kind == contextkit.KindGateway {
			continue
		}
		other, taken := known[n.ID]
		if taken && other.Kind == n.Kind && other.Endpoint == n.Endpoint {
			continue
		}
		if taken || n.Kind == "" || n.Endpoint == "" {
			r.log.Warn().Str("node", n.ID).Msg(
				"the announcement of a node is ignored: a node of the settings has its id, or kind or endpoint are " +
					"missing",
			)
			continue
		}
		silent := !r.announced.Silent[n.ID].IsZero()
		says, ready := announcement{n.Started.UTC(), n.Endpoint, n.Ready}, n.Ready
		if now, ok := r.table.Node(n.ID); ok && r.applied[n.ID] == says {
			ready = (ready || silent) && now.Ready
		}
		applied[n.ID] = says
		node := route.Node{
			ID:       n.ID,
			Kind:     n.Kind,
			Endpoint: n.Endpoint,
			Ready:    ready,
			Silent:   silent,
			Refusal:  n.Refusal,
			Drained:  n.Drained && !n.Ready,
		}
		nodes, known[n.ID] = append(nodes, node), node
	}
	r.applied = applied
	slices.SortFunc(nodes, func(a, b route.Node) int { return strings.Compare(a.ID, b.ID) })
	if err := r.table.SetNodes(nodes); err != nil {
		r.log.Error().Err(err).Msg("the routing table rejects the announced nodes; the previous nodes stay")
	}
}

// configuredNodes returns the nodes of the settings in their present state, also by id. The caller holds r.mu.
func (r *Router) configuredNodes() (nodes []route.Node, known map[string]route.Node) {
	announced := map[string]fleet.Node{}
	for _, n := range r.announced.Nodes {
		announced[n.ID] = n
	}
	known = map[string]route.Node{}
	for _, node := range r.nodes {
		if now, ok := r.table.Node(node.ID); ok {
			node.Ready = now.Ready
		}
		now := announced[node.ID]
		node.Refusal, node.Drained = now.Refusal, now.Drained && !now.Ready
		nodes, known[node.ID] = append(nodes, node), node
	}
	return nodes, known
}
