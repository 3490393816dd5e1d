package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// textViews returns one view of texts.
func textViews(t *testing.T) []*model.View {
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
	return m.Views()
}

// lazyStore returns a tenant's store of a pool.
func lazyStore(t *testing.T, p *pool, tenant string, views []*model.View) *handle {
	t.Helper()
	id, err := contextkit.ParseTenantID(tenant)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.opener(t.Context(), id, views, "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*handle)
}

// put applies one row.
func put(ctx context.Context, s store.Store, view *model.View, sequence uint64) error {
	return s.Apply(ctx, func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: sequence})
		return batch.Put(view, fmt.Sprint(sequence), model.Object{"text": "x"})
	})
}

func (p *pool) counts() (open, idle int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, p.idle.Len()
}

func TestPool_BoundsOpenFiles(t *testing.T) {
	views := textViews(t)
	p := newPool(t.TempDir(), 3, time.Hour)
	var stores []*handle
	for i := range 12 {
		stores = append(stores, lazyStore(t, p, fmt.Sprintf("t%d", i), views))
	}
	var users sync.WaitGroup
	for i, s := range stores {
		users.Go(func() {
			for sequence := uint64(1); sequence <= 5; sequence++ {
				if err := put(t.Context(), s, views[0], sequence); err != nil {
					t.Errorf("t%d: %v", i, err)
				}
				if open, _ := p.counts(); open > 3 {
					t.Errorf("%d files are open", open)
				}
			}
		})
	}
	users.Wait()
	for i, s := range stores {
		if sequence, err := s.State(t.Context()); err != nil || sequence.Sequence != 5 {
			t.Errorf("t%+v: checkpoint %+v, %v", i, sequence, err)
		}
	}
}

func TestPool_WaitsForFileInUse(t *testing.T) {
	views := textViews(t)
	p := newPool(t.TempDir(), 1, time.Hour)
	busy, other := lazyStore(t, p, "busy", views), lazyStore(t, p, "other", views)
	if err := put(t.Context(), busy, views[0], 1); err != nil {
		t.Fatal(err)
	}
	plan, err := query.Compile(views[0], query.Request{}, busy.Dialect())
	if err != nil {
		t.Fatal(err)
	}
	applied := make(chan error, 1)
	if _, err := busy.Query(t.Context(), views[0], plan, func(_, _ []any) error {
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := put(ended, other, views[0], 1); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want %v", err, context.Canceled)
		}
		go func() { applied <- put(t.Context(), other, views[0], 1) }()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

func TestPool_IdleFileIsCheckpointedAndClosed(t *testing.T) {
	views := textViews(t)
	dir := t.TempDir()
	p := newPool(dir, 8, time.Millisecond)
	s := lazyStore(t, p, "acme", views)
	if sequence, err := s.State(t.Context()); err != nil || sequence.Sequence != 0 {
		t.Fatalf("checkpoint %+v, %v", sequence, err)
	}
	if files, err := os.ReadDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(files) > 0 {
		t.Errorf("a store without events has %d files, %v", len(files), err)
	}
	for sequence := uint64(1); sequence < 4; sequence++ {
		if err := put(t.Context(), s, views[0], sequence); err != nil {
			t.Fatal(err)
		}
		for open := 1; open > 0; open, _ = p.counts() {
			p.mu.Lock()
			changed := p.changed
			left := p.open
			p.mu.Unlock()
			if left > 0 {
				<-changed
			}
		}
		if logs, err := filepath.Glob(filepath.Join(dir, "*-wal")); err != nil || len(logs) > 0 {
			t.Errorf("write-ahead logs %v remain (%v)", logs, err)
		}
		if got, err := s.State(t.Context()); err != nil || got.Sequence != sequence {
			t.Errorf("checkpoint %+v, %v; want %d", got, err, sequence)
		}
	}
}

func TestPool_FileThatWasRolledBackIsDamaged(t *testing.T) {
	views := textViews(t)
	p := newPool(t.TempDir(), 1, time.Hour)
	s, other := lazyStore(t, p, "acme", views), lazyStore(t, p, "other", views)
	closeIt := func() { // the other one replaces it
		t.Helper()
		if err := put(t.Context(), other, views[0], 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(t.Context(), s, views[0], 1); err != nil {
		t.Fatal(err)
	}
	closeIt()
	old, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, views[0], 2); err != nil {
		t.Fatal(err)
	}
	closeIt()
	if err := os.WriteFile(s.Path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), s, views[0], 3); !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("err = %v, want %v", err, store.ErrDamaged)
	}
	again := lazyStore(t, p, "acme", views)
	if sequence, err := again.State(t.Context()); err != nil || sequence.Sequence != 0 || again.Replaced() == nil {
		t.Errorf("checkpoint %+v (%v), replaced: %v; want empty views", sequence, err, again.Replaced())
	}
}

func TestPool_FileOfGenerationInUseIsRetained(t *testing.T) {
	views := textViews(t)
	dir := t.TempDir()
	p := newPool(dir, 1, time.Hour)
	shown := lazyStore(t, p, "acme", views)
	if err := put(t.Context(), shown, views[0], 1); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * keptGenerations {
		s, err := p.opener(t.Context(), shown.tenant, views, fmt.Sprintf("origin %d", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(put(t.Context(), s, views[0], 1), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if sequence, err := shown.State(t.Context()); err != nil || sequence.Sequence != 1 {
		t.Errorf("checkpoint %+v, %v", sequence, err)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.db")); err != nil || len(files) != keptGenerations+1 {
		t.Errorf("%d generations, %v; want %d", len(files), err, keptGenerations+1)
	}
}
