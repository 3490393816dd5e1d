// Package route says which node answers a tenant's call: an immutable snapshot
// of nodes and placements behind an atomic pointer, so that a lookup neither
// locks nor allocates, and costs the same with ten tenants and with a hundred
// thousand.
//
// An explicit placement comes first; a tenant without one goes to a node by
// rendezvous hashing, which moves only the tenants of a node that comes or
// goes. A change makes a new snapshot of what it touches and shares the rest.
package route

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/headgate/headgate/contextkit"
)

// Node is a process that answers calls.
type Node struct {
	// ID is unique and stays the same across restarts.
	ID string
	// Kind is what it serves: "aggregate", "projection", "runner", "control".
	Kind string
	// Endpoint is host:port.
	Endpoint string
	// Ready says that it takes calls.
	Ready bool
	// Silent says that the node has not announced itself lately. It takes calls while it is
	// ready, but for those of tenants that other nodes can serve, while at least half of the
	// kind's ready nodes do announce themselves: then it is more likely at fault than NATS is,
	// and what it serves may be out of date.
	Silent bool
	// Refusal is the clause that says to clients why the node takes no calls; "": nothing is known.
	Refusal string
}

// Placement puts a tenant's calls of a kind on a node.
type Placement struct {
	Tenant contextkit.TenantID
	Kind   string
	Node   string // ID
	// Only says that no other node can answer: while that one is away, nobody does.
	// Else the calls go elsewhere meanwhile.
	Only bool
}

// snapshot is prepared for lookups.
type snapshot struct {
	epoch  uint64
	nodes  []Node
	byID   map[string]Node
	ready  map[string]*ring // by kind
	placed *placements
}

// Table is the routing table. Its methods may be called concurrently.
type Table struct {
	current atomic.Pointer[snapshot]
	lost    atomic.Pointer[[]Node]
	mu      sync.Mutex // held to make the next snapshot
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.current.Store(&snapshot{placed: &placements{}})
	return t
}

// Replace puts new nodes and placements in force at once. A placement on a node that
// is not among them is an error and nothing changes, unless no other can answer.
func (t *Table) Replace(nodes []Node, placed []Placement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	next, err := t.current.Load().withNodes(nodes)
	if err != nil {
		return err
	}
	for _, p := range placed {
		if node, ok := next.byID[p.Node]; ok && node.Kind != p.Kind || !ok && !p.Only {
			return fmt.Errorf("route: tenant %s is placed on %q, which is no %s node", p.Tenant, p.Node, p.Kind)
		}
	}
	next.placed = (&placements{}).with(placed)
	t.current.Store(next)
	return nil
}

// SetNodes puts new nodes in force, unless that would change nothing. Placements
// stay; one on a node that is not there counts when it is back.
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

// Place puts placements in force, each instead of the one that its tenant and kind
// had; one without a node takes that away. It costs by their number, not by how many
// there are.
func (t *Table) Place(changed ...Placement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.current.Load()
	next.epoch++
	next.placed = next.placed.with(changed)
	t.current.Store(&next)
}

// PlaceAll puts placements in force instead of all that there were.
func (t *Table) PlaceAll(placed []Placement) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.current.Load()
	next.epoch++
	next.placed = (&placements{}).with(placed)
	t.current.Store(&next)
}

// SetReady says whether the node takes calls. It reports whether that is a
// change; a node that is not known makes none.
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

// withNodes returns the next snapshot, with other nodes.
func (s *snapshot) withNodes(nodes []Node) (*snapshot, error) {
	next := &snapshot{epoch: s.epoch + 1, nodes: slices.Clone(nodes), byID: make(map[string]Node, len(nodes)), ready: map[string]*ring{}, placed: s.placed}
	for _, node := range nodes {
		if node.ID == "" || node.Kind == "" || node.Endpoint == "" {
			return nil, fmt.Errorf("route: node %+v needs an id, a kind and an endpoint", node)
		}
		if _, taken := next.byID[node.ID]; taken {
			return nil, fmt.Errorf("route: two nodes are called %q", node.ID)
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

// silentKinds returns the kinds whose silent nodes are avoided: those of whose ready nodes at
// least half are not silent.
func silentKinds(nodes []Node) map[string]bool {
	type count struct{ ready, silent int }
	kinds := map[string]count{}
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
	avoid := map[string]bool{}
	for kind, c := range kinds {
		avoid[kind] = 2*c.silent <= c.ready
	}
	return avoid
}

// Revision counts the changes of the table.
func (t *Table) Epoch() uint64 { return t.current.Load().epoch }

// Nodes returns all nodes, ready or not. The slice must not be changed.
func (t *Table) Nodes() []Node { return t.current.Load().nodes }

// SetLost sets the nodes that fell silent without a goodbye, to be shown: no call is routed to
// them. The slice must not be changed afterwards.
func (t *Table) SetLost(nodes []Node) { t.lost.Store(&nodes) }

// Lost returns the nodes that were set as lost and are not in the table. They are not ready.
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

// Ready returns the kind's nodes that take calls. The slice must not be changed.
func (t *Table) Ready(kind string) []Node { return t.current.Load().ready[kind].all() }

// Refusal returns what a node of the kind that takes no calls wants clients to be told, "" if
// none does.
func (t *Table) Refusal(kind string) string {
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

// Lookup returns the node for a tenant's call, or for a platform call when
// tenant is zero. It reports false when no node of the kind is ready.
func (t *Table) Lookup(kind string, tenant contextkit.TenantID) (Node, bool) {
	s, hash := t.current.Load(), hashOf(tenant.String())
	if node, ready, placed := s.place(kind, tenant, hash); placed {
		return node, ready
	}
	return s.ready[kind].best(hash, nil)
}

// Placed returns the node that the tenant is placed on for the kind, and whether only that
// node can answer its calls. ok is false for a tenant without a placement.
func (t *Table) Placed(kind string, tenant contextkit.TenantID) (node string, only, ok bool) {
	p, ok := t.current.Load().placed.get(kind, tenant, hashOf(tenant.String()))
	return p.node, p.only, ok
}

// Elsewhere returns the node that comes first for a tenant's call among those
// that are not refused. A tenant that is placed has no other node.
func (t *Table) LookupOther(kind string, tenant contextkit.TenantID, refuse func(Node) bool) (Node, bool) {
	s, hash := t.current.Load(), hashOf(tenant.String())
	if _, _, placed := s.place(kind, tenant, hash); placed {
		return Node{}, false
	}
	return s.ready[kind].best(hash, refuse)
}

// place returns the node that the tenant is placed on, if the placement counts now: if
// its node takes calls, or no other can answer.
func (s *snapshot) place(kind string, tenant contextkit.TenantID, hash uint64) (node Node, ready, placed bool) {
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
