package projection_test

import (
	"fmt"
	"testing"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// removals makes a watcher record the keys of removals that it receives.
func removals(w *watcher) map[string]bool {
	gone, receive := map[string]bool{}, w.receive
	w.receive = func() (*projectionv1.WatchResponse, error) {
		message, err := receive()
		for _, change := range message.GetChanges() {
			if change.GetRow() == nil {
				gone[change.GetKey()] = true
			}
		}
		return message, err
	}
	return gone
}

// A watcher with a filter receives rows that match it, and the removal of rows that no longer match; keys of other
// rows are not sent.
func TestWatch_FilterHidesRowsThatNeverMatched(t *testing.T) {
	overBoth(t, watchFilterHidesRowsThatNeverMatched)
}

func watchFilterHidesRowsThatNeverMatched(t *testing.T, newStore func(t *testing.T) store.Opener) {
	js, open := natstest.Start(t), newStore(t)
	f := start(t, js, open, model.Wallet)
	f.fill(t)
	move := func(wallet, kind string, amount int) {
		f.append(t, "acme", wallet, kind, fmt.Sprintf(`{"amount":%d,"reference":""}`, amount))
	}
	watch := func(after string) (*watcher, map[string]bool) {
		w := f.watch(t,
			&projectionv1.WatchRequest{Filter: "balance > 100", After: after, MinPosition: f.position(t, "acme")})
		return w, removals(w)
	}
	w, gone := watch("")
	w.until(t, "w1=101 w2=201 w4=101")
	if keys := gathered(t, f.service)["headgate_projection_filter_keys{}"]; keys != 3 {
		t.Errorf("metrics report %v keys, want those of 3 rows", keys)
	}
	move("w0", "deposited", 5) // 6: it never matches
	f.append(t, "acme", "poor", "opened", `{"owner":"new"}`)
	move("w3", "deposited", 500) // 501: it matches from now on
	w.until(t, "w1=101 w2=201 w3=501 w4=101")
	move("w3", "withdrawn", 499) // and then it no longer matches
	move("w0", "deposited", 1)
	move("w4", "deposited", 1)
	w.until(t, "w1=101 w2=201 w4=102")
	if len(gone) != 1 || !gone["w3"] {
		t.Errorf("removed keys %v, want only w3", gone)
	}
	w.close()

	// A client that resumes on the same node receives the changes that it missed, and no others.
	move("w0", "deposited", 1)
	move("w1", "withdrawn", 100)
	move("poor", "deposited", 1)
	back, gone := watch(w.position)
	back.rows = w.rows
	back.until(t, "w2=201 w4=102")
	if back.resets != 0 || len(gone) != 1 || !gone["w1"] {
		t.Errorf("%d resets, removed keys %v; want only w1", back.resets, gone)
	}
	move("w0", "deposited", 1)
	move("w2", "deposited", 1)
	back.until(t, "w2=202 w4=102")
	back.close()

	// A node that does not know which rows the client has resets the watch, instead of sending keys of other rows or
	// omitting the removal of a row.
	last, versions, sequence := f.last, f.versions, f.sequence
	f.stop()
	f = start(t, js, open, model.Wallet)
	f.last, f.versions, f.sequence = last, versions, sequence
	unchanged, _ := watch(back.position)
	unchanged.rows = back.rows
	move("w4", "withdrawn", 100)
	unchanged.until(t, "w2=202")
	if unchanged.resets != 1 {
		t.Errorf("%d resets after a row stopped matching", unchanged.resets)
	}
	move("w0", "deposited", 1)
	move("w2", "deposited", 1)
	unchanged.until(t, "w2=203")
	if unchanged.resets != 1 {
		t.Errorf("%d resets with the client's rows known", unchanged.resets)
	}
	unchanged.close()
}

// Without a filter every row's key is sent.
func TestWatch_WithoutFilterSendsEveryRemoval(t *testing.T) {
	f := start(t, natstest.Start(t), sqlite.In(t.TempDir()), model.Wallet)
	f.fill(t)
	w := f.watch(t, &projectionv1.WatchRequest{Filter: "  ", MinPosition: f.position(t, "acme")})
	w.until(t, "w0=1 w1=101 w2=201 w3=1 w4=101")
	f.append(t, "acme", "w0", "deposited", `{"amount":1,"reference":""}`)
	w.until(t, "w0=2 w1=101 w2=201 w3=1 w4=101")
	w.close()
}
