package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// database starts a server with an empty database.
func database(t *testing.T) (*Database, *postgrestest.Server, string) {
	t.Helper()
	server, err := postgrestest.Start()
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("HEADGATE_POSTGRES") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	url := server.Database(t)
	d, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, server, url
}

// notes is a model with one view of texts.
func notes(t *testing.T) []*model.View {
	t.Helper()
	m, err := model.Parse("notes.yaml", []byte(`model: notes
aggregates:
  note:
    commands: {write: {emit: [{event: written, data: {text: cmd.text}}]}}
    evolve: {written: {text: event.text}}
views:
  notes: {columns: {text: {type: string, index: true}, n: int}, on: {note.written: {upsert: {text: event.text, n: 1}}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	return m.Views()
}

func open(t *testing.T, d *Database, tenant, origin string) *Store {
	t.Helper()
	s, err := d.Views(t.Context(), natstest.Tenant(t, tenant), notes(t), origin)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*Store)
}

func put(ctx context.Context, s *Store, view *model.View, sequence uint64, key, text string) error {
	return s.Apply(ctx, func(b *store.Batch, _ store.State) error {
		b.Advance(store.Checkpoint{Sequence: sequence})
		return b.Put(view, key, model.Object{"text": text, "n": int64(1)})
	})
}

func TestDatabase_RowLevelSecuritySeparatesTenants(t *testing.T) {
	d, _, url := database(t)
	view := notes(t)[0]
	acme, globex := open(t, d, "acme", "o"), open(t, d, "globex", "o")
	if err := errors.Join(
		put(t.Context(), acme, view, 1, "k", "ours"), put(t.Context(), globex, view, 1, "k", "theirs"),
	); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	count := func(tx pgx.Tx, statement string) (n int, err error) {
		return n, tx.QueryRow(t.Context(), statement).Scan(&n)
	}
	// Any SQL in a transaction for acme reads only acme's rows.
	err = pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		if err := acme.enter(t.Context(), tx); err != nil {
			return err
		}
		for statement, want := range map[string]int{
			"SELECT count(*) FROM view_notes":                          1,
			"SELECT count(*) FROM view_notes WHERE _tenant = 'globex'": 0,
			"SELECT count(*) FROM view_notes WHERE text = 'theirs'":    0,
			"SELECT count(*) FROM _checkpoint":                         1,
		} {
			if n, err := count(tx, statement); err != nil || n != want {
				t.Errorf("%s: %d, %v; want %d", statement, n, err, want)
			}
		}
		tag, err := tx.Exec(t.Context(), "DELETE FROM view_notes WHERE _tenant = 'globex'")
		if err != nil || tag.RowsAffected() != 0 {
			t.Errorf("acme deletes %d rows of globex (%v)", tag.RowsAffected(), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(
		t.Context(),
		fmt.Sprintf(
			"BEGIN; SET LOCAL search_path TO %q; SET LOCAL headgate.tenant TO 'acme'; INSERT INTO view_notes VALUES "+
				"('globex', 'x', 'y', 1); COMMIT",
			acme.schema,
		),
	); err == nil {
		t.Error("acme writes a row of globex")
	}
	_, _ = conn.Exec(t.Context(), "ROLLBACK")
	var n int
	if err := conn.QueryRow(
		t.Context(), fmt.Sprintf("SELECT count(*) FROM %q.view_notes", acme.schema),
	).Scan(&n); err == nil && n > 0 {
		t.Errorf("a transaction without a tenant reads %d rows", n)
	}
}

func TestOpen_UserExemptFromRowLevelSecurityIsRejected(t *testing.T) {
	_, server, _ := database(t)
	if _, err := Open(t.Context(), server.URL("postgres", "postgres")); !errors.Is(err, ErrUnsafeRole) {
		t.Errorf("open as a superuser: %v", err)
	}
}

func TestApply_NodesOfSameTenantTakeTurns(t *testing.T) {
	d, _, _ := database(t)
	view := notes(t)[0]
	const events = 200
	var group errgroup.Group
	for range 4 {
		s := open(t, d, "acme", "o")
		group.Go(func() error {
			for next := uint64(1); next <= events; next++ {
				err := s.Apply(t.Context(), func(b *store.Batch, state store.State) error {
					b.Advance(store.Checkpoint{Sequence: next})
					for event := state.Sequence + 1; event <= next; event++ {
						row, err := b.Row(t.Context(), view, "counter")
						if err != nil {
							return err
						}
						n := int64(0)
						if row != nil {
							n = row["n"].(int64)
						}
						if err := b.Put(view, "counter", model.Object{"n": n + 1}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s := open(t, d, "acme", "o")
	state, err := s.Query(
		t.Context(), view, store.ByKey(view, query.PostgreSQL, "counter"), func(values, _ []any) error {
			if values[1] != int64(events) {
				t.Errorf("four nodes applied %v of %d events", values[1], events)
			}
			return nil
		},
	)
	if err != nil || state.Sequence != events {
		t.Errorf("state %+v (%v)", state, err)
	}
}

func TestStore_AnyTextRoundTrips(t *testing.T) {
	d, _, _ := database(t)
	view := notes(t)[0]
	s := open(t, d, "acme", "o")
	sequence := uint64(0)
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(
			rapid.String(),
			rapid.SampledFrom(
				[]string{"\x00", "a\x00b", "\uFFFE", "\uFFFE0", "\x00\uFFFE1", "", "'; DROP TABLE view_notes; --"},
			),
		).Draw(t, "text")
		text = strings.ToValidUTF8(text, "?") // as in JSON
		sequence++
		if err := put(context.Background(), s, view, sequence, text, text); err != nil {
			t.Fatal(err)
		}
		found := 0
		plan, err := query.Compile(view, query.Request{}, query.PostgreSQL)
		if err != nil {
			t.Fatal(err)
		}
		plan.Where, plan.Args = "text = $1", []any{text}
		_, err = s.Query(context.Background(), view, plan, func(values, _ []any) error {
			found++
			if values[0] != text {
				t.Errorf("stored %q is read as %q", text, values[0])
			}
			return nil
		})
		if err != nil || found != 1 {
			t.Fatalf("%q is found %d times (%v), want once", text, found, err)
		}
	})
}

// generationTests is the fixture of tests of generations.
type generationTests struct {
	d    *Database
	view *model.View
}

// checkpoint opens a generation, closes it again, and returns the tenant's checkpoint in it.
func (g generationTests) checkpoint(t *testing.T, origin string) uint64 {
	t.Helper()
	s := open(t, g.d, "acme", origin)
	state, err := s.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return state.Sequence
}

// age moves the last use of all generations into the past, and preserves their order.
func (g generationTests) age(t *testing.T, d time.Duration) {
	t.Helper()
	if _, err := g.d.pool.Exec(
		t.Context(), `UPDATE headgate.generations SET used = used - $1 * interval '1 second'`, int64(d.Seconds()),
	); err != nil {
		t.Fatal(err)
	}
}

func TestGenerations_PreviousOneIsRetained(t *testing.T) {
	d, _, _ := database(t)
	g := generationTests{d, notes(t)[0]}
	one := open(t, d, "acme", "one")
	if err := put(t.Context(), one, g.view, 7, "k", "old"); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if n := g.checkpoint(t, "two"); n != 0 {
		t.Errorf("checkpoint of a new generation: %d, want 0", n)
	}
	if n := g.checkpoint(t, "one"); n != 7 {
		t.Errorf("checkpoint of the previous generation: %d, want 7, because it serves until the last node is upgraded",
			n)
	}
	g.age(t, 2*unusedFor)
	g.checkpoint(t, "three")
	g.age(t, 2*unusedFor)
	g.checkpoint(t, "four") // drops the second, which was used longest ago
	if n := g.checkpoint(t, "one"); n != 7 {
		t.Errorf("checkpoint after a rollback to the previous generation: %d, want 7", n)
	}
	if err := put(t.Context(), open(t, d, "acme", "four"), g.view, 9, "k", "shown"); err != nil { // and stays in use
		t.Fatal(err)
	}
	for _, origin := range []string{"five", "six", "seven", "eight"} {
		g.age(t, 2*unusedFor)
		g.checkpoint(t, origin)
	}
	if n := g.checkpoint(t, "four"); n != 9 {
		t.Errorf("checkpoint of the generation in use: %d, want 9", n)
	}
	if n := g.checkpoint(t, "one"); n != 0 {
		t.Errorf("the least recently used generation still exists, at %d", n)
	}
}

// A generation that another node uses is not dropped while that node renews it, and for an hour after.
func TestGenerations_InUseByAnotherNodeIsRetained(t *testing.T) {
	d, _, url := database(t)
	g := generationTests{d, notes(t)[0]}
	other, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	shown := open(t, other, "acme", "shown")
	if err := put(t.Context(), shown, g.view, 7, "k", "there"); err != nil {
		t.Fatal(err)
	}
	many := []string{"one", "two", "three", "four", "five", "six"}
	for _, origin := range many { // within an hour
		g.checkpoint(t, origin)
	}
	for _, origin := range many { // for longer, with a renewal from time to time
		g.age(t, unusedFor/2)
		if err := other.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.checkpoint(t, origin+" again")
	}
	if n, err := shown.State(t.Context()); err != nil || n.Sequence != 7 {
		t.Fatalf("checkpoint of the generation that another node uses: %+v (%v)", n, err)
	}
	// A node that was disconnected for longer rebuilds it.
	for _, origin := range many {
		g.age(t, 2*unusedFor)
		g.checkpoint(t, origin+" later")
	}
	if _, err := shown.State(t.Context()); !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("checkpoint of a dropped generation: %v, want %v", err, store.ErrDamaged)
	}
	if err := put(t.Context(), shown, g.view, 8, "k", "there"); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("Apply to a dropped generation: %v", err)
	}
	if err := shown.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := open(t, other, "acme", "shown").State(t.Context()); err != nil || n.Sequence != 0 {
		t.Errorf("checkpoint of the rebuilt generation: %+v (%v)", n, err)
	}
}

// Generations of earlier versions are found under their existing names.
func TestGenerations_NamesStayUnlessTruncated(t *testing.T) {
	d, _, _ := database(t)
	if s := open(t, d, "acme", "o"); s.schema != "views_65c74c15a686187b" {
		t.Errorf("name of the generation: %s", s.schema)
	}
	long := &model.View{Name: strings.Repeat("x", 60), Columns: notes(t)[0].Columns}
	s, err := d.Views(t.Context(), natstest.Tenant(t, "acme"), []*model.View{long}, "o")
	if err != nil {
		t.Fatal(err)
	}
	if name := s.(*Store).schema; name == "views_65c74c15a686187b" {
		t.Errorf("two views with long names share the generation %s", name)
	}
}
