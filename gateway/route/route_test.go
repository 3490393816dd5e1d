package route_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
)

func tenant(t testing.TB, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nodes(n int) []route.Node {
	list := make([]route.Node, n)
	for i := range list {
		list[i] = route.Node{
			ID:       fmt.Sprintf("p%d", i),
			Kind:     contextkit.KindProjection,
			Endpoint: fmt.Sprintf("127.0.0.1:%d", 9000+i),
			Ready:    true,
		}
	}
	return list
}

func TestLookup_PlacementPrecedesHash(t *testing.T) {
	table := route.NewTable()
	if _, ok := table.Lookup(contextkit.KindProjection, tenant(t, "acme")); ok {
		t.Fatal("an empty table has a node")
	}
	all := nodes(3)
	all[2].Ready = false
	placed := []route.Placement{
		{Tenant: tenant(t, "acme"), Kind: contextkit.KindProjection, Node: "p1"},
		{Tenant: tenant(t, "globex"), Kind: contextkit.KindProjection, Node: "p2"},
	}
	if err := table.Replace(all, placed); err != nil {
		t.Fatal(err)
	}
	if node, ok := table.Lookup(contextkit.KindProjection, tenant(t, "acme")); !ok || node.ID != "p1" {
		t.Errorf("acme is placed on p1 and goes to %q", node.ID)
	}
	if node, ok := table.Lookup(contextkit.KindProjection, tenant(t, "globex")); !ok || node.ID == "p2" {
		t.Errorf("globex goes to %q: p2 is not ready", node.ID)
	}
	if _, ok := table.Lookup(contextkit.KindRunner, tenant(t, "acme")); ok {
		t.Error("a runner is found in a table without runners")
	}
	if err := table.Replace(
		all, []route.Placement{{Tenant: tenant(t, "acme"), Kind: contextkit.KindRunner, Node: "p1"}},
	); err == nil {
		t.Error("a placement on a node of another kind is accepted")
	}
	if err := table.Replace(append(all, all[0]), nil); err == nil {
		t.Error("two nodes of one name are accepted")
	}
	if table.Epoch() != 1 {
		t.Errorf("revision %d after one change", table.Epoch())
	}
}

func TestLookup_OnlyTenantsOfLostNodeMove(t *testing.T) {
	before, after := route.NewTable(), route.NewTable()
	all := nodes(10)
	if err := before.Replace(all, nil); err != nil {
		t.Fatal(err)
	}
	if err := after.Replace(all[:9], nil); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for i := range 10_000 {
		id := tenant(t, fmt.Sprintf("tenant-%d", i))
		was, _ := before.Lookup(contextkit.KindProjection, id)
		is, _ := after.Lookup(contextkit.KindProjection, id)
		counts[was.ID]++
		if was.ID != "p9" && was != is {
			t.Fatalf("%s moved from %s to %s, which was not lost", id, was.ID, is.ID)
		}
	}
	for id, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("%s has %d of 10,000 tenants, want about 1,000", id, n)
		}
	}
}

func TestLookup_DoesNotAllocate(t *testing.T) {
	table := route.NewTable()
	if err := table.Replace(nodes(10), nil); err != nil {
		t.Fatal(err)
	}
	id := tenant(t, "acme")
	if n := testing.AllocsPerRun(100, func() { table.Lookup(contextkit.KindProjection, id) }); n != 0 {
		t.Fatalf("a lookup allocates %v times", n)
	}
}

func TestLookup_UnreadyNodeIsSkipped(t *testing.T) {
	table := route.NewTable()
	if err := table.Replace(nodes(3), nil); err != nil {
		t.Fatal(err)
	}
	first, _ := table.Lookup(contextkit.KindProjection, tenant(t, "acme"))
	if !table.SetReady(first.ID, false) || table.SetReady(first.ID, false) || table.SetReady("absent", false) {
		t.Error("a change is what changes a known node")
	}
	second, ok := table.Lookup(contextkit.KindProjection, tenant(t, "acme"))
	if !ok || second.ID == first.ID || len(table.Ready(contextkit.KindProjection)) != 2 || len(table.Nodes()) != 3 {
		t.Errorf("acme goes to %s, which is not ready", second.ID)
	}
	table.SetReady(first.ID, true)
	if again, _ := table.Lookup(contextkit.KindProjection, tenant(t, "acme")); again != first {
		t.Errorf("acme does not come back to %s", first.ID)
	}
}

func TestLookupOther_NextNodeExceptForPlacedTenant(t *testing.T) {
	table := route.NewTable()
	if err := table.Replace(
		nodes(3), []route.Placement{{Tenant: tenant(t, "globex"), Kind: contextkit.KindProjection, Node: "p1"}},
	); err != nil {
		t.Fatal(err)
	}
	first, _ := table.Lookup(contextkit.KindProjection, tenant(t, "acme"))
	second, ok := table.LookupOther(contextkit.KindProjection, tenant(t, "acme"),
		func(n route.Node) bool { return n == first })
	if !ok || second == first {
		t.Errorf("elsewhere than %s is %s", first.ID, second.ID)
	}
	if _, ok := table.LookupOther(
		contextkit.KindProjection, tenant(t, "acme"), func(route.Node) bool { return true },
	); ok {
		t.Error("every node is refused, and one is found")
	}
	if _, ok := table.LookupOther(
		contextkit.KindProjection, tenant(t, "globex"), func(route.Node) bool { return false },
	); ok {
		t.Error("a placed tenant is sent elsewhere")
	}
}

func TestLookup_OnlyPlacementHasNoFallback(t *testing.T) {
	table := route.NewTable()
	acme := tenant(t, "acme")
	nodes := func(ready bool) []route.Node {
		return []route.Node{
			{ID: "p1", Kind: contextkit.KindProjection, Endpoint: "a:1", Ready: true},
			{ID: "p2", Kind: contextkit.KindProjection, Endpoint: "b:1", Ready: ready},
		}
	}
	placed := []route.Placement{{Tenant: acme, Kind: contextkit.KindProjection, Node: "p2", Only: true}}
	if err := table.Replace(nodes(true), placed); err != nil {
		t.Fatal(err)
	}
	if node, ok := table.Lookup(contextkit.KindProjection, acme); !ok || node.ID != "p2" {
		t.Errorf("%v, %v", node, ok)
	}
	revision := table.Epoch()
	if err := table.SetNodes(nodes(true)); err != nil || table.Epoch() != revision {
		t.Errorf("nodes that are the same make revision %d of %d, %v", table.Epoch(), revision, err)
	}
	away := map[string][]route.Node{"not ready": nodes(false), "not known": nodes(false)[:1]}
	for what, nodes := range away {
		if err := table.SetNodes(nodes); err != nil {
			t.Fatal(err)
		}
		if node, ok := table.Lookup(contextkit.KindProjection, acme); ok {
			t.Errorf("%s: %v answers", what, node)
		}
		if node, ok := table.LookupOther(contextkit.KindProjection, acme, nil); ok {
			t.Errorf("%s: %v answers elsewhere", what, node)
		}
		if _, ok := table.Lookup(contextkit.KindProjection, tenant(t, "globex")); !ok {
			t.Errorf("%s: no node answers another tenant", what)
		}
	}
}

func TestPlace_EqualsPlaceAll(t *testing.T) {
	all := nodes(5)
	rapid.Check(t, func(t *rapid.T) {
		changing := route.NewTable()
		if err := changing.SetNodes(all); err != nil {
			t.Fatal(err)
		}
		stands := map[contextkit.TenantID]route.Placement{}
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			var changed []route.Placement
			for range rapid.IntRange(1, 5).Draw(t, "together") {
				id, err := contextkit.ParseTenantID(fmt.Sprintf("tenant-%d", rapid.IntRange(0, 9).Draw(t, "tenant")))
				if err != nil {
					t.Fatal(err)
				}
				p := route.Placement{Tenant: id, Kind: contextkit.KindProjection, Only: true}
				delete(stands, id)
				if on := rapid.IntRange(-1, 6).Draw(t, "node"); on >= 0 { // 5 and 6 are not there
					p.Node = fmt.Sprintf("p%d", on)
					stands[id] = p
				}
				changed = append(changed, p)
			}
			changing.Place(changed...)
		}
		anew := route.NewTable()
		if err := anew.Replace(all, slices.Collect(maps.Values(stands))); err != nil {
			t.Fatal(err)
		}
		for i := range 10 {
			id, err := contextkit.ParseTenantID(fmt.Sprintf("tenant-%d", i))
			if err != nil {
				t.Fatal(err)
			}
			is, ok := changing.Lookup(contextkit.KindProjection, id)
			want, wanted := anew.Lookup(contextkit.KindProjection, id)
			if is != want || ok != wanted {
				t.Errorf("%s goes to %v, %v, and after PlaceAll to %v, %v", id, is, ok, want, wanted)
			}
		}
	})
}
