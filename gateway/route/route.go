// Package route is the routing table: it selects the node for a tenant's call. The table is an immutable snapshot of
// nodes and placements behind an atomic pointer, so that a lookup neither locks nor allocates, and its cost does not
// depend on the number of tenants.
//
// A placement takes precedence. A tenant without a placement is routed by rendezvous hashing, so that a node that joins
// or leaves changes only the routes of its tenants. A change of the table copies the affected part and shares the rest.
package route

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/headgate/headgate/contextkit"
)

// Node is a node that serves calls.
type Node struct {
	// ID is unique and stays the same across restarts.
	ID string
	// Kind is the kind of service.
	Kind contextkit.Kind
	// Endpoint is host:port.
	Endpoint string
	// Ready reports whether the node accepts calls.
	Ready bool
	// Silent reports whether the node's announcements are overdue. While at least half of the kind's ready nodes are
	// not silent, the node is more likely at fault than NATS, and its data may be outdated: it then only receives the
	// calls that other nodes cannot serve. Otherwise it receives calls as other nodes do.
	Silent bool
	// Drained reports whether the node is not ready because operators have drained it. It answers calls without side
	// effects.
	Drained bool
	// Refusal is the reason why the node is not ready, for clients; "": unknown.
	Refusal string
}

// Placement assigns a tenant's calls of a kind to a node.
type Placement struct {
	Tenant contextkit.TenantID
	Kind   contextkit.Kind
	Node   string // ID
	// Only reports whether only this node can serve the calls: they are rejected while it is not ready. Otherwise other
	// nodes serve them then.
	Only bool
}

// snapshot is an immutable state of the table, prepared for lookups.
type snapshot struct {
	epoch  uint64
	nodes  []Node
	byID   map[string]Node
	ready  map[contextkit.Kind]*ring // by kind
	placed *placements
}

// Table is the routing table. It is safe for concurrent use.
type Table struct {
	current atomic.Pointer[snapshot]
	lost    atomic.Pointer[[]Node]
	mu      sync.Mutex // held while creating the next snapshot
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.current.Store(&snapshot{placed: &placements{}})
	return t
}

// Replace replaces all nodes and placements atomically. A placement on an unknown node is an error
// unless it is Only; on an error nothing changes.
func (t *Table) Replace(nodes []Node, placed []Placement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := t.current.Load().withNodes(nodes)
	if err != nil {
		return err
	}
	for _, p := range placed {
		if node, ok := next.byID[p.Node]; ok && node.Kind != p.Kind || !ok && !p.Only {
			return fmt.Errorf("route: tenant %s is placed on %q, which is not a %s node", p.Tenant, p.Node, p.Kind)
		}
	}
	next.placed = (&placements{}).with(placed)
	t.current.Store(next)
	return nil
}

// SetNodes replaces the nodes, if they differ. It retains the placements: a placement on a missing node applies again
// when the node returns.
func (t *Table) SetNodes(nodes []Node) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.current.Load()
	if slices.Equal(nodes, now.nodes) {
		return nil
	}
	next, err := now.withNodes(nodes)
	if err == nil {
		t.current.Store(next)
	}
	return err
}

// Place sets the given placements; it removes a placement whose Node is "". Its cost depends on their number, not on
// the number of all placements.
func (t *Table) Place(changed ...Placement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.current.Load()
	next.epoch++
	next.placed = next.placed.with(changed)
	t.current.Store(&next)
}

// PlaceAll replaces all placements.
func (t *Table) PlaceAll(placed []Placement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.current.Load()
	next.epoch++
	next.placed = (&placements{}).with(placed)
	t.current.Store(&next)
}

// SetReady sets whether a node accepts calls, and reports whether this changes the table. It ignores an unknown node.
func (t *Table) SetReady(id string, ready bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.current.Load()
	if node, ok := now.byID[id]; !ok || node.Ready == ready {
		return false
	}
	nodes := slices.Clone(now.nodes)
	for i := range nodes {
		if nodes[i].ID == id {
			nodes[i].Ready = ready
		}
	}
	next, err := now.withNodes(nodes)
	if err != nil {
		return false // not reached: the nodes are as valid as before
	}
	t.current.Store(next)
	return true
}

// withNodes returns the next snapshot with these nodes.
func (s *snapshot) withNodes(nodes []Node) (*snapshot, error) {
	next := &snapshot{
		epoch:  s.epoch + 1,
		nodes:  slices.Clone(nodes),
		byID:   make(map[string]Node, len(nodes)),
		ready:  map[contextkit.Kind]*ring{},
		placed: s.placed,
	}
	for _, node := range nodes {
		if node.ID == "" || node.Kind == "" || node.Endpoint == "" {
			return nil, fmt.Errorf("route: node %+v needs an id, a kind and an endpoint", node)
		}
		if _, taken := next.byID[node.ID]; taken {
			return nil, fmt.Errorf("route: two nodes have the id %q", node.ID)
		}
		next.byID[node.ID] = node
	}
	avoid := silentKinds(nodes)
	for _, node := range nodes {
		if !node.Ready || node.Silent && avoid[node.Kind] {
			continue
		}
		if next.ready[node.Kind] == nil {
			next.ready[node.Kind] = &ring{}
		}
		next.ready[node.Kind].add(node)
	}
	return next, nil
}

// silentKinds returns the kinds whose silent nodes are avoided: at least half of their ready nodes are not silent.
func silentKinds(nodes []Node) map[contextkit.Kind]bool {
	type count struct{ ready, silent int }
	kinds := map[contextkit.Kind]count{}
	for _, node := range nodes {
		if node.Ready {
			c := kinds[node.Kind]
			c.ready++
			if node.Silent {
				c.silent++
			}
			kinds[node.Kind] = c
		}
	}
	avoid := map[contextkit.Kind]bool{}
	for kind, c := range kinds {
		avoid[kind] = 2*c.silent <= c.ready
	}
	return avoid
}

// Epoch returns the routing epoch, which counts the changes of the table.
func (t *Table) Epoch() uint64 { return t.current.Load().epoch }

// Nodes returns all nodes, ready or not. The caller must not modify the slice.
func (t *Table) Nodes() []Node { return t.current.Load().nodes }

// SetLost sets the lost nodes, which only Lost returns: they receive no calls. The caller must not modify the slice
// afterwards.
func (t *Table) SetLost(nodes []Node) { t.lost.Store(&nodes) }

// Lost returns the lost nodes that are not in the table. They are not ready.
func (t *Table) Lost() []Node {
	set := t.lost.Load()
	if set == nil {
		return nil
	}
	known := t.current.Load().byID
	var lost []Node
	for _, node := range *set {
		if _, back := known[node.ID]; !back {
			node.Ready = false
			lost = append(lost, node)
		}
	}
	return lost
}

// Ready returns the kind's ready nodes. The caller must not modify the slice.
func (t *Table) Ready(kind contextkit.Kind) []Node { return t.current.Load().ready[kind].all() }

// Refusal returns the reason for clients of a node of the kind that is not ready; "": none has a reason.
func (t *Table) Refusal(kind contextkit.Kind) string {
	for _, node := range t.current.Load().nodes {
		if node.Kind == kind && !node.Ready && node.Refusal != "" {
			return node.Refusal
		}
	}
	return ""
}

// Node returns the node with the id.
func (t *Table) Node(id string) (Node, bool) {
	node, ok := t.current.Load().byID[id]
	return node, ok
}

// Lookup returns the node for a tenant's call, or for a platform call if tenant is zero. It returns false if no node
// can serve the call.
func (t *Table) Lookup(kind contextkit.Kind, tenant contextkit.TenantID) (Node, bool) {
	s, hash := t.current.Load(), hashOf(tenant.String())
	if node, ready, placed := s.place(kind, tenant, hash); placed {
		return node, ready
	}
	return s.ready[kind].best(hash, nil)
}

// LookupDrained returns the drained node for a tenant's call that has no side effects. It returns false if there is
// none, and for a tenant whose calls only one node can serve.
func (t *Table) LookupDrained(kind contextkit.Kind, tenant contextkit.TenantID) (Node, bool) {
	s, hash := t.current.Load(), hashOf(tenant.String())
	if _, _, placed := s.place(kind, tenant, hash); placed {
		return Node{}, false
	}
	var drained ring
	for _, node := range s.nodes {
		if node.Kind == kind && node.Drained && !node.Ready && !node.Silent {
			drained.add(node)
		}
	}
	return drained.best(hash, nil)
}

// Placed returns the node on which the tenant is placed for the kind, and whether only that node can serve its calls.
// ok is false for a tenant without a placement.
func (t *Table) Placed(kind contextkit.Kind, tenant contextkit.TenantID) (node string, only, ok bool) {
	p, ok := t.current.Load().placed.get(kind, tenant, hashOf(tenant.String()))
	return p.node, p.only, ok
}

// LookupOther returns the best node for a tenant's call among the nodes for which refuse returns false. It returns
// false for a placed tenant.
func (t *Table) LookupOther(kind contextkit.Kind, tenant contextkit.TenantID, refuse func(Node) bool) (Node, bool) {
	s, hash := t.current.Load(), hashOf(tenant.String())
	if _, _, placed := s.place(kind, tenant, hash); placed {
		return Node{}, false
	}
	return s.ready[kind].best(hash, refuse)
}

// place returns the node on which the tenant is placed. placed is false if no placement applies: the tenant has none,
// or its node is not ready and other nodes can serve the calls.
func (s *snapshot) place(
	kind contextkit.Kind, tenant contextkit.TenantID, hash uint64,
) (node Node, ready, placed bool) {
	p, ok := s.placed.get(kind, tenant, hash)
	if !ok {
		return Node{}, false, false
	}
	node, known := s.byID[p.node]
	if known && node.Kind != kind {
		return Node{}, false, false
	}
	return node, node.Ready, node.Ready || p.only
}
