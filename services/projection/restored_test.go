package projection_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// overRestorable runs a test with each kind of store. save copies acme's views, and restore brings the copy back, in
// one transaction, while nodes use them.
func overRestorable(t *testing.T, test func(t *testing.T, open store.Opener, save func(*testing.T) (restore func()))) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		test(t, sqlite.In(dir), func(t *testing.T) func() {
			path, saved := fileOf(t, dir, "acme"), filepath.Join(t.TempDir(), "saved")
			execute := func(statements ...string) {
				t.Helper()
				db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
				if err != nil {
					t.Fatal(err)
				}
				db.SetMaxOpenConns(1)
				for _, statement := range statements {
					if _, err := db.ExecContext(t.Context(), statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			execute(fmt.Sprintf(`VACUUM INTO '%s'`, saved))
			return func() {
				statements := []string{fmt.Sprintf(`ATTACH '%s' AS saved`, saved), `BEGIN IMMEDIATE`}
				for _, table := range tables(t, path) {
					statements = append(statements, fmt.Sprintf(`DELETE FROM main.%q`, table),
						fmt.Sprintf(`INSERT INTO main.%q SELECT * FROM saved.%q`, table, table))
				}
				execute(append(statements, `COMMIT`)...)
			}
		})
	})
	t.Run("postgres", func(t *testing.T) {
		s, err := server()
		if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("HEADGATE_POSTGRES") == "" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		url := s.Database(t)
		database, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(database.Close)
		test(t, database.Views, func(t *testing.T) func() {
			each := func(statements func(schema, table string) []string) {
				t.Helper()
				conn, err := pgx.Connect(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = conn.Close(t.Context()) }()
				rows, err := conn.Query(t.Context(),
					`SELECT schemaname, tablename FROM pg_tables WHERE schemaname LIKE 'views_%' ORDER BY tablename`)
				if err != nil {
					t.Fatal(err)
				}
				all := []string{`SELECT set_config('headgate.tenant', 'acme', true)`}
				var schema, table string
				if _, err := pgx.ForEachRow(rows, []any{&schema, &table}, func() error {
					all = append(all, statements(schema, table)...)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
					for _, statement := range all {
						if _, err := tx.Exec(t.Context(), statement); err != nil {
							return fmt.Errorf("%s: %w", statement, err)
						}
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			each(func(schema, table string) []string {
				return []string{
					fmt.Sprintf(`CREATE TABLE public."saved %s" AS SELECT * FROM %q.%q`, table, schema, table),
				}
			})
			return func() {
				each(func(schema, table string) []string {
					return []string{
						fmt.Sprintf(`DELETE FROM %q.%q`, schema, table),
						fmt.Sprintf(`INSERT INTO %q.%q SELECT * FROM public."saved %s"`, schema, table, table),
					}
				})
			}
		})
	})
}

// tables returns the names of the tables of a SQLite file.
func tables(t *testing.T, path string) (names []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(),
		`SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// balances returns acme's wallets as `w0=1 w1=101 …`, with every appended event applied.
func (f *fixture) balances(t *testing.T) (string, error) {
	t.Helper()
	res, err := f.client.Query(as(t, "acme"),
		&projectionv1.QueryRequest{View: "wallets", MinPosition: f.position(t, "acme")})
	return balancesOf(res), err
}

func balancesOf(res *projectionv1.QueryResponse) string {
	var parts []string
	for _, row := range res.GetRows() {
		parts = append(parts, fmt.Sprintf("%v=%v", row.AsMap()["wallet_id"], row.AsMap()["balance"]))
	}
	return strings.Join(parts, " ")
}

// wants waits until a read of everything that was appended returns what is wanted. Until then every read must be
// UNAVAILABLE or time out.
func (f *fixture) wants(t *testing.T, want string) {
	t.Helper()
	within(t, want, func() bool {
		got, err := f.balances(t)
		if code := connect.CodeOf(err); err != nil && code != connect.CodeUnavailable &&
			code != connect.CodeDeadlineExceeded {
			t.Fatal(err)
		}
		if err == nil && got != want {
			t.Fatalf("rows %s, want %s", got, want)
		}
		return err == nil
	})
}

func TestRestore_ViewsCatchUpAgain(t *testing.T) {
	const filled, all = "w0=1 w1=101 w2=201 w3=1 w4=101", "w0=8 w1=101 w2=201 w3=2 w4=101 w5=0"
	later := func(t *testing.T, f *fixture) {
		t.Helper()
		f.append(t, "acme", "w0", "deposited", `{"amount":7,"reference":""}`)
		f.append(t, "acme", "w5", "opened", `{"owner":"zoe"}`)
		f.append(t, "acme", "w3", "deposited", `{"amount":1,"reference":""}`)
	}
	overRestorable(t, func(t *testing.T, open store.Opener, save func(*testing.T) func()) {
		js := natstest.Start(t)
		f := start(t, js, open, model.Wallet)
		f.fill(t)
		f.wants(t, filled)
		restore := save(t)
		later(t, f)
		f.wants(t, all)
		watcher := f.watch(t, &projectionv1.WatchRequest{})
		defer watcher.close()
		watcher.until(t, all)

		t.Run("detected by a query", func(t *testing.T) {
			restore()
			_, err := f.balances(t)
			if connect.CodeOf(err) != connect.CodeUnavailable || reasonOf(err).GetReason() != "VIEWS_BUILDING" ||
				!strings.Contains(err.Error(), "earlier state") {
				t.Errorf("first read: %v, want UNAVAILABLE", err)
			}
			f.wants(t, all)
			if n := gathered(t, f.service)["headgate_projection_restored_total{}"]; n != 1 {
				t.Errorf("%v restores counted, want 1", n)
			}
			if _, err := watcher.receive(); connect.CodeOf(err) != connect.CodeUnavailable {
				t.Errorf("watcher: got %v, want its end", err)
			}
			again := f.watch(t, &projectionv1.WatchRequest{After: watcher.position})
			defer again.close()
			again.until(t, all)
			if again.resets != 1 {
				t.Errorf("watcher resuming with a lost position: %d resets, want 1", again.resets)
			}
		})
		t.Run("detected by an event", func(t *testing.T) {
			before := gathered(t, f.service)["headgate_projection_restored_total{}"]
			restore()
			f.append(t, "acme", "w1", "deposited", `{"amount":1000,"reference":""}`)
			within(t, "the views are at the newest event", func() bool {
				return gathered(t, f.service)["headgate_projection_restored_total{}"] == before+1
			})
			f.wants(t, strings.Replace(all, "w1=101", "w1=1101", 1))
		})
		t.Run("detected by two nodes", func(t *testing.T) {
			if strings.Contains(t.Name(), "sqlite") {
				t.Skip("nodes do not share a file")
			}
			want := strings.Replace(all, "w1=101", "w1=1101", 1)
			second := start(t, js, open, model.Wallet)
			second.last, second.versions, second.sequence = f.last, f.versions, f.sequence
			second.wants(t, want)
			restore()
			f.append(t, "acme", "w2", "deposited", `{"amount":1000,"reference":""}`)
			want = strings.Replace(want, "w2=201", "w2=1201", 1)
			second.wants(t, want)
			f.wants(t, want)
			second.stop()
		})
		t.Run("before the start", func(t *testing.T) {
			f.stop()
			restore()
			again := start(t, js, open, model.Wallet)
			again.last, again.versions, again.sequence = f.last, f.versions, f.sequence
			want := strings.Replace(all, "w1=101", "w1=1101", 1)
			if !strings.Contains(t.Name(), "sqlite") {
				want = strings.Replace(want, "w2=201", "w2=1201", 1)
			}
			again.wants(t, want)
		})
	})
}

// A view that is detached, or was in step when the database was saved, goes back like the others.
func TestRestore_DetachedViewsCatchUpAgain(t *testing.T) {
	overRestorable(t, func(t *testing.T, open store.Opener, save func(*testing.T) func()) {
		f := start(t, natstest.Start(t), open, source(orders))
		failed := func(n int) {
			t.Helper()
			within(t, "the view fails, and the others continue", func() bool {
				_, err := f.rows(t, "cities")
				m, other := f.rows(t, "plain")
				for _, err := range []error{err, other} {
					if code := connect.CodeOf(err); err != nil && code != connect.CodeUnavailable &&
						code != connect.CodeFailedPrecondition && code != connect.CodeDeadlineExceeded {
						t.Fatal(err)
					}
				}
				if err == nil || other == nil && m != n {
					t.Fatalf("failed view: %v; other view: %d rows, want %d: %v", err, m, n, other)
				}
				return other == nil && reasonOf(err).GetReason() == "VIEW_FAILED"
			})
		}
		f.append(t, "acme", "w0", "placed", placed(""))
		within(t, "the view exists", func() bool { n, err := f.rows(t, "cities"); return err == nil && n == 1 })
		well := save(t)
		f.append(t, "acme", "w1", "placed", placed("address={}"))
		f.append(t, "acme", "w2", "placed", placed(""))
		failed(3)
		well()
		failed(3)
		f.append(t, "acme", "w3", "placed", placed(""))
		well()
		f.append(t, "acme", "w4", "placed", placed(""))
		failed(5)
		well()
		f.skip(t, "cities", false)
		within(t, "the view continues without the event",
			func() bool { n, err := f.rows(t, "cities"); return err == nil && n == 4 })
		well()
		within(t, "the view continues after another restore",
			func() bool { n, err := f.rows(t, "cities"); return err == nil && n == 4 })
	})
}
