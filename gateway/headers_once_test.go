package gateway_test

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
)

// Over every protocol, a node receives exactly one value of each header that the gateway writes, and so does the
// client; headers without a value are absent. It does not matter whether the client sends them once, twice or not at
// all.
func TestOwnedHeaders_EachHasExactlyOneValue(t *testing.T) {
	m := &mirror{ticker: newTicker(t)}
	e := startWith(t, func(c *gateway.Config) { c.Platform = []string{"app"} }, m.register, m.ticker.set(t))
	e.node.set(func(ctx context.Context, _ int) error { m.answer(ctx); return nil })
	token := e.tokenOf(t, "app", mirrorRights...)
	always := []string{
		contextkit.HeaderTenantID, contextkit.HeaderCorrelationID, contextkit.HeaderRequestID,
		contextkit.HeaderTraceparent,
		contextkit.HeaderPrincipal, contextkit.HeaderClient,
	}
	answered := []string{contextkit.HeaderCorrelationID, contextkit.HeaderRequestID, contextkit.HeaderTraceID}
	for what, sent := range map[string]http.Header{
		"none": {},
		"once": {
			"X-Correlation-Id": {"c"}, "X-Request-Id": {"r"}, "Traceparent": {traceparent}, "X-Tenant-Id": {"acme"},
		},
		"twice": {
			"X-Correlation-Id": {"c", "d"}, "X-Request-Id": {"r", "s"}, "Traceparent": {traceparent, traceparent},
			"Trace-Id": {"a", "b"},
		},
	} {
		for _, w := range everyWay() {
			m.set(nil, http.Header{"X-Correlation-Id": {"trailer"}, "Trace-Id": {"trailer"}})
			header := sent.Clone()
			header.Set("Authorization", token)
			got, seen := w.do(t, e, m, header), m.received()
			if got.err != nil {
				t.Errorf("%s, %s: %v", w, what, got.err)
				continue
			}
			for _, owned := range contextkit.OwnedHeaders() {
				values := seen.Values(owned.Name)
				switch {
				case slices.Contains(always, owned.Name) && (len(values) != 1 || values[0] == ""):
					t.Errorf("%s, %s: the node received %s %q, want one value", w, what, owned.Name, values)
				case owned.Request == contextkit.FromGateway && len(values) > 1:
					t.Errorf("%s, %s: the node received %s %q", w, what, owned.Name, values)
				case owned.Request == contextkit.FromNone && len(values) > 0:
					t.Errorf("%s, %s: the node received %s %q, want none", w, what, owned.Name, values)
				}
			}
			for _, name := range answered {
				if values := got.fields.Values(name); len(values) != 1 || values[0] == "" {
					t.Errorf("%s, %s: the client received %s %q, want one value", w, what, name, values)
				}
			}
		}
	}
}
