package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// console is an operator at a gateway who claims to be another.
type console struct {
	gateway, token string
}

// call makes a call that changes or reads something, under a forged principal.
func (c console) call(ctx context.Context, t *testing.T, method, path string, body, answer any) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.gateway+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	status, got, err := do(req, "Authorization", c.token, contextkit.HeaderPrincipal, "root",
		contextkit.HeaderPrincipal, "admin")
	if err != nil || status != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, path, status, got, err)
	}
	if err := json.Unmarshal([]byte(got), answer); err != nil {
		t.Fatalf("%s %s: %s: %v", method, path, got, err)
	}
}

// checkModelIsApplied applies a model, and checks that it is stored and audited as applied by subject.
func (c console) checkModelIsApplied(ctx context.Context, t *testing.T, subject string) {
	t.Helper()
	type document struct{ Text, Revision, By string }
	var now, applied struct{ Document document }
	c.call(ctx, t, http.MethodGet, "/v1/control/model", nil, &now)
	c.call(ctx, t, http.MethodPost, "/v1/control/model", map[string]string{
		"text":             now.Document.Text + fmt.Sprintf("# applied by %s\n", url.PathEscape(subject)),
		"expectedRevision": now.Document.Revision,
	}, &applied)
	if applied.Document.By != subject {
		t.Errorf("model stored as applied by %q, want %q", applied.Document.By, subject)
	}
	c.checkAudited(ctx, t, "ApplyModel", subject)
}

// checkAudited waits for the audit record of a method, and checks that it names subject.
func (c console) checkAudited(ctx context.Context, t *testing.T, method, subject string) {
	t.Helper()
	if err := eventually(ctx, method+" is audited", func() (bool, error) {
		var answer struct {
			Records []struct{ Principal, Procedure string }
		}
		c.call(ctx, t, http.MethodGet, "/v1/control/audit?principal="+url.QueryEscape(subject), nil, &answer)
		for _, record := range answer.Records {
			if strings.HasSuffix(record.Procedure, "/"+method) && record.Principal == subject {
				return true, nil
			}
		}
		return false, nil
	}); err != nil {
		t.Error(err)
	}
}

func TestPrincipal_StoredAndAuditedAsInTheCredentialInOneProcess(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := start(t, data, nil)
	defer p.stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, subject := range []string{"operator", "Zoë 🦊"} {
		token := issue(t, data, "--subject", subject, "--tenant", "*", "--right", "fleet.admin", "--right",
			"fleet.read", "--right", "audit.read")
		console{p.gateway, "Bearer " + token}.checkModelIsApplied(ctx, t, subject)
	}
}

func TestPrincipal_StoredAndAuditedAsInTheCredentialOverGRPC(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls the platform; other tests cover this under the race detector")
	}
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	views := func(name string) *process {
		return c.further(t, "projection", name,
			fmt.Sprintf("  server: {listen: 127.0.0.1:0}\n  data: %q", filepath.Join(c.dir, name)))
	}
	a, b := views("views-a"), views("views-b")
	control := c.further(t, "control", "control-1", fmt.Sprintf("  server: {listen: %q}", freePort(t)))
	for n, subject := range []string{"operator", "josé 100%"} {
		o := console{
			c.gateway,
			"Bearer " +
				headgate(t, "token", "--data", c.dir, "--subject", subject, "--tenant", "*", "--right", "fleet.admin",
					"--right", "fleet.read", "--right", "audit.read"),
		}
		if err := eventually(ctx, "the gateway knows all nodes", func() (bool, error) {
			status, text, err := get(ctx, c.gateway+"/v1/control/fleet", "Authorization", o.token)
			return status == http.StatusOK && strings.Count(text, `"answered":true`) == 7, err
		}); err != nil {
			t.Fatal(err)
		}
		o.checkModelIsApplied(ctx, t, subject)
		var begun struct{ Move struct{ ID, By string } }
		o.call(
			ctx, t, http.MethodPost, "/v1/control/moves",
			map[string]string{"tenantId": "acme", "kind": "projection", "target": []string{"views-a", "views-b"}[n]},
			&begun,
		)
		if begun.Move.By != subject {
			t.Errorf("move stored as started by %q, want %q", begun.Move.By, subject)
		}
		o.checkAudited(ctx, t, "StartMove", subject)
		if err := eventually(ctx, "the move is done", func() (bool, error) {
			var all struct {
				Moves []struct{ ID, Step, By string }
			}
			o.call(ctx, t, http.MethodGet, "/v1/control/moves", nil, &all)
			for _, move := range all.Moves {
				if move.ID == begun.Move.ID {
					return move.Step == "MOVE_STEP_DONE" && move.By == subject, nil
				}
			}
			return false, nil
		}); err != nil {
			t.Error(err)
		}
	}
	control.stop(t)
	c.stop(t)
	a.stop(t)
	b.stop(t)
}
