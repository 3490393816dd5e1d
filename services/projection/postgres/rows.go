package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// Apply implements [store.Store]. Nodes that follow the same tenant take turns, and each begins at the checkpoint of
// the one before. All writes are sent in one round trip.
func (s *Store) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	ctx, t := s.guarded.begin(ctx, applyTimeout)
	defer t.end()
	var failed error
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if err := s.enter(ctx, tx); err != nil {
			return err
		}
		state, err := s.lockState(ctx, tx)
		if err != nil {
			return err
		}
		batch := store.NewBatch(func(_ context.Context, view *model.View, key string) (model.Object, error) {
			return s.row(ctx, tx, view, key)
		})
		batch.Restart(s.views, state.State, state.distrusted)
		if failed = change(batch, state.State); failed != nil {
			return failed
		}
		return s.send(ctx, tx, batch, state)
	})
	if err != nil && (failed == nil || ended(ctx) != nil) {
		return fmt.Errorf("postgres: apply: %w", usable(ctx, err))
	}
	return err
}

// send writes a batch.
func (s *Store) send(ctx context.Context, tx pgx.Tx, batch *store.Batch, from stored) error {
	var writes pgx.Batch
	for view := range batch.Cleared() {
		writes.Queue(fmt.Sprintf("DELETE FROM %s WHERE _tenant = $1", query.PostgreSQL.Table(view.Name)),
			s.tenant.String())
	}
	type part struct {
		view   *model.View // nil: none
		writes int
	}
	parts := []part{{nil, writes.Len()}}
	for view, changes := range batch.Changes() {
		before := writes.Len()
		s.queue(&writes, view, changes)
		parts = append(parts, part{view, writes.Len() - before})
	}
	s.queueState(&writes, batch, from)
	results := tx.SendBatch(ctx, &writes)
	for _, p := range parts {
		for range p.writes {
			if _, err := results.Exec(); err != nil {
				_ = results.Close() // it fails for the same reason
				return rejected(p.view, err)
			}
		}
	}
	return results.Close()
}

// queue adds the writes of a view's changes.
func (s *Store) queue(writes *pgx.Batch, view *model.View, changes store.Changes) {
	tenant, statements := s.tenant.String(), s.statements[view.Name]
	for _, key := range changes.Deletes {
		writes.Queue(statements.remove, tenant, escape(key))
	}
	for _, row := range changes.Puts {
		args := make([]any, 0, len(row.Values)+2)
		args = append(args, tenant, escape(row.Key))
		for _, value := range row.Values {
			args = append(args, escape(value))
		}
		writes.Queue(statements.put, args...)
	}
}

// row returns the row of a view under key, nil for none.
func (s *Store) row(ctx context.Context, tx pgx.Tx, view *model.View, key string) (model.Object, error) {
	rows, err := tx.Query(ctx, s.statements[view.Name].row, s.tenant.String(), escape(key))
	if err == nil {
		var found []any
		found, err = pgx.CollectExactlyOneRow(rows,
			func(row pgx.CollectableRow) ([]any, error) { return scan(view.Columns, row) })
		if errors.Is(err, pgx.ErrNoRows) {
			return nil, nil
		}
		if err == nil {
			return store.Object(view.Columns, found), nil
		}
	}
	return nil, fmt.Errorf("postgres: read %s: %w", view.Name, available(ctx, err))
}

// Query implements [store.Store].
func (s *Store) Query(
	ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
) (state store.ViewState, err error) {
	args := make([]any, len(plan.Args))
	for i, arg := range plan.Args {
		args[i] = escape(arg)
	}
	leave, err := s.readers.enter(ctx, s.tenant)
	if err != nil {
		return store.ViewState{}, err
	}
	defer leave()
	ctx, t := s.guarded.begin(ctx, readTimeout)
	defer t.end()
	each = t.using(each)
	var failed error
	// Read rows and checkpoint in one snapshot.
	err = pgx.BeginTxFunc(
		ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if err := s.enter(ctx, tx); err != nil {
				return err
			}
			all, err := s.state(ctx, tx, "")
			if err != nil {
				return err
			}
			state = all.View(view.Name)
			failed, err = read(ctx, tx, view, plan, args, each)
			return errors.Join(failed, err)
		},
	)
	switch {
	case errors.Is(failed, store.ErrStop):
		return state, nil
	case failed != nil:
		return store.ViewState{}, failed
	case err != nil:
		return store.ViewState{}, fmt.Errorf("postgres: query %s: %w", view.Name, usable(ctx, err))
	}
	return state, nil
}

const (
	// firstFetch is the number of rows of a query's first fetch, when their size is unknown.
	firstFetch = 8
	// fetchBytes bounds the estimated bytes of each further fetch.
	fetchBytes = 1 << 20
)

// read calls each for a plan's rows. It fetches a few rows at a time from a cursor, since the database would
// otherwise send all of them, even after each has stopped. failed is the error of each.
func read(
	ctx context.Context, tx pgx.Tx, view *model.View, plan query.Plan, args []any, each func(values, terms []any) error,
) (failed, err error) {
	if plan.Limit <= firstFetch {
		rows, err := tx.Query(ctx, store.Select(query.PostgreSQL, view, plan), args...)
		if err != nil {
			return nil, err
		}
		_, _, failed, err = consume(rows, plan, each)
		return failed, err
	}
	if _, err := tx.Exec(
		ctx, "DECLARE page NO SCROLL CURSOR FOR "+store.Select(query.PostgreSQL, view, plan), args...,
	); err != nil {
		return nil, err
	}
	for next, left := firstFetch, plan.Limit; left > 0; {
		// The statement's columns depend on the cursor, so it must not be prepared.
		rows, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM page", min(next, left)), pgx.QueryExecModeExec)
		if err != nil {
			return nil, err
		}
		count, bytes, failed, err := consume(rows, plan, each)
		if failed != nil || err != nil || count < min(next, left) {
			return failed, err
		}
		left -= count
		next = max(fetchBytes*count/max(bytes, 1), 1)
	}
	return nil, nil
}

// consume calls each for the rows of a result, and returns their number and bytes.
func consume(
	rows pgx.Rows, plan query.Plan, each func(values, terms []any) error,
) (count, bytes int, failed, err error) {
	defer rows.Close()
	for rows.Next() {
		count++
		for _, raw := range rows.RawValues() {
			bytes += len(raw)
		}
		values, err := scan(plan.Columns, rows)
		if err != nil {
			return count, bytes, nil, err
		}
		if failed := each(values[:len(plan.Columns)], values[len(plan.Columns):]); failed != nil {
			return count, bytes, failed, nil
		}
	}
	return count, bytes, nil, rows.Err()
}

// scan reads a row's columns, and the values after them, as plain JSON values.
func scan(columns []model.Column, row interface{ Values() ([]any, error) }) ([]any, error) {
	values, err := row.Values()
	if err != nil {
		return nil, err
	}
	for i := range values {
		if text, ok := values[i].(string); ok {
			values[i] = unescape(text)
		}
		if i < len(columns) {
			if values[i], err = store.Decode(columns[i], values[i]); err != nil {
				return nil, err
			}
		}
	}
	return values, nil
}
