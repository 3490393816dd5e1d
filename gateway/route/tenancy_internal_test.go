package route

import (
	"testing"

	"github.com/headgate/headgate/contextkit"
)

// A tenant that is placed on a node of another kind is not placed, a placement alone decides where it is valid, and
// each change of placements is a new routing epoch.
func TestTable_PlacementAppliesToItsKindAndTenantAlone(t *testing.T) {
	tenants := map[string]contextkit.TenantID{}
	for _, name := range []string{"acme", "globex"} {
		id, err := contextkit.ParseTenantID(name)
		if err != nil {
			t.Fatal(err)
		}
		tenants[name] = id
	}
	table := NewTable()
	if err := table.SetNodes([]Node{
		{ID: "p1", Kind: "projection", Endpoint: "a:1", Ready: true},
		{ID: "p2", Kind: "projection", Endpoint: "b:1"},
		{ID: "r1", Kind: "runner", Endpoint: "c:1", Ready: true},
	}); err != nil {
		t.Fatal(err)
	}
	lookup := func(tenant, want string) {
		t.Helper()
		node, ok := table.Lookup("projection", tenants[tenant])
		if ok != (want != "") || ok && node.ID != want {
			t.Errorf("%s is at %q, %v; want %q", tenant, node.ID, ok, want)
		}
	}
	epoch := table.Epoch()
	place := func(placed ...Placement) {
		t.Helper()
		table.Place(placed...)
		if now := table.Epoch(); now <= epoch {
			t.Errorf("epoch %d follows %d", now, epoch)
		}
		epoch = table.Epoch()
	}
	lookup("acme", "p1")
	place(Placement{
		Tenant: tenants["acme"],
		Kind:   "projection",
		Node:   "r1",
		Only:   true,
	})
	lookup("acme", "p1")
	place(Placement{
		Tenant: tenants["acme"],
		Kind:   "projection",
		Node:   "p2",
		Only:   true,
	})
	lookup("acme", "")
	lookup("globex", "p1")
	place(Placement{Tenant: tenants["acme"], Kind: "projection", Node: "p2"})
	lookup("acme", "p1")
	place(Placement{
		Tenant: tenants["acme"],
		Kind:   "projection",
		Node:   "missing",
		Only:   true,
	})
	lookup("acme", "")
	place(Placement{Tenant: tenants["acme"], Kind: "projection"})
	lookup("acme", "p1")
}

// A node without an id, a kind or an endpoint is rejected, with all others, and so is a second one of an id.
func TestTable_IncompleteNodesAreRejected(t *testing.T) {
	good := Node{ID: "a", Kind: "thing", Endpoint: "a:1"}
	for name, bad := range map[string]Node{
		"id": {Kind: "thing", Endpoint: "a:1"}, "kind": {ID: "b", Endpoint: "a:1"},
		"endpoint": {ID: "b", Kind: "thing"},
		"another":  good,
	} {
		table := NewTable()
		if err := table.SetNodes([]Node{good, bad}); err == nil || len(table.Nodes()) != 0 {
			t.Errorf("without its own %s: %v, %d nodes", name, err, len(table.Nodes()))
		}
	}
}
