package main_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

func TestWatch_ResumesOverEventsAndGRPC(t *testing.T) {
	t.Parallel()
	p := start(t, t.TempDir(), nil)
	ctx, cancel := context.WithTimeout(contextkit.TenantContext(t.Context(), parseTenant(t, "acme")), time.Minute)
	defer cancel()
	json, grpc := dial(t, p.gateway, p.tokens["ACME"])
	deposit := func(wallet, key string, amount int) {
		t.Helper()
		if _, err := json.commands.Submit(
			ctx, request("wallet", wallet, "deposit", key, map[string]any{"amount": amount}),
		); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := json.commands.Submit(
		ctx, request("wallet", "w", "open", "open", map[string]any{"owner": "Ada"}),
	); err != nil {
		t.Fatal(err)
	}
	// As a browser does: events, each with an id that resumes the stream.
	events := func(last string) (next func(want string) (id string), end func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(ctx)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.gateway+"/v1/watch/wallets?fields=balance", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+p.tokens["ACME"])
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-Id", last)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if media := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || media != "text/event-stream" {
			t.Fatalf("%d %s", res.StatusCode, media)
		}
		lines := bufio.NewScanner(res.Body)
		return func(want string) (id string) {
			t.Helper()
			for lines.Scan() {
				if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
					id = text
				}
				if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok && strings.Contains(text, want) {
					return id
				}
			}
			t.Fatalf("the stream ends without %s: %v", want, lines.Err())
			return ""
		}, func() { cancel(); _ = res.Body.Close() }
	}
	next, end := events("")
	next(`"row":{"balance":0}`)
	deposit("w", "d1", 5)
	last := next(`"row":{"balance":5}`)
	end()
	deposit("w", "d2", 10)
	next, end = events(last)
	next(`"row":{"balance":15}`)
	end()

	stream, err := grpc.queries.Watch(ctx, &projectionv1.WatchRequest{View: "wallets", Filter: "balance > 10"})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Receive()
	if err != nil || !first.GetReset_() || len(first.GetChanges()) != 1 || first.GetChanges()[0].GetKey() != "w" {
		t.Fatalf("%v, %v", first, err)
	}
	if _, err := json.commands.Submit(
		ctx, request("wallet", "w", "withdraw", "w1", map[string]any{"amount": 12}),
	); err != nil {
		t.Fatal(err)
	}
	if gone, err := stream.Receive(); err != nil || len(gone.GetChanges()) != 1 ||
		gone.GetChanges()[0].GetRow() != nil {
		t.Errorf("row that no longer matches: %v, %v", gone, err)
	}
	_ = stream.Close()
	p.stop(t) // and no stream holds the end up
}
