package projection_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// TestForeignMessages_ViewsSkipNonEvents publishes messages of another producer: views contain the rows of valid
// events, and their checkpoint advances over all others, including the last one.
func TestForeignMessages_ViewsSkipNonEvents(t *testing.T) {
	overBoth(t, viewsSkipNonEvents)
}

func viewsSkipNonEvents(t *testing.T, newStore func(t *testing.T) store.Opener) {
	js, open := natstest.Start(t), newStore(t)
	f := start(t, js, open, model.Wallet)
	f.append(t, "acme", "a", "opened", `{"owner":"ada"}`)
	f.append(t, "globex", "g", "opened", `{"owner":"eve"}`)
	first, err := f.client.Query(as(t, "acme"),
		&projectionv1.QueryRequest{View: "wallets", MinPosition: f.position(t, "acme")})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a"}
	publish := func(prefix string) {
		for _, strange := range natstest.StrangeMessages() {
			id := prefix + strange.Name
			f.sequence["acme"] = natstest.PublishStrange(t, js, strange, "acme", "wallet", id, "opened", 1,
				`{"owner":"ada","more":1}`)
			if strange.Fault == "" {
				want = append(want, id)
			}
		}
	}
	check := func(f *fixture) {
		t.Helper()
		wait(t, f, "acme")
		wait(t, f, "globex")
		// The last message is not an event, and its sequence is reached.
		ids, err := f.query(t, &projectionv1.Query{PageSize: 100})
		slices.Sort(ids)
		slices.Sort(want)
		if err != nil || !slices.Equal(ids, want) {
			t.Fatalf("rows %v, %v; want %v", ids, err, want)
		}
		if err := f.service.Ready(t.Context(), natstest.Tenant(t, "acme")); err != nil {
			t.Error(err)
		}
		res, err := f.client.Query(as(t, "globex"),
			&projectionv1.QueryRequest{View: "wallets", MinPosition: f.position(t, "globex")})
		if err != nil || len(res.GetRows()) != 1 {
			t.Errorf("rows of globex: %v, %v", res.GetRows(), err)
		}
	}
	publish("")
	check(f)
	if count := testutil.CollectAndCount(
		f.service.Integrity(), "headgate_journal_unreadable_total",
	); count != len(journal.Faults()) {
		t.Errorf("%d messages counted as non-events", count)
	}

	// A watcher that resumes receives the rows, and nothing else.
	stream, err := f.client.Watch(as(t, "acme"),
		&projectionv1.WatchRequest{View: "wallets", After: first.GetPosition()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	message, err := stream.Receive()
	if err != nil || message.GetReset_() || len(message.GetChanges()) != len(want)-1 {
		t.Errorf("watcher: %d changes, reset %v, %v", len(message.GetChanges()), message.GetReset_(), err)
	}

	// A node that starts on them shows the views, and another one rebuilds them.
	f.stop()
	for n, opener := range []store.Opener{open, newStore(t)} {
		again := start(t, js, opener, model.Wallet)
		again.last, again.versions, again.sequence = f.last, f.versions, f.sequence
		check(again)
		f = again
		publish(fmt.Sprintf("again-%d-", n))
		check(again)
		again.stop()
	}
}

// wait returns once a tenant's views are shown.
func wait(t *testing.T, f *fixture, tenant string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for f.service.Ready(t.Context(), natstest.Tenant(t, tenant)) != nil {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}
