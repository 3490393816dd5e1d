//go:build linux

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/disk/disktest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// rows returns the number of a view's rows.
func rows(t *testing.T, s store.Store, view *model.View) (n int, err error) {
	t.Helper()
	plan, err := query.Compile(view, query.Request{OrderBy: "text desc", PageSize: 100}, s.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Query(t.Context(), view, plan, func(_, _ []any) error {
		n++
		return nil
	})
	return n, err
}

func TestPool_ReadsClosedFilesOnFullDisk(t *testing.T) {
	for name, crash := range map[string]bool{"closed": false, "with the log of a process that was killed": true} {
		t.Run(name, func(t *testing.T) {
			dir, views := disktest.Small(t, 8<<20), textViews(t)
			before := newPool(dir, 2, time.Hour)
			first := lazyStore(t, before, "acme", views)
			for sequence := uint64(1); sequence <= 5; sequence++ {
				if err := put(t.Context(), first, views[0], sequence); err != nil {
					t.Fatal(err)
				}
			}
			path := first.Path()
			var log []byte
			if crash {
				var err error
				if log, err = os.ReadFile(path + "-wal"); err != nil || len(log) == 0 {
					t.Fatalf("write-ahead log of %d bytes (%v)", len(log), err)
				}
				main, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := first.Close(); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(
					os.WriteFile(path, main, 0o600), os.WriteFile(path+"-wal", log, 0o600),
				); err != nil {
					t.Fatal(err)
				}
			} else if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			free := disktest.Fill(t, dir)
			s := lazyStore(t, newPool(dir, 2, time.Hour), "acme", views)
			if at, err := s.State(t.Context()); err != nil || at.Sequence != 5 {
				t.Errorf("checkpoint %+v, %v", at, err)
			}
			for range 3 { // each opens the file
				if n, err := rows(t, s, views[0]); err != nil || n != 5 {
					t.Errorf("%d rows (%v)", n, err)
				}
			}
			large := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
				batch.Advance(store.Checkpoint{Sequence: 6})
				return batch.Put(views[0], "6", model.Object{"text": strings.Repeat("x", 1<<20)})
			})
			if !errors.Is(large, store.ErrFull) {
				t.Errorf("error %v, want one that the disk is full", large)
			}
			if n, err := rows(t, s, views[0]); err != nil || n != 5 {
				t.Errorf("after a failed write: %d rows, %v", n, err)
			}
			free()
			if err := put(t.Context(), s, views[0], 6); err != nil {
				t.Error(err)
			}
			if n, err := rows(t, s, views[0]); err != nil || n != 6 {
				t.Errorf("with space: %d rows, %v", n, err)
			}
			s.pool.mu.Lock()
			if s.store == nil || s.store.single {
				t.Error("once there is space, the file still has one connection")
			}
			s.pool.mu.Unlock()
			for _, file := range mustGlob(t, dir) {
				if strings.Contains(file, "damaged") {
					t.Errorf("%s was set aside", file)
				}
			}
		})
	}
}

func mustGlob(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range found {
		names = append(names, fmt.Sprint(file.Name()))
	}
	return names
}
