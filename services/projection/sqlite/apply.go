package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/headgate/headgate/model"
)

// Batch is a transaction on a tenant's views.
type Batch struct {
	store *Store
	tx    *sql.Tx
}

// Apply runs change in one transaction that also moves the checkpoint to
// sequence. Nothing changes when it returns an error.
func (s *Store) Apply(ctx context.Context, sequence uint64, change func(*Batch) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := change(&Batch{store: s, tx: tx}); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `UPDATE "_checkpoint" SET sequence = ?`, int64(sequence)); err != nil {
		return fmt.Errorf("sqlite: checkpoint: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("sqlite: commit: %w", err)
	}
	return nil
}

// Row returns the row of a view under key, nil for none.
func (b *Batch) Row(ctx context.Context, view *model.View, key string) (model.Object, error) {
	//nolint:sqlclosecheck // the transaction closes its statements
	row := b.tx.StmtContext(ctx, b.store.statements[view.Name].row).QueryRowContext(ctx, key)
	values, err := scan(view.Columns, 0, row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: read %s: %w", view.Name, err)
	}
	return object(view.Columns, values), nil
}

// Put makes or replaces a row.
func (b *Batch) Put(ctx context.Context, view *model.View, key string, row model.Object) error {
	args := make([]any, 0, len(view.Columns)+1)
	args = append(args, key)
	for _, column := range view.Columns {
		value := row[column.Name]
		if column.Type == model.TypeJSON && value != nil {
			data, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("sqlite: encode %s.%s: %w", view.Name, column.Name, err)
			}
			value = string(data)
		}
		args = append(args, value)
	}
	//nolint:sqlclosecheck // the transaction closes its statements
	if _, err := b.tx.StmtContext(ctx, b.store.statements[view.Name].put).ExecContext(ctx, args...); err != nil {
		return fmt.Errorf("sqlite: write %s: %w", view.Name, err)
	}
	return nil
}

// Delete removes a row.
func (b *Batch) Delete(ctx context.Context, view *model.View, key string) error {
	//nolint:sqlclosecheck // the transaction closes its statements
	if _, err := b.tx.StmtContext(ctx, b.store.statements[view.Name].remove).ExecContext(ctx, key); err != nil {
		return fmt.Errorf("sqlite: delete from %s: %w", view.Name, err)
	}
	return nil
}
