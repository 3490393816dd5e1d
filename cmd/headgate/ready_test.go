package main_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fragile is a model whose view cannot project an event with a zero.
const fragile = `
model: fragile
aggregates:
  thing:
    commands:
      put:
        payload: {type: object, required: [n], properties: {n: {type: integer}}}
        emit: [{event: put, data: {n: cmd.n}}]
    evolve:
      put: {n: event.n}
views:
  things:
    key: meta.aggregate_id
    columns: {share: int}
    on:
      thing.put: {upsert: {share: 100 / (event.n + 0 * row.share)}}
`

func TestReady_OfATenantFollowsTheRealNodes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the whole platform; other tests cover this under the race detector")
	}
	model := filepath.Join(t.TempDir(), "fragile.yaml")
	if err := os.WriteFile(model, []byte(fragile), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, t.TempDir(), nil, "--model", model)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	post := func(token, path, body string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if status, text, err := do(req, "Authorization", "Bearer "+p.tokens[token]); err != nil ||
			status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, text, err)
		}
	}
	// reaches waits until both of the gateway's ports answer so.
	reaches := func(tenant string, want int, reason string) {
		t.Helper()
		for _, url := range []string{p.gateway, p.admin} {
			var last string
			if err := eventually(ctx, "/ready?tenant="+tenant, func() (bool, error) {
				status, text, err := get(ctx, url+"/ready?tenant="+tenant, "Authorization",
					"Bearer "+p.tokens["OPERATOR"])
				last = text
				return status == want && strings.Contains(text, reason), err
			}); err != nil {
				t.Fatalf("%v: response %s", err, last)
			}
		}
	}
	reaches("acme", http.StatusOK, `"ready"`)
	reaches("nosuch", http.StatusServiceUnavailable,
		"aggregate: tenant nosuch is not served here; projection: tenant nosuch is not served here")
	post("ACME", "/v1/commands/thing/a/put", `{"payload":{"n":0}}`)
	// A view that fails does so alone: the tenant's other calls are answered.
	if err := eventually(ctx, "the view fails", func() (bool, error) {
		status, text, err := get(ctx, p.gateway+"/v1/query/things", "Authorization", "Bearer "+p.tokens["ACME"])
		return status == http.StatusBadRequest && strings.Contains(text, "VIEW_FAILED"), err
	}); err != nil {
		t.Fatal(err)
	}
	reaches("acme", http.StatusOK, `"ready"`)
	reaches("globex", http.StatusOK, `"ready"`)
	if err := eventually(ctx, "control receives the tenants", func() (bool, error) {
		_, text, err := get(ctx, p.gateway+"/v1/control/tenants", "Authorization", "Bearer "+p.tokens["OPERATOR"])
		return strings.Contains(text, `"globex"`), err
	}); err != nil {
		t.Fatal(err)
	}
	post("OPERATOR", "/v1/control/tenants/globex:suspend", `{"reason":"unpaid"}`)
	reaches("globex", http.StatusServiceUnavailable, "tenant globex is suspended: unpaid")
	post("OPERATOR", "/v1/control/tenants/globex:resume", `{}`)
	post("OPERATOR", "/admin/runner/drain", `{}`)
	reaches("globex", http.StatusOK, `"degraded":{"runner":"`)
	if err := eventually(ctx, "the gateway is ready and degraded", func() (bool, error) {
		status, text, err := get(ctx, p.gateway+"/ready")
		if status != http.StatusOK {
			t.Fatalf("gateway with its last runner draining: %d %s, want ready", status, text)
		}
		return strings.Contains(text, `"degraded":{"runner":"no runner node is ready`), err
	}); err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "the drained runner answers reads", func() (bool, error) {
		status, _, err := get(ctx, p.gateway+"/admin/runner/tenants/globex/workflows", "Authorization",
			"Bearer "+p.tokens["OPERATOR"])
		return status == http.StatusOK, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "the fleet lists the failing view", func() (bool, error) {
		_, text, err := get(ctx, p.gateway+"/v1/control/fleet", "Authorization", "Bearer "+p.tokens["OPERATOR"])
		return strings.Contains(text, `"degraded":["runner"]`), err
	}); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
}
