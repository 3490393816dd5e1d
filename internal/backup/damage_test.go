package backup_test

import (
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// TestRestore_IsNoLossOfTheJournal restores a journal that ends before the recorded end.
func TestRestore_IsNoLossOfTheJournal(t *testing.T) {
	js := natstest.Start(t)
	last := appendEvents(t, js, "a", 0, 1, 10)
	records, err := kv.Open[journal.Record](t.Context(), js, streams.BucketJournal)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	created := stream.CachedInfo().Created.UnixNano()
	gap := journal.Gap{From: 3, To: 4}
	stored, err := records.Get(t.Context(), "record")
	if err != nil {
		stored.Revision = 0
	}
	if _, err := records.Put(contextkit.PlatformContext(t.Context()), "record", journal.Record{
		Tail:     journal.Tail{Epoch: created, Sequence: last, EventID: "x"},
		Accepted: []journal.AcceptedLoss{{Stream: created, Epoch: created, Gaps: []journal.Gap{gap}}},
	}, stored.Revision); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "b")
	if _, err := backup.Take(t.Context(), js, dir, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	to := bare(t)
	if _, err := backup.Restore(t.Context(), to, dir, backup.Target{}, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := setup.Ensure(t.Context(), to, 1); err != nil {
		t.Fatal(err)
	}
	// The journal has no loss and accepts events.
	if next := appendEvents(t, to, "a", last, 11, 1); next != last+1 {
		t.Errorf("sequence of the next event: %d, want %d", next, last+1)
	}
	if _, err := journal.AcceptLoss(
		contextkit.PlatformContext(t.Context()), to, "operator", "there is none",
	); err == nil {
		t.Error("the restored journal has a loss to accept")
	}
	records, err = kv.Open[journal.Record](t.Context(), to, streams.BucketJournal)
	if err != nil {
		t.Fatal(err)
	}
	stored, err = records.Get(t.Context(), "record")
	if err != nil {
		t.Fatal(err)
	}
	if stream, err = to.Stream(t.Context(), streams.Events); err != nil {
		t.Fatal(err)
	}
	newest := stored.Value.Accepted[len(stored.Value.Accepted)-1]
	if newest.Stream != stream.CachedInfo().Created.UnixNano() || len(newest.Gaps) != 1 || newest.Gaps[0] != gap {
		t.Errorf("accepted gaps after the restore: %+v", newest)
	}
}
