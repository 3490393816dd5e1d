package idempotency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

func TestLog_FindReturnsAnswersOfAllAges(t *testing.T) {
	m := newMemory()
	l := newLogs(t, m).New(wallet)
	const commands = newestAnswers + 2*indexBlocks*blockAnswers + blockAnswers + 7
	for first := 0; first < commands; first += blockAnswers {
		recordAll(l, first, min(first+blockAnswers, commands))
		flush(t, l, m)
	}
	if len(l.indexes) != 1 || len(l.blocks) != indexBlocks+2 {
		t.Fatalf("%d indexes and %d blocks, want 1 and %d", len(l.indexes), len(l.blocks), indexBlocks+2)
	}
	for n := range commands {
		known, ok, err := l.Find(t.Context(), fmt.Sprintf("key-%d", n))
		want := Answer{Fingerprint: "f", FirstSequence: uint64(10 * (n + 1)), Events: 1}
		if err != nil || !ok || known != want {
			t.Fatalf("command %d of %d: %v, %v, %v", n, commands, known, ok, err)
		}
	}
	m.reads = 0
	for n := range 100 {
		if _, ok, err := l.Find(t.Context(), fmt.Sprintf("new-%d", n)); ok || err != nil {
			t.Fatalf("a new key has an answer: %v", err)
		}
	}
	if m.reads > 2 { // equal hashes are possible
		t.Errorf("the store is read %d times for new keys", m.reads)
	}
	l.Reset(1)
	if _, ok, _ := l.Find(t.Context(), "key-0"); ok || l.Size() != 0 {
		t.Errorf("after Reset the log finds an answer: %v, and has %d bytes", ok, l.Size())
	}
}

func TestLog_ExpiredIndexEndsTheSearch(t *testing.T) {
	m := newMemory()
	logs := newLogs(t, m)
	l := logs.New(wallet)
	l.indexes = []uint64{10, 20, 30}
	if _, ok, err := l.Find(t.Context(), "key-0"); ok || err != nil || m.reads != 1 || len(l.indexes) != 0 {
		t.Errorf("%v, %v after %d reads, %d indexes; want one read, and older indexes forgotten", ok, err, m.reads,
			len(l.indexes))
	}
	m.records[indexName(wallet, 40)] = []byte(`{}`)
	l.indexes = []uint64{40}
	if _, _, err := l.Find(t.Context(), "key-0"); err == nil {
		t.Error("a broken index is no error")
	}
}

func TestLog_EventsOfOneCommandAreOneAnswer(t *testing.T) {
	l := newLogs(t, newMemory()).New(wallet)
	for n := range 3 {
		e := event(0)
		e.Sequence += uint64(n)
		l.Record(e)
	}
	l.Record(journal.Event{Sequence: 50, Time: time.Now()}) // without a key
	known, _, _ := l.Find(t.Context(), "key-0")
	if want := (Answer{Fingerprint: "f", FirstSequence: 10, Events: 3}); known != want || l.newest.Len() != 1 {
		t.Errorf("%v and %d answers, want %v alone", known, l.newest.Len(), want)
	}
}

func TestLog_EventsOlderThanTheTTLMakeNoBlocks(t *testing.T) {
	l := newLogs(t, newMemory()).New(wallet)
	for n := range 300 {
		e := event(n)
		e.Time = e.Time.Add(-streams.IdempotencyTTL - time.Hour)
		l.Record(e)
	}
	if len(l.blocks) != 0 {
		t.Errorf("%d blocks of expired answers", len(l.blocks))
	}
}

func TestFlush_WaitsWhileTooManyRecordsArePending(t *testing.T) {
	m := newMemory()
	l := newLogs(t, m).New(wallet)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	recordAll(l, 0, newestAnswers+maxPending*blockAnswers)
	if err := l.Flush(ended); err != nil || l.Pending() != maxPending {
		t.Fatalf("%d records pending: %v", l.Pending(), err)
	}
	recordAll(l, newestAnswers+maxPending*blockAnswers, newestAnswers+(maxPending+1)*blockAnswers)
	if err := l.Flush(ended); !errors.Is(err, ErrBacklog) || !errors.Is(err, context.Canceled) {
		t.Errorf("one record too many: %v", err)
	}
	m.acknowledge()
	if err := l.Flush(ended); err != nil || l.Pending() != 0 {
		t.Errorf("all records are stored: %d pending, %v", l.Pending(), err)
	}
}

func TestFlush_SendsLostRecordsAgain(t *testing.T) {
	m := newMemory()
	l := newLogs(t, m).New(wallet)
	recordAll(l, 0, newestAnswers+blockAnswers)
	m.down = true
	_ = l.Flush(t.Context())
	m.down = false
	_ = l.Flush(t.Context())
	m.lose()
	_ = l.Flush(t.Context()) // notices
	_ = l.Flush(t.Context()) // sends again
	m.acknowledge()
	if err := l.Flush(t.Context()); err != nil || l.Pending() != 0 || len(m.records) != 1 {
		t.Errorf("%d pending, %d stored, %v", l.Pending(), len(m.records), err)
	}
	if _, ok, err := l.Find(t.Context(), "key-0"); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

func TestLog_SnapshotRestoresTheLog(t *testing.T) {
	m := newMemory()
	logs := newLogs(t, m)
	l := logs.New(wallet)
	recordAll(l, 0, newestAnswers+blockAnswers)
	flush(t, l, m)
	recordAll(l, newestAnswers+blockAnswers,
		newestAnswers+2*blockAnswers+10) // a full block that is not stored, and one with space
	text, err := json.Marshal(l.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	restored := logs.New(wallet)
	if err := restored.Restore(s); err != nil || restored.Pending() != 1 || restored.Size() != l.Size() {
		t.Fatalf("%v; %d pending, %d bytes, want 1, %d", err, restored.Pending(), restored.Size(), l.Size())
	}
	if diff := cmp.Diff(l.blocks, restored.blocks, cmp.AllowUnexported(block{})); diff != "" {
		t.Error(diff)
	}
	for n := range newestAnswers + 2*blockAnswers + 10 {
		if _, ok, err := restored.Find(t.Context(), fmt.Sprintf("key-%d", n)); !ok || err != nil {
			t.Fatalf("command %d: %v, %v", n, ok, err)
		}
	}
}

// TestRecords_StoredByEarlierVersions compares the records with records that the first version stored.
func TestRecords_StoredByEarlierVersions(t *testing.T) {
	stored := map[string][]byte{}
	for name, file := range map[string]string{
		"acme.wallet.w.2-64": "block.json", "acme.wallet.w.2-4096": "index.json",
	} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		stored[name] = text
	}
	const fingerprint = "4380de10bf8b7c54d08caa1dd85f3a76"
	m := newMemory()
	l := newLogs(t, m).New(wallet)
	for n := range newestAnswers + 2*indexBlocks*blockAnswers {
		l.Record(journal.Event{
			Sequence: uint64(n + 2),
			Time:     time.Now(),
			Command:  journal.CommandRef{IdempotencyKey: fmt.Sprintf("d-%d", n+1), Fingerprint: fingerprint},
		})
	}
	flush(t, l, m)
	for name, want := range stored {
		if got := string(m.records[name]); got != string(want) {
			t.Errorf("%s differs: %.200s", name, cmp.Diff(string(want), got))
		}
	}
	reader := newLogs(t, &memory{records: stored}).New(wallet)
	reader.indexes = []uint64{2}
	for n := range blockAnswers {
		known, ok, err := reader.Find(t.Context(), fmt.Sprintf("d-%d", n+1))
		if want := (Answer{Fingerprint: fingerprint, FirstSequence: uint64(n + 2), Events: 1}); err != nil || !ok ||
			known != want {
			t.Fatalf("d-%d: %v, %v, %v", n+1, known, ok, err)
		}
	}
}

// FuzzRestore searches for snapshots that are restored and cannot be used.
func FuzzRestore(f *testing.F) {
	for _, text := range []string{
		`{}`,
		`{"recent":{"r":{}},"order":["r"],"pages":[{"first":2,"hashes":"AAAAAA==","answers":{"k":{}}}]}`,
		`{"pages":[{"first":2,"hashes":"AAAAAAA=","answers":{}}]}`,
		`{"pages":[{"first":2,"hashes":"","answers":null}]}`,
		fmt.Sprintf(`{"pages":[{"first":2,"hashes":%q}],"chapters":[1]}`, make([]byte, 0, 4)),
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Snapshot
		if json.Unmarshal(text, &s) != nil {
			return
		}
		l := newLogs(t, newMemory()).New(wallet)
		if l.Restore(s) != nil {
			if l.Size() != 0 || l.Pending() != 0 {
				t.Fatal("an invalid snapshot changes the log")
			}
			return
		}
		recordAll(l, 0, newestAnswers+blockAnswers+1)
		for _, b := range l.blocks {
			for _, h := range b.hashes {
				if !b.has(h) {
					t.Fatal("a block does not find its own hash")
				}
			}
			if back, ok := b.snapshot().block(); !ok || len(back.hashes) != len(b.hashes) {
				t.Fatalf("a block of %d answers differs from its snapshot", len(b.hashes))
			}
		}
	})
}
