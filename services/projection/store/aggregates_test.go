package store_test

import (
	"slices"
	"testing"

	"github.com/headgate/headgate/services/projection/store"
)

// Entries of any other program's event types are read as they were written, and are ordered as the ids are.
func TestAggregate_EntriesAreOrderedByID(t *testing.T) {
	const created = "2026-01-02T03:04:05.6Z"
	all := []store.Aggregate{
		{Type: "wallet", ID: "-", Event: "opened", Created: created},
		{Type: "wallet", ID: "a", Event: "", Created: created},
		{Type: "wallet", ID: "a-", Event: "with spaces / and slashes", Created: created},
		{Type: "wallet", ID: "a0", Event: "opened", Created: created},
		{Type: "wallet", ID: "ab", Event: "\x00é", Created: created},
	}
	var batch store.Batch
	batch.Fill(0, 9, all)
	entries, to := batch.Index(store.Indexed{Applied: 9})
	if !slices.IsSorted(entries) || to != 9 || len(entries) != len(all) {
		t.Fatalf("%q, %d", entries, to)
	}
	from, before := store.Lookup{Type: "wallet", Prefix: "a", After: "a"}.Range()
	for n, entry := range entries {
		if got := store.AggregateOf(entry); got != all[n] {
			t.Errorf("%+v, want %+v", got, all[n])
		}
		if selected := entry >= from && entry < before; selected != (n > 1) {
			t.Errorf("%q after a: %v", all[n].ID, selected)
		}
	}
	if entries, to := batch.Index(store.Indexed{Sequence: 3, Applied: 9}); entries != nil || to != 3 {
		t.Errorf("an index that has come further gets %q, %d", entries, to)
	}
}

// An index that lags is not continued by later events: the events between would be missing.
func TestBatch_IndexThatLagsIsNotContinued(t *testing.T) {
	var batch store.Batch
	batch.Advance(store.Checkpoint{Sequence: 12})
	batch.Begin(store.Aggregate{Type: "wallet", ID: "a"})
	for indexed, want := range map[store.Indexed]uint64{
		{Sequence: 9, Applied: 9}:   12,
		{Sequence: 8, Applied: 9}:   8,
		{Sequence: 12, Applied: 12}: 12,
		{}:                          12,
	} {
		entries, to := batch.Index(indexed)
		if to != want || (len(entries) == 1) != (to == 12 && indexed.Applied < 12) {
			t.Errorf("%+v: %q, %d", indexed, entries, to)
		}
	}
}
