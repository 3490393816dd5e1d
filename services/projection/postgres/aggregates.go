package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/services/projection/store"
)

// queueAggregates adds the writes of a batch's aggregates to the index in one statement, and returns the sequence up to
// which the index is complete then.
func (s *Store) queueAggregates(writes *pgx.Batch, batch *store.Batch, indexed store.Indexed) int64 {
	entries, to := batch.Index(indexed)
	if len(entries) == 0 {
		return int64(to)
	}
	for n, entry := range entries {
		entries[n], _ = escape(entry).(string)
	}
	writes.Queue(`INSERT INTO _aggregates (_tenant, entry) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING`,
		s.tenant.String(), entries)
	return int64(to)
}

// Aggregates implements [store.Store].
func (s *Store) Aggregates(
	ctx context.Context, lookup store.Lookup, each func(store.Aggregate) error,
) (indexed store.Indexed, err error) {
	leave, err := s.readers.enter(ctx, s.tenant)
	if err != nil {
		return indexed, err
	}
	defer leave()
	ctx, t := s.guarded.begin(ctx, readTimeout)
	defer t.end()
	var failed error
	err = pgx.BeginTxFunc(
		ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if err := s.enter(ctx, tx); err != nil {
				return err
			}
			state, err := s.state(ctx, tx, "")
			if indexed = state.indexed; err != nil || lookup.Limit == 0 {
				return err
			}
			from, before := lookup.Range()
			rows, err := tx.Query(ctx, `SELECT entry FROM _aggregates WHERE _tenant = $1 AND entry >= $2 AND entry < $3
				ORDER BY entry LIMIT $4`, s.tenant.String(), from, before, lookup.Limit)
			if err != nil {
				return err
			}
			var entry string
			_, err = pgx.ForEachRow(rows, []any{&entry}, func() error {
				failed = each(store.AggregateOf(unescape(entry)))
				return failed
			})
			return err
		},
	)
	switch {
	case errors.Is(failed, store.ErrStop):
		return indexed, nil
	case failed != nil:
		return indexed, failed
	case err != nil:
		return indexed, fmt.Errorf("postgres: read the index of aggregates: %w", usable(ctx, err))
	}
	return indexed, nil
}
