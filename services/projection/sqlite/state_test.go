package sqlite

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// layoutZero creates a file in the layout of versions that had no record per view.
var layoutZero = []string{
	`DROP TABLE "_aggregates"`, `ALTER TABLE "_checkpoint" DROP COLUMN indexed`,
	`DROP TABLE "_views"`, `ALTER TABLE "_checkpoint" DROP COLUMN views`,
	`ALTER TABLE "_checkpoint" DROP COLUMN event_sequence`,
	`ALTER TABLE "_checkpoint" DROP COLUMN event_id`, `PRAGMA user_version = 0`,
}

func openState(t *testing.T, dir string) (*Store, *model.View) {
	t.Helper()
	views := textViews(t)
	s, err := Open(t.Context(), dir, natstest.Tenant(t, "acme"), views, "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, views[0]
}

func wantState(t *testing.T, s store.Store, want store.State) {
	t.Helper()
	state, err := s.State(t.Context())
	if diff := cmp.Diff(want, state); diff != "" || err != nil {
		t.Errorf("error %v, difference %s", err, diff)
	}
}

func count(t *testing.T, s store.Store, view *model.View) (n int) {
	t.Helper()
	plan := query.Plan{OrderBy: `"` + query.KeyColumn + `"`, Limit: 100, Columns: view.Columns}
	if _, err := s.Query(t.Context(), view, plan, func(_, _ []any) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestState_FileOfEarlierLayoutIsUpgraded(t *testing.T) {
	dir := t.TempDir()
	s, view := openState(t, dir)
	if err := put(t.Context(), s, view, 7); err != nil {
		t.Fatal(err)
	}
	for _, statement := range layoutZero {
		if _, err := s.write.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, view = openState(t, dir)
	wantState(t, s, store.State{Checkpoint: store.Checkpoint{Sequence: 7}})
	if s.Replaced() != nil || count(t, s, view) != 1 {
		t.Errorf("the file was set aside: %v", s.Replaced())
	}
	if err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: 9, EventID: "e9"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, store.State{Checkpoint: store.Checkpoint{Sequence: 9, EventID: "e9"}})
}

// A program of the previous layout updates only the tenant's checkpoint, and applies events to all views.
func TestState_DetachedViewIsRebuiltAfterEarlierVersion(t *testing.T) {
	s, view := openState(t, t.TempDir())
	detached := store.ViewState{
		Checkpoint: store.Checkpoint{Sequence: 5, EventID: "e5"},
		Detached:   true,
		Failure:    "why",
	}
	skipped := store.ViewState{Skips: 3}
	if err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: 8, EventID: "e8"})
		batch.SetView(view.Name, detached)
		batch.SetView("other", skipped)
		batch.SetView("well", store.ViewState{})
		return batch.Put(view, "k", model.Object{"text": "x"})
	}); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, store.State{
		Checkpoint: store.Checkpoint{Sequence: 8, EventID: "e8"},
		Views:      map[string]store.ViewState{view.Name: detached, "other": skipped},
	})
	if _, err := s.write.ExecContext(t.Context(), `UPDATE "_checkpoint" SET sequence = max(sequence, 12)`); err != nil {
		t.Fatal(err)
	}
	anew := store.State{
		Checkpoint: store.Checkpoint{Sequence: 12},
		Views:      map[string]store.ViewState{view.Name: {Detached: true}, "other": skipped},
	}
	wantState(t, s, anew)
	if err := s.Apply(t.Context(), func(_ *store.Batch, state store.State) error {
		if diff := cmp.Diff(anew, state); diff != "" {
			t.Error(diff)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, anew)
	if n := count(t, s, view); n != 0 {
		t.Errorf("the view has %d rows, want none", n)
	}
}
