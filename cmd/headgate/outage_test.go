package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// caller calls the cluster's gateway under a token.
type caller struct {
	t     *testing.T
	url   string
	token string
}

func (a caller) post(ctx context.Context, path, body string) (status int, text string) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	status, text, err = do(req, "Authorization", a.token)
	if err != nil {
		a.t.Fatalf("%s: %v", path, err)
	}
	return status, text
}

// readiness is what /ready answers.
type readiness struct {
	Status   string            `json:"status"`
	Reason   string            `json:"reason"`
	Degraded map[string]string `json:"degraded"`
}

func ready(ctx context.Context, t *testing.T, url string) (status int, body readiness) {
	t.Helper()
	status, text, err := get(ctx, url+"/ready")
	if err == nil {
		err = json.Unmarshal([]byte(text), &body)
	}
	if err != nil {
		t.Fatalf("%s: %d %q, %v", url, status, text, err)
	}
	return status, body
}

// listens returns the base URL at which a role listens, by its output.
func (p *process) listens(t *testing.T) string {
	t.Helper()
	_, rest, ok := strings.Cut(p.log(), "listens on ")
	if !ok {
		t.Fatalf("no line has the address:\n%s", p.log())
	}
	url, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(url)
}

// Without NATS, queries are answered from the views, with their position; what needs the journal
// is refused; /ready and the fleet show the age of their data; a node that dies during the outage is
// noticed; and once NATS is back, everything continues by itself.
func TestOutage_ReadsGoOnWithoutNATS(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs every role as a process; other tests cover this under the race detector")
	}
	c := startCluster(t, 1, nil)
	control := c.further(t, "control", "control-1", fmt.Sprintf("  server: {listen: %q}", freePort(t)))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	acme := caller{t, c.gateway, c.token(t, "acme", "command.submit", "query.read")}
	operator := c.token(t, "*", "fleet.read")
	fleet := func() (text string) {
		_, text, err := get(ctx, c.gateway+"/v1/control/fleet", "Authorization", operator)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if status, text := acme.post(
		ctx, "/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`,
	); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	query := func(position string) (int, string) {
		return acme.post(ctx, "/v1/query/wallets", fmt.Sprintf(`{"minPosition":%q}`, position))
	}
	if err := eventually(ctx, "the view contains the wallet, and control is announced", func() (bool, error) {
		_, text := query("")
		return strings.Contains(text, "Ada") && strings.Contains(fleet(), "control-1"), nil
	}); err != nil {
		t.Fatal(err)
	}
	projection := c.roles["projection"].listens(t)

	c.nats[0].kill()
	lost := time.Now()
	// Longer than nodes may be silent, not one query fails.
	for asked := 0; time.Since(lost) < 6*time.Second; asked++ {
		if status, text := query(""); status != http.StatusOK || !strings.Contains(text, "Ada") ||
			!strings.Contains(text, `"position":"`) {
			t.Fatalf("query %d, %v after NATS was lost: %d %s\n%s", asked, time.Since(lost), status, text,
				c.roles["gateway"].log())
		}
	}
	for name, url := range map[string]string{
		"gateway": c.admin, "edge": c.gateway, "projection": projection, "control": control.listens(t),
	} {
		if status, body := ready(ctx, t, url); status != http.StatusOK ||
			!strings.Contains(body.Degraded["nats"], "NATS is not reachable; JetStream answered last") {
			t.Errorf("%s: /ready is %d %+v, want ready, degraded by NATS with the age", name, status, body)
		}
	}
	if status, body := ready(ctx, t, c.admin); status != http.StatusOK || body.Degraded["projection"] != "" {
		t.Errorf("gateway: %d %+v", status, body)
	}
	if status, text := acme.post(
		ctx, "/v1/commands/wallet/a/deposit", `{"payload":{"amount":1}}`,
	); status != http.StatusServiceUnavailable {
		t.Errorf("command without a journal: %d %s", status, text)
	}
	if text := fleet(); !strings.Contains(text, `"outage":"NATS is not reachable"`) ||
		!strings.Contains(text, `"asOf":"`) || strings.Contains(text, "NODE_STATE_LOST") {
		t.Errorf("the fleet lacks its age, or lost nodes: %s", text)
	}
	for _, role := range []string{"gateway", "aggregate", "projection", "runner"} {
		if n := strings.Count(c.roles[role].log(), "the connection to NATS is lost"); n != 1 {
			t.Errorf("the log of the %s reports %d times that NATS is lost, want once:\n%s", role, n,
				c.roles[role].log())
		}
		if n := strings.Count(c.roles[role].log(), `"level":"error"`); n > 2 {
			t.Errorf("the log of the %s has %d lines of level error for one outage:\n%s", role, n, c.roles[role].log())
		}
	}

	c.nats[0].start(t)
	var position string
	if err := eventually(ctx, "commands succeed again", func() (bool, error) {
		status, text := acme.post(ctx, "/v1/commands/wallet/a/deposit",
			`{"payload":{"amount":1},"idempotencyKey":"d1"}`)
		_, rest, _ := strings.Cut(text, `"position":"`)
		position, _, _ = strings.Cut(rest, `"`)
		return status == http.StatusOK, nil
	}); err != nil {
		t.Fatal(err)
	}
	if status, text := query(position); status != http.StatusOK {
		t.Errorf("query with the position of the command: %d %s", status, text)
	}
	if err := eventually(ctx, "nothing is degraded", func() (bool, error) {
		_, body := ready(ctx, t, c.admin)
		return len(body.Degraded) == 0 && !strings.Contains(fleet(), "outage"), nil
	}); err != nil {
		t.Fatal(err)
	}

	// The answer reports that its data may be old, and a node that dies is noticed without NATS.
	c.nats[0].kill()
	if err := eventually(ctx, "the projection reports the outage", func() (bool, error) {
		_, body := ready(ctx, t, projection)
		return body.Degraded["nats"] != "", nil
	}); err != nil {
		t.Fatal(err)
	}
	c.roles["projection"].kill()
	if err := eventually(ctx, "queries are rejected", func() (bool, error) {
		_, body := ready(ctx, t, c.admin)
		return body.Degraded["projection"] != "", nil
	}); err != nil {
		t.Fatal(err)
	}
	if status, text := query(""); status != http.StatusServiceUnavailable {
		t.Errorf("query without a projection: %d %s", status, text)
	}
	c.nats[0].start(t)
	c.roles["projection"].start(t)
	if err := eventually(ctx, "queries succeed again", func() (bool, error) {
		status, _ := query(position)
		return status == http.StatusOK, nil
	}); err != nil {
		t.Fatal(err)
	}
	control.stop(t)
	c.stop(t)
}
