package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	err := s.check(s.apply(ctx, change))
	if err == nil {
		s.boundLog(ctx)
	}
	return err
}

func (s *Store) apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	state, distrusted, indexed, err := readIndexed(ctx, tx)
	if err != nil {
		return err
	}
	batch := store.NewBatch(func(ctx context.Context, view *model.View, key string) (model.Object, error) {
		return s.row(ctx, tx, view, key)
	})
	batch.Restart(s.views, state, distrusted)
	if err := change(batch, state); err != nil {
		return err
	}
	for view := range batch.Cleared() {
		if err := s.clear(ctx, tx, view); err != nil {
			return err
		}
	}
	for view, changes := range batch.Changes() {
		if err := s.writeView(ctx, tx, view, changes); err != nil {
			return rejected(view, fmt.Errorf("sqlite: write %s: %w", view.Name, err))
		}
	}
	begun, to := batch.Index(indexed)
	if err := s.writeAggregates(ctx, tx, begun); err != nil {
		return err
	}
	if err := writeState(ctx, tx, batch, state, int64(to)); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlite: commit: %w", err)
	}
	return nil
}

// rejected returns an error of writing a view's rows as a [*store.RejectedError] if the content of a row causes it.
func rejected(view *model.View, err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	var reason string
	switch e.Code() & 0xff {
	case lib.SQLITE_TOOBIG:
		reason = "a value is larger than the database can store"
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_RANGE:
		reason = "the database does not accept a value"
	default:
		return err
	}
	return &store.RejectedError{View: view.Name, Reason: reason, Err: err}
}

// rowSize estimates the bytes of a row in the write-ahead log.
func rowSize(row store.Row) int64 {
	size := pageBytes
	for _, value := range row.Values {
		if text, ok := value.(string); ok {
			size += len(text)
		}
	}
	return int64(size)
}

// row returns the row of a view under key, nil for none.
func (s *Store) row(ctx context.Context, tx *sql.Tx, view *model.View, key string) (model.Object, error) {
	//nolint:sqlclosecheck // the transaction closes its statements
	row := tx.StmtContext(ctx, s.statements[view.Name].row).QueryRowContext(ctx, key)
	values, err := scan(view.Columns, 0, row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: read %s: %w", view.Name, err)
	}
	return store.Object(view.Columns, values), nil
}

// writeView writes a view's changes, many rows per statement.
func (s *Store) writeView(ctx context.Context, tx *sql.Tx, view *model.View, changes store.Changes) error {
	st := s.statements[view.Name]
	s.written += int64(pageBytes * len(changes.Deletes))
	for _, key := range changes.Deletes {
		//nolint:sqlclosecheck // the transaction closes its statements
		if _, err := tx.StmtContext(ctx, st.remove).ExecContext(ctx, key); err != nil {
			return err
		}
	}
	args := make([]any, 0, rowsPerStatement*(len(view.Columns)+1))
	for rows := range slices.Chunk(changes.Puts, rowsPerStatement) {
		args = args[:0]
		for _, row := range rows {
			args = append(append(args, row.Key), row.Values...)
			s.written += rowSize(row)
		}
		if len(rows) == rowsPerStatement {
			//nolint:sqlclosecheck // the transaction closes its statements
			if _, err := tx.StmtContext(ctx, st.putMany).ExecContext(ctx, args...); err != nil {
				return err
			}
			continue
		}
		put, width := tx.StmtContext(ctx, st.put), len(view.Columns)+1
		for row := range slices.Chunk(args, width) {
			if _, err := put.ExecContext(ctx, row...); err != nil {
				return err
			}
		}
	}
	return nil
}
