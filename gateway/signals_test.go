package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
)

// series returns the lines of the gateway's metrics with a prefix.
func (e *edge) series(t *testing.T, name string) (lines []string) {
	t.Helper()
	status, text := e.adminGet(t, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// A breaker is shown while its node is in the routing table, and no longer.
func TestMetrics_BreakersOfRemovedNodesAreDropped(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	dead := route.Node{
		ID:       "dead",
		Kind:     contextkit.KindProjection,
		Endpoint: "127.0.0.1:1",
		Ready:    true,
	}
	if err := e.routes.SetNodes([]route.Node{dead}); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}
	open := func() string {
		return strings.Join(
			append(e.series(t, "headgate_breaker_open"), e.series(t, "headgate_method_breaker_open")...), "\n",
		)
	}
	if got := open(); !strings.Contains(got, `endpoint="127.0.0.1:1"`) || !strings.Contains(got, " 1") ||
		len(e.edge.OpenBreakers()) == 0 {
		t.Fatalf("node present: %q, %v", got, e.edge.OpenBreakers())
	}
	live := startMember(t, contextkit.KindProjection, "live")
	e.replace(t, live)
	if got := open(); strings.Contains(got, `endpoint="127.0.0.1:1"`) || len(e.edge.OpenBreakers()) > 0 {
		t.Errorf("node removed: %q, %v", got, e.edge.OpenBreakers())
	}
	if got := e.series(
		t, "headgate_upstream_latency_seconds",
	); strings.Contains(strings.Join(got, ""), "127.0.0.1:1\"") {
		t.Errorf("latency series of the removed node: %q", got)
	}
}

// The ten tenants with the most rejections by their own limits are listed.
func TestMetrics_MostLimitedTenantsAreListed(t *testing.T) {
	t.Parallel()
	e := start(t, nil)
	states := map[contextkit.TenantID]gateway.TenantState{}
	var names []string
	for i := range 12 {
		name := "t" + string(rune('a'+i))
		names = append(names, name)
		states[natstest.Tenant(t, name)] = gateway.TenantState{Limits: limit.Config{Rate: 0.001, Burst: 1}}
	}
	e.edge.SetTenants(states)
	for i, name := range names {
		token := e.token(t, name, "query.read")
		for range i + 2 {
			e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
		}
	}
	got := e.series(t, "headgate_tenant_limited{")
	if len(got) != 10 {
		t.Fatalf("%d tenants labelled, want 10: %q", len(got), got)
	}
	all := strings.Join(got, "\n")
	if !strings.Contains(all, `tenant="tl"} 12`) || strings.Contains(all, `tenant="ta"`) {
		t.Errorf("%s", all)
	}
}

// Ends of streams are counted by reason.
func TestMetrics_EndsOfStreamsAreCountedByReason(t *testing.T) {
	e := start(t, nil)
	if got := e.series(t, "headgate_streams_ended_total{"); len(got) != 9 {
		t.Fatalf("%d reasons from the start, want 9: %q", len(got), got)
	}
}
