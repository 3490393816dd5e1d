package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// layout is the version of the tables besides the views' tables (PRAGMA user_version). Version 0 has a checkpoint
// without the event's id, and no records of views; version 1 has no index of aggregates.
const layout = 2

// layoutSteps are the statements that upgrade a file of each version to the next. Programs that only know an earlier
// version can use an upgraded file: they do not update event_sequence and indexed, from which [Store] detects their
// changes.
var layoutSteps = [layout][]string{{
	`ALTER TABLE "_checkpoint" ADD COLUMN event_id TEXT NOT NULL DEFAULT ''`,
	`ALTER TABLE "_checkpoint" ADD COLUMN event_sequence INTEGER NOT NULL DEFAULT 0`, // of event_id
	`ALTER TABLE "_checkpoint" ADD COLUMN views INTEGER NOT NULL DEFAULT 0`,          // the number of records
	`CREATE TABLE "_views" (view TEXT PRIMARY KEY, apart INTEGER NOT NULL, sequence INTEGER NOT NULL,
		event_id TEXT NOT NULL, skips INTEGER NOT NULL, failure TEXT NOT NULL) WITHOUT ROWID`,
}, {
	// the sequence that the index has reached
	`ALTER TABLE "_checkpoint" ADD COLUMN indexed INTEGER NOT NULL DEFAULT 0`,
	`CREATE TABLE "_aggregates" (entry TEXT PRIMARY KEY) WITHOUT ROWID`, // see [store.Aggregate]
}}

// upgrade upgrades the tables of an earlier layout.
func upgrade(ctx context.Context, tx *sql.Tx) error {
	var version int
	if err := tx.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil || version >= layout {
		return err
	}
	for _, statements := range layoutSteps[max(version, 0):] {
		for _, statement := range statements {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
	}
	_, err := tx.ExecContext(ctx, fmt.Sprintf(`PRAGMA user_version = %d`, layout))
	return err
}

// querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readState returns the state, and the views whose checkpoints are not trusted.
func readState(ctx context.Context, q querier) (state store.State, distrusted []string, err error) {
	return readColumns(ctx, q, `SELECT sequence, event_id, event_sequence, views FROM "_checkpoint"`)
}

// readIndexed is readState, and returns how far the index of aggregates has come.
func readIndexed(
	ctx context.Context, q querier,
) (state store.State, distrusted []string, indexed store.Indexed, err error) {
	var sequence int64
	state, distrusted, err = readColumns(ctx, q,
		`SELECT sequence, event_id, event_sequence, views, indexed FROM "_checkpoint"`, &sequence)
	return state, distrusted, store.Indexed{Sequence: uint64(sequence), Applied: state.Sequence}, err
}

// readColumns is readState with a statement that reads the checkpoint, whose further columns are read into more.
func readColumns(
	ctx context.Context, q querier, statement string, more ...any,
) (state store.State, distrusted []string, err error) {
	var sequence, eventSequence, skips int64
	var views int
	err = q.QueryRowContext(ctx, statement).
		Scan(append([]any{&sequence, &state.EventID, &eventSequence, &views}, more...)...)
	if err != nil {
		return state, nil, fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	state.Sequence = uint64(sequence)
	if eventSequence != sequence {
		state.EventID = ""
	}
	if views == 0 {
		return state, nil, nil
	}
	rows, err := q.QueryContext(ctx, `SELECT view, apart, sequence, event_id, skips, failure FROM "_views"`)
	if err != nil {
		return state, nil, fmt.Errorf("sqlite: read views' records: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns its error
	state.Views = make(map[string]store.ViewState, views)
	for rows.Next() {
		var name string
		var v store.ViewState
		if err := rows.Scan(&name, &v.Detached, &sequence, &v.EventID, &skips, &v.Failure); err != nil {
			return state, nil, fmt.Errorf("sqlite: read views' records: %w", err)
		}
		v.Sequence, v.Skips = uint64(sequence), uint64(skips)
		state.Views[name] = v
	}
	if err := rows.Err(); err != nil {
		return state, nil, fmt.Errorf("sqlite: read views' records: %w", err)
	}
	if eventSequence != int64(state.Sequence) {
		state, distrusted = state.Distrust()
	}
	return state, distrusted, nil
}

// readSequence returns the state without the last event's id if all views are in step, which is the common case: each
// column slows down every query.
func readSequence(ctx context.Context, q querier) (state store.State, err error) {
	var sequence, views int64
	if err := q.QueryRowContext(ctx, `SELECT sequence, views FROM "_checkpoint"`).Scan(&sequence, &views); err != nil {
		return state, fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	if views > 0 {
		state, _, err = readState(ctx, q)
		return state, err
	}
	state.Sequence = uint64(sequence)
	return state, nil
}

// writeState writes a batch's checkpoint, the sequence that the index has reached, and view records.
func writeState(ctx context.Context, tx *sql.Tx, batch *store.Batch, from store.State, indexed int64) error {
	if to := batch.Checkpoint(); to.Sequence > from.Sequence {
		if _, err := tx.ExecContext(
			ctx, `UPDATE "_checkpoint" SET sequence = ?1, event_id = ?2, event_sequence = ?1, indexed = ?3`,
			int64(to.Sequence), to.EventID, indexed,
		); err != nil {
			return fmt.Errorf("sqlite: checkpoint: %w", err)
		}
	} else if batch.Fills() {
		if _, err := tx.ExecContext(ctx, `UPDATE "_checkpoint" SET indexed = ?1`, indexed); err != nil {
			return fmt.Errorf("sqlite: index: %w", err)
		}
	}
	written := false
	for name, v := range batch.States() {
		written = true
		statement, args := `DELETE FROM "_views" WHERE view = ?1`, []any{name}
		if v.Recorded() {
			statement = `INSERT OR REPLACE INTO "_views" VALUES (?1, ?2, ?3, ?4, ?5, ?6)`
			args = append(args, v.Detached, int64(v.Sequence), v.EventID, int64(v.Skips),
				v.Failure)
		}
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("sqlite: write the record of view %s: %w", name, err)
		}
	}
	if !written {
		return nil
	}
	// From here on this version has written the file: checkpoints of detached views can be trusted.
	_, err := tx.ExecContext(ctx, `UPDATE "_checkpoint" SET views = (SELECT count(*) FROM "_views"),
		event_id = CASE WHEN event_sequence = sequence THEN event_id ELSE '' END, event_sequence = sequence`)
	if err != nil {
		return fmt.Errorf("sqlite: checkpoint: %w", err)
	}
	return nil
}

// clear removes all rows of a view.
func (s *Store) clear(ctx context.Context, tx *sql.Tx, view *model.View) error {
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s", s.Dialect().Table(view.Name))); err != nil {
		return fmt.Errorf("sqlite: clear %s: %w", view.Name, err)
	}
	return nil
}
