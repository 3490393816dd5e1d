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

// indexTables returns the statements that create a generation's index of aggregates, which version 1 of the layout did
// not have. Nodes that only know version 1 can use an upgraded generation: they do not update indexed, the sequence
// that the index has reached.
func indexTables() []string {
	return append([]string{
		`ALTER TABLE _checkpoint ADD COLUMN IF NOT EXISTS indexed BIGINT NOT NULL DEFAULT 0`,
		`CREATE TABLE _aggregates (_tenant TEXT COLLATE "C" NOT NULL, entry TEXT COLLATE "C" NOT NULL,
			CONSTRAINT "_aggregates.key" PRIMARY KEY (_tenant, entry))`, // see [store.Aggregate]
	}, policies(`"_aggregates"`)...)
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
	var states, index bool
	const exists = `EXISTS (SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = $1 AND relname = `
	err := tx.QueryRow(ctx, `SELECT `+exists+`'_views'), `+exists+`'_aggregates')`, name).Scan(&states, &index)
	if err != nil || states && index {
		return err
	}
	statements := []string{fmt.Sprintf(`SET LOCAL search_path TO %q`, name)}
	if !states {
		statements = append(statements, stateTables()...)
	}
	if !index {
		statements = append(statements, indexTables()...)
	}
	for _, statement := range statements {
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
		found, err := s.state(ctx, tx, "")
		state = found.State
		return err
	})
	if err != nil {
		return store.State{}, fmt.Errorf("postgres: read checkpoint: %w", usable(ctx, err))
	}
	return state, nil
}

// stored is a tenant's stored state.
type stored struct {
	store.State

	distrusted []string      // views whose checkpoints are not trusted
	indexed    store.Indexed // of the index of aggregates
	exists     bool          // false: there is no state yet
}

// state returns the tenant's stored state.
func (s *Store) state(ctx context.Context, tx pgx.Tx, lock string) (state stored, err error) {
	var sequence, eventSequence, indexed, skips int64
	var views int
	err = tx.QueryRow(ctx,
		`SELECT sequence, event_id, event_sequence, views, indexed FROM _checkpoint WHERE _tenant = $1`+lock,
		s.tenant.String()).
		Scan(&sequence, &state.EventID, &eventSequence, &views, &indexed)
	if errors.Is(err, pgx.ErrNoRows) {
		return stored{}, nil
	}
	if err != nil {
		return stored{}, err
	}
	state.exists = true
	state.indexed = store.Indexed{Sequence: uint64(indexed), Applied: uint64(sequence)}
	state.Sequence = uint64(sequence)
	if eventSequence != sequence {
		state.EventID = ""
	}
	if views == 0 {
		return state, nil
	}
	rows, err := tx.Query(ctx, `SELECT view, apart, sequence, event_id, skips, failure FROM _views WHERE _tenant = $1`,
		s.tenant.String())
	if err != nil {
		return stored{}, err
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
		return stored{}, err
	}
	if eventSequence != int64(state.Sequence) {
		state.State, state.distrusted = state.Distrust()
	}
	return state, nil
}

// lockState is state for the only transaction that may change it. It creates the checkpoint if there is none yet.
func (s *Store) lockState(ctx context.Context, tx pgx.Tx) (stored, error) {
	state, err := s.state(ctx, tx, " FOR UPDATE")
	if err != nil || state.exists {
		return state, err
	}
	if _, err := tx.Exec(
		ctx, `INSERT INTO _checkpoint (_tenant, sequence) VALUES ($1, 0) ON CONFLICT DO NOTHING`, s.tenant.String(),
	); err != nil {
		return stored{}, err
	}
	return s.state(ctx, tx, " FOR UPDATE")
}

// queueState adds the writes of a batch's checkpoint, its aggregates and view records.
func (s *Store) queueState(writes *pgx.Batch, batch *store.Batch, from stored) {
	tenant := s.tenant.String()
	indexed := s.queueAggregates(writes, batch, from.indexed)
	if to := batch.Checkpoint(); to.Sequence > from.Sequence {
		writes.Queue(
			`UPDATE _checkpoint SET sequence = $2, event_id = $3, event_sequence = $2, indexed = $4 WHERE _tenant = $1`,
			tenant, int64(to.Sequence), to.EventID, indexed,
		)
	} else if batch.Fills() {
		writes.Queue(`UPDATE _checkpoint SET indexed = $2 WHERE _tenant = $1`, tenant, indexed)
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
