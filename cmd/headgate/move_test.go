package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// further starts one more node of a role, with its own settings in the place of
// the cluster's.
func (c *cluster) further(t *testing.T, role, name, settings string) *process {
	t.Helper()
	config := c.write(t, name+".yaml",
		fmt.Sprintf("nats: %s\nlog: warn\n%s:\n  node: {id: %s}\n%s\n", c.bus, role, name, settings))
	p := &process{path: binary, ready: "listens on", args: []string{"serve", role, "--config", config}}
	p.start(t)
	return p
}

// TestMove_UnderLoadNoCallFails moves a tenant's views between two
// nodes while it writes through one gateway and reads its writes through another,
// and kills control in the midst of each move.
func TestMove_UnderLoadNoCallFails(t *testing.T) {
	t.Parallel()
	underLoad(t)
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	gateways := []string{c.gateway}
	listen := freePort(t)
	nodes := []*process{
		c.further(t, "projection", "views-a",
			fmt.Sprintf("  server: {listen: 127.0.0.1:0}\n  data: %q", filepath.Join(c.dir, "a"))),
		c.further(t, "projection", "views-b",
			fmt.Sprintf("  server: {listen: 127.0.0.1:0}\n  data: %q", filepath.Join(c.dir, "b"))),
		c.further(
			t, "gateway", "gateway-2",
			fmt.Sprintf(
				"  server: {listen: %q}\n  grpc: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  auth: {issuer: headgate-dev, "+
					"audience: headgate, keys: %q}",
				listen, filepath.Join(c.dir, "keys.json"),
			),
		),
	}
	gateways = append(gateways, "http://"+listen)
	control := c.further(t, "control", "control-1", fmt.Sprintf("  server: {listen: %q}", freePort(t)))
	operator, token := c.token(t, "*", "fleet.admin", "fleet.read"), c.token(t, "acme", "command.submit", "query.read")
	post := func(ctx context.Context, url, token, body string) (int, string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		return do(req, "Authorization", token)
	}
	for _, gateway := range gateways {
		if err := eventually(ctx, "the gateway knows all nodes", func() (bool, error) {
			status, text, err := get(ctx, gateway+"/v1/control/fleet", "Authorization", operator)
			return status == http.StatusOK && strings.Count(text, `"answered":true`) == 8, err
		}); err != nil {
			t.Fatal(err)
		}
	}

	load, stop := context.WithCancel(ctx)
	var (
		clients sync.WaitGroup
		written atomic.Int64
	)
	for n := range 4 {
		clients.Go(func() {
			wallet := fmt.Sprintf("w%d", n)
			if status, text, err := post(
				ctx, gateways[0]+"/v1/commands/wallet/"+wallet+"/open", token, `{"payload":{"owner":"Ada"}}`,
			); err != nil || status != http.StatusOK {
				t.Errorf("open: %d %s %v", status, text, err)
				return
			}
			for count := 1; load.Err() == nil; count++ {
				status, text, err := post(ctx, gateways[count%2]+"/v1/commands/wallet/"+wallet+"/deposit", token,
					fmt.Sprintf(`{"payload":{"amount":1},"idempotencyKey":"%s-%d"}`, wallet, count))
				var answer struct{ Position string }
				if err != nil || status != http.StatusOK || json.Unmarshal([]byte(text), &answer) != nil {
					t.Errorf("deposit %d: %d %s %v", count, status, text, err)
					return
				}
				status, text, err = get(
					ctx, gateways[(count+1)%2]+"/v1/query/wallets/"+wallet+"?min_position="+answer.Position,
					"Authorization", token,
				)
				if err != nil || status != http.StatusOK ||
					!strings.Contains(text, fmt.Sprintf(`"balance":%d,`, count)) {
					t.Errorf("read %d: %d %s %v", count, status, text, err)
					return
				}
				written.Add(1)
			}
		})
	}
	for n, target := range []string{"views-a", "views-b", "views-a", "views-b", "views-a"} {
		var answer struct{ Move struct{ ID string } }
		if err := eventually(ctx, "the move starts", func() (bool, error) {
			status, text, err := post(ctx, c.gateway+"/v1/control/moves", operator,
				fmt.Sprintf(`{"tenantId":"acme","kind":"projection","target":%q}`, target))
			if err != nil ||
				status == http.StatusServiceUnavailable { // the control node that was started again is not ready yet
				return false, err
			}
			if status != http.StatusOK {
				t.Fatalf("move %d: %d %s", n, status, text)
			}
			return true, json.Unmarshal([]byte(text), &answer)
		}); err != nil {
			t.Fatalf("move %d: %v", n, err)
		}
		if n > 0 { // wherever it has come to
			control.kill()
			control.start(t)
		}
		before := written.Load()
		if err := eventually(ctx, "the move is done", func() (bool, error) {
			_, text, err := get(ctx, c.gateway+"/v1/control/moves", "Authorization", operator)
			_, rest, _ := strings.Cut(text, `"id":"`+answer.Move.ID)
			rest, _, _ = strings.Cut(rest, `"started"`)
			return strings.Contains(rest, "MOVE_STEP_DONE"), err
		}); err != nil {
			t.Fatalf("move %d: %v\n%s", n, err, control.log())
		}
		if err := eventually(
			ctx, "calls continue", func() (bool, error) { return written.Load() > before+20, nil },
		); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	clients.Wait()

	// A gateway that has just started knows where the tenant is, or that it does not
	// know yet; it never asks a node that does not have it.
	late := freePort(t)
	nodes = append(
		nodes,
		c.further(
			t, "gateway", "gateway-3",
			fmt.Sprintf(
				"  server: {listen: %q}\n  grpc: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  auth: {issuer: headgate-dev, "+
					"audience: headgate, keys: %q}",
				late, filepath.Join(c.dir, "keys.json"),
			),
		),
	)
	if err := eventually(ctx, "the new gateway finds the tenant", func() (bool, error) {
		status, text, err := get(ctx, "http://"+late+"/v1/query/wallets/w0", "Authorization", token)
		if err == nil && status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Fatalf("new gateway: %d %s", status, text)
		}
		return status == http.StatusOK, err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d commands were written and read back during five moves", written.Load())
	for _, p := range append([]*process{control}, nodes...) {
		p.stop(t)
	}
	c.stop(t)
}
