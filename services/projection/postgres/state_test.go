package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

func exec(t *testing.T, s *Store, statements ...string) {
	t.Helper()
	if err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if err := s.enter(t.Context(), tx); err != nil {
			return err
		}
		for _, statement := range statements {
			if _, err := tx.Exec(t.Context(), statement); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
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

func TestState_IsPerTenantAndSurvivesEarlierVersions(t *testing.T) {
	d, _, _ := database(t)
	s := open(t, d, "acme", "o")
	view := s.views[0]
	if err := put(t.Context(), s, view, 7, "k", "x"); err != nil {
		t.Fatal(err)
	}
	// Change the generation to what a node of the previous version makes.
	exec(t, s, `DROP TABLE _views`, `DROP TABLE _aggregates`, `ALTER TABLE _checkpoint DROP COLUMN event_id,
		DROP COLUMN event_sequence, DROP COLUMN views, DROP COLUMN indexed`)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d, "acme", "o")
	other := open(t, d, "globex", "o")
	wantState(t, s, store.State{Checkpoint: store.Checkpoint{Sequence: 7}})
	detached := store.ViewState{
		Checkpoint: store.Checkpoint{Sequence: 5, EventID: "e5"},
		Detached:   true,
		Failure:    "why\x00",
	}
	skipped := store.ViewState{Skips: 3}
	if err := s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: 8, EventID: "e8"})
		batch.SetView(view.Name, detached)
		batch.SetView("other", skipped)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, store.State{
		Checkpoint: store.Checkpoint{Sequence: 8, EventID: "e8"},
		Views:      map[string]store.ViewState{view.Name: detached, "other": skipped},
	})
	wantState(t, other, store.State{})
	// A node of the previous version updates only the tenant's checkpoint, and applies events to all views.
	exec(t, s, `UPDATE _checkpoint SET sequence = greatest(sequence, 12) WHERE _tenant = 'acme'`)
	anew := store.State{
		Checkpoint: store.Checkpoint{Sequence: 12},
		Views:      map[string]store.ViewState{view.Name: {Detached: true}, "other": skipped},
	}
	wantState(t, s, anew)
	if err := s.Apply(t.Context(), func(*store.Batch, store.State) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantState(t, s, anew)
	if n := count(t, s, view); n != 0 {
		t.Errorf("the view has %d rows, want none", n)
	}
}

// Text that does not compress exceeds the size limit of PostgreSQL's indexes.
func TestApply_RejectedRowIsReported(t *testing.T) {
	d, _, _ := database(t)
	s := open(t, d, "acme", "o")
	var text strings.Builder
	for i := range 4000 {
		text.WriteRune(rune('!' + i*7919%13007))
	}
	err := put(t.Context(), s, s.views[0], 1, "k", text.String())
	rejected, ok := errors.AsType[*store.RejectedError](err)
	if !ok || rejected.View != "notes" || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if err := put(t.Context(), s, s.views[0], 1, "k", "short"); err != nil {
		t.Error(err)
	}
}
