// Package route says which node answers a tenant's call: an immutable snapshot
// of nodes and placements behind an atomic pointer, so that a lookup neither
// locks nor allocates.
//
// An explicit placement comes first; a tenant without one goes to a node by
// rendezvous hashing, which moves only the tenants of a node that comes or
// goes.
package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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

// place is where a placement leads.
type place struct {
	node  Node
	ready bool
	only  bool
}

// snapshot is prepared for lookups.
type snapshot struct {
	revision   uint64
	nodes      []Node
	placements []Placement
	byID       map[string]Node
	ready      map[string][]Node // by kind
	placed     map[placementKey]place
}

type placementKey struct {
	tenant contextkit.TenantID
	kind   string
}

// Table is the routing table. Its methods may be called concurrently.
type Table struct {
	current atomic.Pointer[snapshot]
	mu      sync.Mutex // held to make the next snapshot
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{}
	t.current.Store(&snapshot{})
	return t
}

// Replace puts new nodes and placements in force at once. A placement on an
// unknown node is an error and nothing changes, unless no other can answer.
func (t *Table) Replace(nodes []Node, placements []Placement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.replace(nodes, placements)
}

// Update is Replace, unless that would change nothing.
func (t *Table) Update(nodes []Node, placements []Placement) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.current.Load()
	byKey := func(a, b Placement) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Tenant.String(), b.Tenant.String()), strings.Compare(a.Node, b.Node))
	}
	placements = slices.SortedFunc(slices.Values(placements), byKey)
	if slices.Equal(nodes, now.nodes) && slices.Equal(placements, slices.SortedFunc(slices.Values(now.placements), byKey)) {
		return nil
	}
	return t.replace(nodes, placements)
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
	return t.replace(nodes, now.placements) == nil // as valid as before
}

func (t *Table) replace(nodes []Node, placements []Placement) error {
	next := &snapshot{
		revision: t.current.Load().revision + 1, nodes: slices.Clone(nodes), placements: slices.Clone(placements),
		byID: map[string]Node{}, ready: map[string][]Node{}, placed: map[placementKey]place{},
	}
	for _, node := range nodes {
		if node.ID == "" || node.Kind == "" || node.Endpoint == "" {
			return fmt.Errorf("route: node %+v needs an id, a kind and an endpoint", node)
		}
		if _, taken := next.byID[node.ID]; taken {
			return fmt.Errorf("route: two nodes are called %q", node.ID)
		}
		next.byID[node.ID] = node
		if node.Ready {
			next.ready[node.Kind] = append(next.ready[node.Kind], node)
		}
	}
	for _, p := range placements {
		node, ok := next.byID[p.Node]
		if ok && node.Kind != p.Kind || !ok && !p.Only {
			return fmt.Errorf("route: tenant %s is placed on %q, which is no %s node", p.Tenant, p.Node, p.Kind)
		}
		next.placed[placementKey{p.Tenant, p.Kind}] = place{node: node, ready: node.Ready, only: p.Only}
	}
	t.current.Store(next)
	return nil
}

// Revision counts the changes of the table.
func (t *Table) Revision() uint64 { return t.current.Load().revision }

// Nodes returns all nodes, ready or not. The slice must not be changed.
func (t *Table) Nodes() []Node { return t.current.Load().nodes }

// Ready returns the kind's nodes that take calls. The slice must not be changed.
func (t *Table) Ready(kind string) []Node { return t.current.Load().ready[kind] }

// Node returns the node with the id.
func (t *Table) Node(id string) (Node, bool) {
	node, ok := t.current.Load().byID[id]
	return node, ok
}

// Lookup returns the node for a tenant's call, or for a platform call when
// tenant is zero. It reports false when no node of the kind is ready.
func (t *Table) Lookup(kind string, tenant contextkit.TenantID) (Node, bool) {
	s := t.current.Load()
	if p, ok := s.placed[placementKey{tenant, kind}]; ok && (p.ready || p.only) {
		return p.node, p.ready
	}
	return best(s.ready[kind], tenant, nil)
}

// Elsewhere returns the node that comes first for a tenant's call among those
// that are not refused. A tenant that is placed has no other node.
func (t *Table) Elsewhere(kind string, tenant contextkit.TenantID, refuse func(Node) bool) (Node, bool) {
	s := t.current.Load()
	if p, ok := s.placed[placementKey{tenant, kind}]; ok && (p.ready || p.only) {
		return Node{}, false
	}
	return best(s.ready[kind], tenant, refuse)
}

// best returns the node with the greatest weight for the tenant.
func best(nodes []Node, tenant contextkit.TenantID, refuse func(Node) bool) (Node, bool) {
	if len(nodes) == 1 && refuse == nil {
		return nodes[0], true
	}
	found, most := -1, uint64(0)
	for i := range nodes {
		if refuse != nil && refuse(nodes[i]) {
			continue
		}
		if weight := score(tenant.String(), nodes[i].ID); found < 0 || weight > most {
			found, most = i, weight
		}
	}
	if found < 0 {
		return Node{}, false
	}
	return nodes[found], true
}

// score is the weight of a node for a tenant (Thaler and Ravishankar, "Using
// name-based mappings to increase hit rates", 1998): FNV-1a over both names,
// finished with a mixer. It must be the same in every process, which rules out
// maphash.
func score(tenant, node string) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(tenant) {
		h = (h ^ uint64(tenant[i])) * prime
	}
	h = (h ^ 0xff) * prime
	for i := range len(node) {
		h = (h ^ uint64(node[i])) * prime
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
