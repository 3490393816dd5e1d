package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	_ "modernc.org/sqlite"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

type projectionCommand struct {
	Events int           `default:"300000" help:"Events to apply in each round."`
	Rows   int           `default:"1000000" help:"Rows to query."`
	Rounds int           `default:"3" help:"Rounds of each."`
	Length time.Duration `default:"3s" help:"Length of a round of queries."`
	Only   string        `enum:",apply,query" default:"" help:"Measure one of the two alone."`
}

// document is one view of notes.
const document = `model: notes
aggregates:
  note:
    commands: {write: {emit: [{event: written, data: {owner: cmd.owner, amount: cmd.amount}}]}}
    evolve: {written: {owner: event.owner}}
views:
  notes:
    columns: {note_id: string, owner: {type: string, index: true}, amount: {type: int, index: true}, at: timestamp}
    on:
      note.written: {upsert: {note_id: meta.aggregate_id, owner: event.owner, amount: event.amount, at: meta.time}}
`

func source(context.Context) (string, []byte, error) { return "notes.yaml", []byte(document), nil }

// batch is the maximum number of events that the follower commits together.
const batch = 2048

// together is the number of rows that the store writes with one statement.
const together = 16

// leastRows is the smallest number of rows with which each of the 1,000 owners has a full page.
const leastRows = 120_000

// Run prints a table.
func (c *projectionCommand) Run(ctx context.Context) error {
	if c.Only != "apply" && c.Rows < leastRows {
		return fmt.Errorf("--rows is %d: a page of 101 rows of one owner needs at least %d", c.Rows, leastRows)
	}
	fmt.Printf("| SQLite | the projection | raw SQLite, the same SQL | share |\n|---|---|---|---|\n")
	if c.Only != "query" {
		if err := c.apply(ctx); err != nil {
			return err
		}
	}
	if c.Only == "apply" {
		return nil
	}
	return c.query(ctx)
}

// apply compares following a journal with writing the same rows.
func (c *projectionCommand) apply(ctx context.Context) (err error) {
	p, err := startPlatform(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	ctx = contextkit.TenantContext(ctx, p.tenant)
	eventLog, err := journal.Open(ctx, p.js)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "writing %d events\n", c.Events)
	for n := range c.Events {
		event := journal.Event{
			ID:            uuid.NewString(),
			Type:          "written",
			AggregateType: "note",
			AggregateID:   fmt.Sprintf("n%d", n),
			Version:       1,
			Time:          time.Now(),
			Data:          fmt.Appendf(nil, `{"owner":"o%d","amount":%d}`, n%1000, n),
		}
		if err := eventLog.Append(ctx, p.tenant, 0, []journal.Event{event}); err != nil {
			return err
		}
	}
	rates, err := contest(ctx, c.Rounds, 0,
		contender{"raw", func(ctx context.Context, _ time.Time) (float64, error) {
			return float64(c.Events), c.rawApply(ctx, filepath.Join(p.dir, uuid.NewString()), together)
		}},
		contender{"raw, one by one", func(ctx context.Context, _ time.Time) (float64, error) {
			return float64(c.Events), c.rawApply(ctx, filepath.Join(p.dir, uuid.NewString()), 1)
		}},
		contender{"projection", func(ctx context.Context, _ time.Time) (float64, error) {
			return float64(c.Events), p.follow(ctx, filepath.Join(p.dir, uuid.NewString()))
		}},
	)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("apply, %d events in batches of %d, checkpoint included", c.Events, batch), rates, "raw")
	report("the same against a statement a row", rates, "raw, one by one")
	return nil
}

// follow runs a projection from an empty store until it has applied all events.
func (p *platform) follow(ctx context.Context, dir string) (err error) {
	models, err := model.Open(ctx, source)
	if err != nil {
		return err
	}
	service, err := projection.New(ctx, projection.Config{}, p.js, models, rpc.NewTenants(p.tenant), sqlite.In(dir),
		nil, zerolog.Nop())
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- service.Run(running) }()
	err = ready(ctx, service, p.tenant)
	stop()
	return errors.Join(err, <-done, service.Close())
}

// ready waits until a tenant's views are built.
func ready(ctx context.Context, service *projection.Service, tenant contextkit.TenantID) error {
	for service.Ready(ctx, tenant) != nil {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// rawApply writes the rows of the events, a number of them (together) with each statement.
func (c *projectionCommand) rawApply(ctx context.Context, dir string, together int) error {
	db, err := openRaw(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	const row = "(?, ?, ?, ?, ?)"
	put, err := db.PrepareContext(
		ctx,
		`INSERT OR REPLACE INTO "view_notes" ("_key", "note_id", "owner", "amount", "at") VALUES `+row+
			strings.Repeat(", "+row, together-1),
	)
	if err != nil {
		return err
	}
	for first := 0; first < c.Events; first += batch {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		for n := first; n < min(first+batch, c.Events); n += together {
			var args []any
			for n := n; len(args) < together*5; n++ {
				id := fmt.Sprintf("n%d", n)
				args = append(args, id, id, fmt.Sprintf("o%d", n%1000), n, "2026-01-01T00:00:00.000000000Z")
			}
			//nolint:sqlclosecheck // the transaction closes its statements
			if _, err := tx.StmtContext(ctx, put).ExecContext(ctx, args...); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE "_checkpoint" SET sequence = max(sequence, ?)`, first); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// openRaw creates a database file with the settings of the store.
func openRaw(ctx context.Context, dir string) (*sql.DB, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := sql.Open(
		"sqlite",
		"file:"+filepath.Join(dir, "raw.db")+
			"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=wal_autocheckpoint(4096)&_pragma=temp_store(MEMORY)",
	)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	for _, statement := range []string{
		`CREATE TABLE "_checkpoint" (one INTEGER PRIMARY KEY, sequence INTEGER NOT NULL)`,
		`INSERT INTO "_checkpoint" VALUES (1, 0)`,
		`CREATE TABLE "view_notes" ("_key" TEXT PRIMARY KEY, "note_id" TEXT, "owner" TEXT, "amount" INTEGER, "at" TEXT) WITHOUT ROWID`,
		`CREATE INDEX "view_notes_owner" ON "view_notes" ("owner", "_key")`,
		`CREATE INDEX "view_notes_amount" ON "view_notes" ("amount", "_key")`,
	} {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	return db, nil
}

// query compares queries of a view with many rows through the service with the same SQL.
func (c *projectionCommand) query(ctx context.Context) (err error) {
	p, err := startPlatform(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	models, err := model.Open(ctx, source)
	if err != nil {
		return err
	}
	view := models.Current().Views()[0]
	var rows store.Store
	// The rows are written by the store itself: only reading is measured.
	open := sqlite.In(filepath.Join(p.dir, "views"))
	service, err := projection.New(
		contextkit.TenantContext(ctx, p.tenant), projection.Config{}, p.js, models, rpc.NewTenants(p.tenant),
		func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (store.Store, error) {
			var err error
			rows, err = open(ctx, tenant, views, origin)
			return rows, err
		}, nil, zerolog.Nop(),
	)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	fmt.Fprintf(os.Stderr, "writing %d rows\n", c.Rows)
	for first := 0; first < c.Rows; first += 10_000 {
		err := rows.Apply(ctx, func(b *store.Batch, _ store.State) error {
			b.Advance(store.Checkpoint{Sequence: 0})
			for n := first; n < min(first+10_000, c.Rows); n++ {
				id := fmt.Sprintf("n%d", n)
				row := model.Object{
					"note_id": id, "owner": fmt.Sprintf("o%d", n%1000), "amount": int64(n * 7919 % c.Rows),
					"at": "2026-01-01T00:00:00.000000000Z",
				}
				if err := b.Put(view, id, row); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- service.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-done)
	}()
	if err := ready(ctx, service, p.tenant); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "views", "*.db"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("the view's file: %v, %w", files, err)
	}
	db, err := sql.Open("sqlite", "file:"+files[0]+"?_pragma=journal_mode(WAL)&_pragma=wal_autocheckpoint(4096)")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	server := connect.NewServer(contextkit.ServerInterceptor)
	service.Register(server)
	client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(connectinprocess.New(server)))
	ctx = contextkit.TenantContext(ctx, p.tenant)
	repeat := func(ask func(n int) error) func(context.Context, time.Time) (float64, error) {
		return func(_ context.Context, until time.Time) (float64, error) {
			n := 0
			for ; time.Now().Before(until); n++ {
				if err := ask(n); err != nil {
					return 0, err
				}
			}
			return float64(n), nil
		}
	}
	key := func(n int) string { return fmt.Sprintf("n%d", n*7907%c.Rows) }
	gets, err := contest(ctx, c.Rounds, c.Length,
		contender{
			"raw", repeat(func(n int) error { _, err := rawRows(ctx, db, `"_key" = ?`, "", 1, key(n)); return err }),
		},
		contender{"projection", repeat(func(n int) error {
			_, err := client.Get(ctx, &projectionv1.GetRequest{View: "notes", Key: key(n)})
			return err
		})},
	)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("get by key, of %d rows", c.Rows), gets, "raw")
	pages, err := contest(ctx, c.Rounds, c.Length,
		contender{"raw", repeat(func(n int) error {
			found, err := rawRows(ctx, db, `("owner" = ? AND "amount" > ?)`, `"amount" DESC, `, 101,
				fmt.Sprintf("o%d", n%1000), 1000)
			if err == nil && found != 101 {
				err = fmt.Errorf("%d rows", found)
			}
			return err
		})},
		contender{"projection", repeat(func(n int) error {
			res, err := client.Query(ctx, &projectionv1.QueryRequest{View: "notes", Query: &projectionv1.Query{
				Filter: fmt.Sprintf(`owner = "o%d" AND amount > 1000`, n%1000), OrderBy: "amount desc", PageSize: 100,
			}})
			if err == nil && len(res.GetRows()) != 100 {
				err = fmt.Errorf("%d rows", len(res.GetRows()))
			}
			return err
		})},
	)
	if err != nil {
		return err
	}
	report(fmt.Sprintf("page of 100, filtered and ordered, of %d rows", c.Rows), pages, "raw")
	return nil
}

// rawRows reads rows in a transaction with the checkpoint, as the store does.
func rawRows(ctx context.Context, db *sql.DB, where, order string, limit int, args ...any) (n int, err error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }()
	var sequence int64
	if err := tx.QueryRowContext(ctx, `SELECT sequence FROM "_checkpoint"`).Scan(&sequence); err != nil {
		return 0, err
	}
	rows, err := tx.QueryContext(
		ctx,
		fmt.Sprintf(
			`SELECT "note_id", "owner", "amount", "at" FROM "view_notes" WHERE %s ORDER BY %s"_key" ASC LIMIT %d`,
			where, order, limit,
		),
		args...,
	)
	if err != nil {
		return 0, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var a, b, c, d any
		if err := rows.Scan(&a, &b, &c, &d); err != nil {
			return 0, err
		}
		n++
	}
	return n, rows.Err()
}

// report prints a row of a Markdown table: medians with their ranges, and the projection's median relative to the
// other's.
func report(what string, rates map[string][]float64, other string) {
	share := median(rates["projection"]) / median(rates[other])
	fmt.Printf("| %s | %s | %s | %.0f %% |\n", what, spread(rates["projection"]), spread(rates[other]), 100*share)
}
