package route_test

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
)

// Silent nodes receive calls unless at least half of the ready nodes are not silent: then they are more
// likely at fault than NATS is.
func TestTable_SilentNodesAreAvoided(t *testing.T) {
	node := func(id string, ready, silent bool) route.Node {
		return route.Node{
			ID:       id,
			Kind:     contextkit.KindProjection,
			Endpoint: id + ":1",
			Ready:    ready,
			Silent:   silent,
		}
	}
	for name, tc := range map[string]struct {
		nodes []route.Node
		want  []string
	}{
		"all are silent":       {[]route.Node{node("a", true, true), node("b", true, true)}, []string{"a", "b"}},
		"one of two is silent": {[]route.Node{node("a", true, true), node("b", true, false)}, []string{"b"}},
		"two of three are": {
			[]route.Node{node("a", true, true), node("b", true, true), node("c", true, false)}, []string{"a", "b", "c"},
		},
		"the node that is not silent is not ready": {
			[]route.Node{node("a", true, true), node("b", false, false)}, []string{"a"},
		},
		"silent node is not ready": {
			[]route.Node{node("a", false, true), node("b", true, false)}, []string{"b"},
		},
		"nodes of another kind are not silent": {[]route.Node{
			node("a", true, true), {ID: "r", Kind: contextkit.KindRunner, Endpoint: "r:1", Ready: true},
			{ID: "s", Kind: contextkit.KindRunner, Endpoint: "s:1", Ready: true},
		}, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			table := route.NewTable()
			if err := table.SetNodes(tc.nodes); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, node := range table.Ready(contextkit.KindProjection) {
				got = append(got, node.ID)
			}
			if slices.Sort(got); !slices.Equal(got, tc.want) {
				t.Errorf("%v take calls, want %v", got, tc.want)
			}
		})
	}
}

// A tenant that is placed on a silent node stays there: no other node can answer.
func TestTable_PlacedTenantStaysOnSilentNode(t *testing.T) {
	table := route.NewTable()
	err := table.Replace([]route.Node{
		{ID: "a", Kind: contextkit.KindProjection, Endpoint: "a:1", Ready: true, Silent: true},
		{ID: "b", Kind: contextkit.KindProjection, Endpoint: "b:1", Ready: true},
	}, []route.Placement{{Tenant: tenant(t, "acme"), Kind: contextkit.KindProjection, Node: "a", Only: true}})
	if err != nil {
		t.Fatal(err)
	}
	if node, ok := table.Lookup(contextkit.KindProjection, tenant(t, "acme")); !ok || node.ID != "a" {
		t.Errorf("%+v, %t", node, ok)
	}
}
