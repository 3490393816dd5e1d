package route_test

import (
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
)

// Gateways of different versions send a tenant's calls to the same node: the hash is a part of the protocol.
func TestLookup_HashIsTheSameInEveryVersion(t *testing.T) {
	table := route.NewTable()
	if err := table.SetNodes(nodes(5)); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]string{ // the first choice, and the second
		"":         {"p3", "p4"},
		"acme":     {"p3", "p0"},
		"globex":   {"p1", "p2"},
		"initech":  {"p3", "p4"},
		"umbrella": {"p3", "p2"},
		"hooli":    {"p1", "p4"},
		"t-1":      {"p3", "p0"},
		"t-2":      {"p1", "p3"},
	} {
		var id contextkit.TenantID
		if name != "" {
			id = tenant(t, name)
		}
		first, _ := table.Lookup(contextkit.KindProjection, id)
		second, _ := table.LookupOther(contextkit.KindProjection, id, func(n route.Node) bool { return n == first })
		if first.ID != want[0] || second.ID != want[1] {
			t.Errorf("%q is at %s, else at %s; want %v", name, first.ID, second.ID, want)
		}
	}
}
