package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/streams"
)

// TestOutage_LeaderChangesCostNoQueryAndNoFalseAlarm lets every stream of three NATS servers choose
// another leader, as happens when servers are upgraded one by one. No query fails, every role stays
// ready, and nothing is reported as damage or as an error.
func TestOutage_LeaderChangesCostNoQueryAndNoFalseAlarm(t *testing.T) {
	t.Parallel()
	underLoad(t)
	c := startCluster(t, 3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	conn := c.connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	acme := caller{t, c.gateway, c.token(t, "acme", "command.submit", "query.read")}
	if status, text := acme.post(
		ctx, "/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`,
	); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if err := eventually(ctx, "the view contains the wallet", func() (bool, error) {
		status, text := acme.post(ctx, "/v1/query/wallets", `{}`)
		return status == http.StatusOK && strings.Contains(text, "Ada"), nil
	}); err != nil {
		t.Fatal(err)
	}

	roles := map[string]string{"gateway": c.admin}
	for _, role := range []string{"aggregate", "projection", "runner"} {
		roles[role] = c.roles[role].listens(t)
	}

	asking, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan error, 1)
	go func() {
		queries := 0
		for asking.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.gateway+"/v1/query/wallets",
				strings.NewReader(`{}`))
			if err != nil {
				asked <- err
				return
			}
			status, text, err := do(req, "Authorization", acme.token)
			if err != nil || status != http.StatusOK || !strings.Contains(text, "Ada") {
				asked <- fmt.Errorf("query %d: %d %s, %w", queries, status, text, err)
				return
			}
			for role, url := range roles {
				if status, text, err := get(ctx, url+"/ready"); err != nil || status != http.StatusOK {
					asked <- fmt.Errorf("the %s is not ready: %d %s, %w", role, status, text, err)
					return
				}
			}
			queries++
		}
		if queries < 20 {
			asked <- fmt.Errorf("only %d queries succeeded", queries)
			return
		}
		asked <- nil
	}()
	for round := range 2 {
		for _, stream := range streams.Names() {
			if err := stepDown(ctx, conn, js, stream); err != nil {
				t.Fatal(err)
			}
		}
		if err := eventually(ctx, "a command is accepted, and its row is visible", func() (bool, error) {
			status, text := acme.post(ctx, "/v1/commands/wallet/a/deposit",
				fmt.Sprintf(`{"payload":{"amount":1},"idempotencyKey":"d%d"}`, round))
			_, rest, _ := strings.Cut(text, `"position":"`)
			position, _, _ := strings.Cut(rest, `"`)
			if status != http.StatusOK {
				return false, nil
			}
			status, text = acme.post(ctx, "/v1/query/wallets", fmt.Sprintf(`{"minPosition":%q}`, position))
			return status == http.StatusOK && strings.Contains(text, fmt.Sprintf(`"balance":%d,`, round+1)), nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-asked; err != nil {
		t.Error(err)
	}
	for name, value := range scrape(ctx, t, roles) {
		if value != 0 &&
			(strings.HasPrefix(name, "headgate_journal_damage") ||
				strings.HasPrefix(name, "headgate_fleet_nodes") && strings.Contains(name, "lost")) {
			t.Errorf("%s is %v", name, value)
		}
	}
	for role, p := range c.roles {
		if log := p.log(); strings.Contains(log, "damage") || strings.Contains(log, `"level":"error"`) {
			t.Errorf("the log of the %s:\n%s", role, log)
		}
	}
}

// stepDown has a stream's leader hand over to another server. A stream that has no replicas, or is
// not there, has none.
func stepDown(ctx context.Context, conn *nats.Conn, js jetstream.JetStream, stream string) error {
	var found jetstream.Stream
	err := eventually(ctx, stream+" is found", func() (_ bool, err error) {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		found, err = js.Stream(attempt, stream)
		return err == nil, err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", stream, err)
	}
	if found.CachedInfo().Config.Replicas < 2 {
		return nil
	}
	if _, err := conn.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil); err != nil {
		return fmt.Errorf("%s: %w", stream, err)
	}
	return eventually(ctx, stream+" has a leader", func() (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, time.Second) // a change of leaders loses requests
		defer cancel()
		info, err := js.Stream(attempt, stream)
		return err == nil && info.CachedInfo().Cluster.Leader != "", nil
	})
}
