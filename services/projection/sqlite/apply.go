package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// batch is a transaction on a tenant's views.
type batch struct {
	store *Store
	tx    *sql.Tx
}

// Apply implements [store.Store].
func (s *Store) Apply(ctx context.Context, sequence uint64, change func(store.Batch, uint64) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	var from int64
	if err := tx.QueryRowContext(ctx, `SELECT sequence FROM "_checkpoint"`).Scan(&from); err != nil {
		return fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	if err := change(&batch{store: s, tx: tx}, uint64(from)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE "_checkpoint" SET sequence = max(sequence, ?)`, int64(sequence)); err != nil {
		return fmt.Errorf("sqlite: checkpoint: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlite: commit: %w", err)
	}
	return nil
}

// Row implements [store.Batch].
func (b *batch) Row(ctx context.Context, view *model.View, key string) (model.Object, error) {
	//nolint:sqlclosecheck // the transaction closes its statements
	row := b.tx.StmtContext(ctx, b.store.statements[view.Name].row).QueryRowContext(ctx, key)
	values, err := scan(view.Columns, 0, row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: read %s: %w", view.Name, err)
	}
	return store.Object(view.Columns, values), nil
}

// Put implements [store.Batch].
func (b *batch) Put(ctx context.Context, view *model.View, key string, row model.Object) error {
	args := make([]any, 0, len(view.Columns)+1)
	args = append(args, key)
	for _, column := range view.Columns {
		value, err := store.Encode(view, column, row[column.Name])
		if err != nil {
			return fmt.Errorf("sqlite: %w", err)
		}
		args = append(args, value)
	}
	//nolint:sqlclosecheck // the transaction closes its statements
	if _, err := b.tx.StmtContext(ctx, b.store.statements[view.Name].put).ExecContext(ctx, args...); err != nil {
		return fmt.Errorf("sqlite: write %s: %w", view.Name, err)
	}
	return nil
}

// Delete implements [store.Batch].
func (b *batch) Delete(ctx context.Context, view *model.View, key string) error {
	//nolint:sqlclosecheck // the transaction closes its statements
	if _, err := b.tx.StmtContext(ctx, b.store.statements[view.Name].remove).ExecContext(ctx, key); err != nil {
		return fmt.Errorf("sqlite: delete from %s: %w", view.Name, err)
	}
	return nil
}
