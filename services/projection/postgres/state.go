package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// stateTables returns the statements that create a generation's tables besides the views' tables. Version 0 of the
// layout did not have them. Nodes that only know version 0 can use an upgraded generation: they do not update
// event_sequence, from which [Store] detects their changes.
func stateTables() []string {
	return append([]string{
		`ALTER TABLE _checkpoint ADD COLUMN IF NOT EXISTS event_id TEXT NOT NULL DEFAULT '',
			ADD COLUMN IF NOT EXISTS event_sequence BIGINT NOT NULL DEFAULT 0,
			ADD COLUMN IF NOT EXISTS views INTEGER NOT NULL DEFAULT 0`, // event_sequence is event_id's, views the number of records
		`CREATE TABLE _views (_tenant TEXT COLLATE "C" NOT NULL, view TEXT COLLATE "C" NOT NULL, apart BOOLEAN NOT NULL, sequence BIGINT NOT NULL,
			event_id TEXT NOT NULL, skips BIGINT NOT NULL, failure TEXT NOT NULL, CONSTRAINT "_views.key" PRIMARY KEY (_tenant, view))`,
	}, policies(`"_views"`)...)
}

// policies returns the statements that separate the tenants in a table.
func policies(table string) []string {
	return []string{
		fmt.Sprintf("ALTER TABLE %s ENABLE ROW LEVEL SECURITY", table),
		fmt.Sprintf("ALTER TABLE %s FORCE ROW LEVEL SECURITY",
			table), // applies to the table's owner, which this program is
		fmt.Sprintf(
			"CREATE POLICY tenant ON %s USING (_tenant = current_setting('headgate.tenant')) WITH CHECK (_tenant = "+
				"current_setting('headgate.tenant'))",
			table,
		),
	}
}

// upgrade upgrades a generation that an earlier version has made. The caller holds the lock of schemas.
func upgrade(ctx context.Context, tx pgx.Tx, name string) error {
	var upgraded bool
	err := tx.QueryRow(
		ctx,
		`SELECT EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relname = '_views')`,
		name,
	).Scan(&upgraded)
	if err != nil || upgraded {
		return err
	}
	for _, statement := range append([]string{fmt.Sprintf(`SET LOCAL search_path TO %q`, name)}, stateTables()...) {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// State implements [store.Store].
func (s *Store) State(ctx context.Context) (state store.State, err error) {
	ctx, t := s.guarded.begin(ctx, readTimeout)
	defer t.end()
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := s.enter(ctx, tx); err != nil {
			return err
		}
		state, _, _, err = s.state(ctx, tx, "")
		return err
	})
	if err != nil {
		return store.State{}, fmt.Errorf("postgres: read checkpoint: %w", usable(ctx, err))
	}
	return state, nil
}

// state returns the tenant's state and the views whose checkpoints are not trusted; exists is false if there is no
// state yet.
func (s *Store) state(
	ctx context.Context, tx pgx.Tx, lock string,
) (state store.State, distrusted []string, exists bool, err error) {
	var sequence, eventSequence, skips int64
	var views int
	err = tx.QueryRow(ctx, `SELECT sequence, event_id, event_sequence, views FROM _checkpoint WHERE _tenant = $1`+lock,
		s.tenant.String()).
		Scan(&sequence, &state.EventID, &eventSequence, &views)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.State{}, nil, false, nil
	}
	if err != nil {
		return store.State{}, nil, false, err
	}
	state.Sequence = uint64(sequence)
	if eventSequence != sequence {
		state.EventID = ""
	}
	if views == 0 {
		return state, nil, true, nil
	}
	rows, err := tx.Query(ctx, `SELECT view, apart, sequence, event_id, skips, failure FROM _views WHERE _tenant = $1`,
		s.tenant.String())
	if err != nil {
		return store.State{}, nil, false, err
	}
	state.Views = make(map[string]store.ViewState, views)
	var name string
	var v store.ViewState
	_, err = pgx.ForEachRow(rows, []any{&name, &v.Detached, &sequence, &v.EventID, &skips, &v.Failure}, func() error {
		v.Sequence, v.Skips, v.Failure = uint64(
			sequence,
		), uint64(skips), unescape(v.Failure)
		state.Views[name] = v
		return nil
	})
	if err != nil {
		return store.State{}, nil, false, err
	}
	if eventSequence != int64(state.Sequence) {
		state, distrusted = state.Distrust()
	}
	return state, distrusted, true, nil
}

// lockState is state for the only transaction that may change it. It creates the checkpoint if there is none yet.
func (s *Store) lockState(ctx context.Context, tx pgx.Tx) (state store.State, distrusted []string, err error) {
	state, distrusted, exists, err := s.state(ctx, tx, " FOR UPDATE")
	if err != nil || exists {
		return state, distrusted, err
	}
	if _, err := tx.Exec(
		ctx, `INSERT INTO _checkpoint (_tenant, sequence) VALUES ($1, 0) ON CONFLICT DO NOTHING`, s.tenant.String(),
	); err != nil {
		return store.State{}, nil, err
	}
	state, distrusted, _, err = s.state(ctx, tx, " FOR UPDATE")
	return state, distrusted, err
}

// queueState adds the writes of a batch's checkpoint and view records.
func (s *Store) queueState(writes *pgx.Batch, batch *store.Batch, from store.State) {
	tenant := s.tenant.String()
	if to := batch.Checkpoint(); to.Sequence > from.Sequence {
		writes.Queue(`UPDATE _checkpoint SET sequence = $2, event_id = $3, event_sequence = $2 WHERE _tenant = $1`,
			tenant, int64(to.Sequence), to.EventID)
	}
	written := false
	for name, v := range batch.States() {
		written = true
		if !v.Recorded() {
			writes.Queue(`DELETE FROM _views WHERE _tenant = $1 AND view = $2`, tenant, name)
			continue
		}
		writes.Queue(`INSERT INTO _views VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (_tenant, view) DO UPDATE SET
			apart = EXCLUDED.apart, sequence = EXCLUDED.sequence, event_id = EXCLUDED.event_id, skips = EXCLUDED.skips, failure = EXCLUDED.failure`,
			tenant, name, v.Detached, int64(v.Sequence), v.EventID, int64(v.Skips),
			escape(v.Failure))
	}
	if written {
		// From here on this version has written the state: checkpoints of detached views can be trusted.
		writes.Queue(
			`UPDATE _checkpoint SET views = (SELECT count(*) FROM _views WHERE _tenant = $1), event_sequence = sequence,
			event_id = CASE WHEN event_sequence = sequence THEN event_id ELSE '' END WHERE _tenant = $1`, tenant,
		)
	}
}

// rejections are the SQLSTATE classes and codes (PostgreSQL 15, appendix A) of errors that the content of a row
// causes, with their reasons.
var rejections = []struct{ prefix, reason string }{
	{"54000", "an indexed value or key is larger than the database's index can store"},
	{"54", "a row is larger than the database can store"},
	{"22", "the database does not accept a value"},
	{"23", "the database does not accept a value"},
}

// rejected returns an error of writing a view's rows as a [*store.RejectedError] if the content of a row causes it.
func rejected(view *model.View, err error) error {
	server, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || view == nil {
		return err
	}
	for _, r := range rejections {
		if strings.HasPrefix(server.Code, r.prefix) {
			return &store.RejectedError{View: view.Name, Reason: r.reason, Err: err}
		}
	}
	return err
}
