package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/services/projection/store"
)

// putAggregates returns the statement that adds a number of entries, each unless the index has it.
func putAggregates(rows int) string {
	return `INSERT OR IGNORE INTO "_aggregates" (entry) VALUES (?)` + strings.Repeat(", (?)", rows-1)
}

// prepareAggregates prepares the statements of the index.
func (s *Store) prepareAggregates(ctx context.Context) (err error) {
	if s.putAggregate, err = s.write.PrepareContext(ctx, putAggregates(1)); err != nil {
		return incomplete(err)
	}
	s.putAggregates, err = s.write.PrepareContext(ctx, putAggregates(rowsPerStatement))
	return incomplete(err)
}

// writeAggregates adds entries to the index, many per statement.
func (s *Store) writeAggregates(ctx context.Context, tx *sql.Tx, entries []string) error {
	if len(entries) == 0 {
		return nil
	}
	args := make([]any, 0, min(len(entries), rowsPerStatement))
	for some := range slices.Chunk(entries, rowsPerStatement) {
		args = args[:0]
		for _, entry := range some {
			args = append(args, entry)
			s.written += int64(pageBytes + len(entry))
		}
		put, rows := s.putAggregates, rowsPerStatement
		if len(some) < rowsPerStatement {
			put, rows = s.putAggregate, 1
		}
		put = tx.StmtContext(ctx, put)
		for row := range slices.Chunk(args, rows) {
			if _, err := put.ExecContext(ctx, row...); err != nil {
				return fmt.Errorf("sqlite: write the index of aggregates: %w", err)
			}
		}
	}
	return nil
}

// Aggregates implements [store.Store].
func (s *Store) Aggregates(
	ctx context.Context, lookup store.Lookup, each func(store.Aggregate) error,
) (store.Indexed, error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	indexed, err := s.aggregates(ctx, lookup, each)
	return indexed, s.check(err)
}

func (s *Store) aggregates(
	ctx context.Context, lookup store.Lookup, each func(store.Aggregate) error,
) (indexed store.Indexed, err error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return indexed, fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // the transaction only reads
	if _, _, indexed, err = readIndexed(ctx, tx); err != nil || lookup.Limit == 0 {
		return indexed, err
	}
	from, before := lookup.Range()
	rows, err := tx.QueryContext(ctx,
		`SELECT entry FROM "_aggregates" WHERE entry >= ? AND entry < ? ORDER BY entry LIMIT ?`, from, before,
		lookup.Limit)
	if err != nil {
		return indexed, fmt.Errorf("sqlite: read the index of aggregates: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns its error
	for rows.Next() {
		var entry string
		if err := rows.Scan(&entry); err != nil {
			return indexed, fmt.Errorf("sqlite: read the index of aggregates: %w", err)
		}
		if err := each(store.AggregateOf(entry)); errors.Is(err, store.ErrStop) {
			return indexed, nil
		} else if err != nil {
			return indexed, err
		}
	}
	if err := rows.Err(); err != nil {
		return indexed, fmt.Errorf("sqlite: read the index of aggregates: %w", err)
	}
	return indexed, nil
}
