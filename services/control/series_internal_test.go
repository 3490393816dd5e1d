package control

import (
	"fmt"
	"testing"
	"time"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/traffic"
)

// behind returns a node that serves tenants and announces the lags of some, of count that have any (-1: its version
// announces none).
func behind(id string, served []string, count int, lags ...fleet.TenantLag) fleet.Node {
	node := fleet.Node{
		ID:      id,
		Tenants: served,
		Lag:     new(int64),
		Behind:  lags,
	}
	for _, one := range lags {
		*node.Lag += one.Lag
	}
	if count >= 0 {
		node.BehindCount = &count
	}
	return node
}

// text is a number, or "-" for none.
func text(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

// The lag of a tenant is the sum over the nodes that serve it, and absent while one of them has not announced it.
func TestGauge_LagOfATenantIsWholeOrAbsent(t *testing.T) {
	a, b := fleet.TenantLag{Tenant: "a", Lag: 5}, fleet.TenantLag{Tenant: "b", Lag: 7}
	served := []string{"a", "b", "c"}
	for name, c := range map[string]struct {
		nodes []fleet.Node
		want  string // of a, b, c, and the platform
	}{
		"no node":           {nil, "- - - -"},
		"nodes without lag": {[]fleet.Node{{ID: "aggregate-1", Tenants: served}}, "- - - -"},
		"all that have any": {
			[]fleet.Node{behind("p", served, 2, a, b), behind("r", served, 1, a)}, "10 7 0 17",
		},
		"none has any": {[]fleet.Node{behind("p", served, 0)}, "0 0 0 0"},
		"more than announced": {
			[]fleet.Node{behind("p", served, 3, a, b), behind("r", served, 2, a)}, "10 - - 17",
		},
		"more at another's tenants": {
			[]fleet.Node{behind("p", served[:1], 1, a), behind("q", served[1:], 2, b)}, "5 7 - 12",
		},
		"an earlier version": {
			[]fleet.Node{behind("p", served, 2, a, b), behind("r", served[:1], -1)}, "- 7 - 12",
		},
	} {
		g := gaugeOf(c.nodes)
		got := fmt.Sprint(text(g.of("a", "").lag), " ", text(g.of("b", "").lag), " ", text(g.of("c", "").lag), " ",
			text(g.of("", "").lag))
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// However many nodes are announced, a gauge has a bounded number of them, and no tenant's lag is then a part of the
// whole.
func TestGauge_NodesAreBounded(t *testing.T) {
	var nodes []fleet.Node
	for n := range maxGaugeNodes + 10 {
		nodes = append(nodes, behind(fmt.Sprint("n", n), []string{"a"}, 1, fleet.TenantLag{Tenant: "a", Lag: 1}))
	}
	g := gaugeOf(nodes)
	if len(g.nodes) != maxGaugeNodes || g.of("a", "").lag != nil || text(g.lag) != fmt.Sprint(len(nodes)) {
		t.Errorf("%d nodes, %s of the tenant, %s of all", len(g.nodes), text(g.of("a", "").lag), text(g.lag))
	}
}

// The calls of nodes are theirs alone: those of gateways, which the nodes answer, are not counted twice. A node that
// starts again leaves a gap, and its lag is of it alone.
func TestSeries_OfNodesThatAreNoGateways(t *testing.T) {
	var s Service
	now := time.Unix(1_800_000_000, 0).Truncate(traffic.Long).Add(traffic.Long)
	window := func(ago time.Duration, calls int64) traffic.Window {
		return traffic.Window{
			End:     now.Add(-ago).Unix(),
			Seconds: int64(traffic.Short / time.Second),
			Counts:  traffic.Counts{Calls: calls, Took: []int64{3, calls}},
		}
	}
	s.history.Add("gateway-1", []traffic.Window{window(0, 30), window(2*traffic.Short, 30)}, now)
	s.calls.Add("aggregate-1", []traffic.Window{window(2*traffic.Short, 15)}, now)
	s.calls.Add("aggregate-1", []traffic.Window{window(0, 45), window(2*traffic.Short, 15)},
		now) // it was started again
	s.gauges.add(now.Unix(), gaugeOf([]fleet.Node{behind("aggregate-1", nil, 0), behind("runner-1", nil, 1,
		fleet.TenantLag{Tenant: "a", Lag: 4})}))
	for node, want := range map[string]string{
		"": "2 - 2 lag 4", "gateway-1": "2 - 2 lag -", "aggregate-1": "1 - 3 lag 0", "runner-1": "- - - lag 4",
		"unknown": "- - - lag -",
	} {
		points, _ := s.points(traffic.Selection{Node: node}, now)
		got := ""
		for _, p := range points[len(points)-3:] {
			if p.CallsPerSecond == nil {
				got += "- "
				continue
			}
			got += fmt.Sprint(p.GetCallsPerSecond(), " ")
			if edge := node == "" || node == "gateway-1"; (p.LimitedPerSecond != nil) != edge ||
				(p.CommandsPerSecond != nil) != edge || p.P99Ms == nil {
				t.Errorf("%q: %v", node, p)
			}
		}
		if got += "lag " + text(points[len(points)-1].Lag); got != want {
			t.Errorf("%q: %s, want %s", node, got, want)
		}
	}
}

// Tenants are ordered by the lag of the last window too, including tenants without calls; a tenant whose lag is unknown
// is not among them.
func TestListTopTenants_OrdersByLag(t *testing.T) {
	var s Service
	now := time.Now()
	end := now.Truncate(traffic.Short)
	s.history.Add("gateway-1", []traffic.Window{{
		End:     end.Unix(),
		Seconds: int64(traffic.Short / time.Second),
		Counts:  traffic.Counts{Calls: 9},
		Tenants: map[string]traffic.Counts{"a": {Calls: 9}},
	}}, now)
	lags := gaugeOf([]fleet.Node{
		behind("p", []string{"a", "b", "c"}, 2,
			fleet.TenantLag{Tenant: "a", Lag: 5}, fleet.TenantLag{Tenant: "b", Lag: 7}),
	})
	for _, at := range []time.Time{end, end.Add(traffic.Short)} { // one is the last when the request comes
		s.gauges.add(at.Unix(), lags)
	}
	for order, want := range map[controlv1.TenantOrder]string{
		controlv1.TenantOrder_TENANT_ORDER_LAG:   "b 0 7 a 9 5 ",
		controlv1.TenantOrder_TENANT_ORDER_CALLS: "a 9 5 ",
	} {
		res, err := metricsService{Service: &s}.ListTopTenants(
			t.Context(), &controlv1.ListTopTenantsRequest{Order: order, Minutes: 60},
		)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, load := range res.GetTenants() {
			got += fmt.Sprint(load.GetTenantId(), " ", load.GetCalls(), " ", text(load.Lag), " ")
		}
		if got != want {
			t.Errorf("%s: %s, want %s", order, got, want)
		}
	}
}
