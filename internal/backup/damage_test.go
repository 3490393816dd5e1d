package backup_test

import (
	"path/filepath"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backup"
	"github.com/headgate/headgate/internal/natstest"
)

// TestRestore_IsNoLossOfTheJournal restores a journal that ends before the recorded end.
func TestRestore_IsNoLossOfTheJournal(t *testing.T) {
	js := natstest.Start(t)
	last := appendEvents(t, js, "a", 0, 1, 10)
	records, err := backbone.OpenBucket[backbone.JournalRecord](t.Context(), js, backbone.BucketJournal)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), backbone.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	created := stream.CachedInfo().Created.UnixNano()
	gap := backbone.Gap{From: 3, To: 4}
	kept, err := records.Get(t.Context(), "record")
	if err != nil {
		kept.Revision = 0
	}
	if _, err := records.Put(contextkit.PlatformContext(t.Context()), "record", backbone.JournalRecord{
		Tail:     backbone.Tail{Epoch: created, Sequence: last, EventID: "x"},
		Accepted: []backbone.AcceptedLoss{{Stream: created, Epoch: created, Gaps: []backbone.Gap{gap}}},
	}, kept.Revision); err != nil {
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
	if err := backbone.EnsureStreams(t.Context(), to, 1); err != nil {
		t.Fatal(err)
	}
	// The journal is whole, and takes events.
	if next := appendEvents(t, to, "a", last, 11, 1); next != last+1 {
		t.Errorf("the next event is at %d, want %d", next, last+1)
	}
	if _, err := backbone.AcceptLoss(contextkit.PlatformContext(t.Context()), to, "operator", "there is none"); err == nil {
		t.Error("the restored journal has a loss to accept")
	}
	records, err = backbone.OpenBucket[backbone.JournalRecord](t.Context(), to, backbone.BucketJournal)
	if err != nil {
		t.Fatal(err)
	}
	kept, err = records.Get(t.Context(), "record")
	if err != nil {
		t.Fatal(err)
	}
	if stream, err = to.Stream(t.Context(), backbone.StreamEvents); err != nil {
		t.Fatal(err)
	}
	newest := kept.Value.Accepted[len(kept.Value.Accepted)-1]
	if newest.Stream != stream.CachedInfo().Created.UnixNano() || len(newest.Gaps) != 1 || newest.Gaps[0] != gap {
		t.Errorf("the accepted gaps are %+v", newest)
	}
}
