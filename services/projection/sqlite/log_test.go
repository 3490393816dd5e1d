package sqlite

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// open1 opens a store with a view of texts, in a new directory.
func open1(t *testing.T) (*Store, *model.View) {
	t.Helper()
	m, err := model.Parse("texts.yaml", []byte(`model: texts
aggregates:
  text:
    commands: {write: {emit: [{event: written, data: {text: cmd.text}}]}}
    evolve: {written: {text: event.text}}
views:
  texts: {columns: {text: string}, on: {text.written: {upsert: {text: event.text}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.View("texts")
	s, err := Open(t.Context(), t.TempDir(), tenant, m.Views(), "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, view
}

// While reads overlap without a pause, SQLite never restarts its log itself.
func TestStore_LogIsBoundedDuringContinuousReads(t *testing.T) {
	s, view := open1(t)
	s.maxLog = 1 << 20
	put := func(sequence uint64, rows int) {
		t.Helper()
		err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
			batch.Advance(store.Checkpoint{Sequence: sequence})
			for i := range rows {
				if err := batch.Put(
					view, fmt.Sprintf("k%03d", i), model.Object{"text": strings.Repeat("x", 1000+int(sequence))},
				); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(1, 100)
	plan, err := query.Compile(view, query.Request{PageSize: 1000}, s.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	// Each reader waits within its read until another one has begun, so that a read is always running.
	stop, readers := make(chan struct{}), sync.WaitGroup{}
	turns := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				_, err := s.Query(t.Context(), view, plan, func(_, _ []any) error {
					select {
					case <-turns:
					case turns <- struct{}{}:
					case <-stop:
					default:
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	greatest := int64(0)
	for sequence := uint64(2); sequence < 80; sequence++ {
		put(sequence, 100)
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		greatest = max(greatest, info.Size())
	}
	close(stop)
	readers.Wait()
	if greatest > 3*s.maxLog {
		t.Errorf("the log has %d bytes, want at most %d", greatest, s.maxLog)
	}
}

// A log without readers is truncated at its bound.
func TestStore_LogIsTruncatedAboveItsBound(t *testing.T) {
	s, view := open1(t)
	s.maxLog = 1 << 20
	// A running read prevents that the log is truncated.
	tx, err := s.read.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := tx.QueryRowContext(t.Context(), `SELECT count(*) FROM "view_texts"`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	size := func() int64 {
		info, err := os.Stat(s.path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	sequence := uint64(0)
	put := func() {
		t.Helper()
		sequence++
		err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
			batch.Advance(store.Checkpoint{Sequence: sequence})
			return batch.Put(view, fmt.Sprint(sequence), model.Object{"text": strings.Repeat("x", 500_000)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		put()
	}
	if size() <= s.maxLog {
		t.Fatalf("the log has %d bytes during a read", size())
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	for range 50 { // on a slow machine the first attempts exceed their time
		if put(); size() == 0 {
			return
		}
	}
	t.Errorf("the log has %d bytes after the read", size())
}
