package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/contextkit"
)

// Found is the checkpoint of a tenant's views in a generation.
type Found struct {
	Schema     string
	Tenant     contextkit.TenantID
	Checkpoint uint64
}

// checkpointBatch is the number of tenants whose checkpoints are read in one round trip.
const checkpointBatch = 256

// Checkpoints returns the checkpoints of tenants' views in the database at url, for the generations whose origins are
// accepted, and changes nothing. unknown lists the generations whose origin the database does not record. Row-level
// security hides tenants that are not named.
func Checkpoints(
	ctx context.Context, url string, tenants []contextkit.TenantID, accept func(origin string) bool,
) (found []Found, unknown []string, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("postgres: connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // the connection was only read
	if err := checkFormat(ctx, conn); err != nil {
		return nil, nil, fmt.Errorf("postgres: %w", err)
	}
	accepted, unknown, err := origins(ctx, conn, accept)
	if err != nil {
		return nil, nil, fmt.Errorf("postgres: read generations: %w", err)
	}
	for _, schema := range accepted {
		for some := range slices.Chunk(tenants, checkpointBatch) {
			err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
				more, err := checkpoints(ctx, tx, schema, some)
				found = append(found, more...)
				return err
			})
			if err != nil {
				return nil, nil, fmt.Errorf("postgres: read checkpoints of %s: %w", schema, err)
			}
		}
	}
	return found, unknown, nil
}

// origins returns the generations whose origins are accepted, and the generations without a recorded origin.
func origins(
	ctx context.Context, conn *pgx.Conn, accept func(origin string) bool,
) (accepted, unknown []string, err error) {
	var made, recorded bool
	err = conn.QueryRow(
		ctx, `SELECT to_regclass('headgate.generations') IS NOT NULL, EXISTS (SELECT FROM information_schema.columns
		WHERE table_schema = 'headgate' AND table_name = 'generations' AND column_name = 'origin')`,
	).Scan(&made, &recorded)
	if err != nil || !made {
		return nil, nil, err
	}
	column := `''`
	if recorded {
		column = "origin"
	}
	rows, err := conn.Query(ctx, "SELECT name, "+column+" FROM headgate.generations ORDER BY name")
	if err != nil {
		return nil, nil, err
	}
	var name, origin string
	_, err = pgx.ForEachRow(rows, []any{&name, &origin}, func() error {
		switch {
		case origin == "":
			unknown = append(unknown, name)
		case accept(origin):
			accepted = append(accepted, name)
		}
		return nil
	})
	return accepted, unknown, err
}

// checkpoints returns the checkpoints of tenants in a generation.
func checkpoints(
	ctx context.Context, tx pgx.Tx, schema string, tenants []contextkit.TenantID,
) (found []Found, err error) {
	var reads pgx.Batch
	for _, tenant := range tenants {
		reads.Queue(`SELECT set_config('headgate.tenant', $1, true)`, tenant.String())
		reads.Queue(
			`SELECT sequence FROM `+pgx.Identifier{schema, "_checkpoint"}.Sanitize()+` WHERE _tenant = $1`,
			tenant.String(),
		).QueryRow(func(row pgx.Row) error {
			var sequence int64
			err := row.Scan(&sequence)
			if errors.Is(err, pgx.ErrNoRows) {
				return nil
			}
			found = append(found, Found{schema, tenant, uint64(max(sequence, 0))})
			return err
		})
	}
	return found, tx.SendBatch(ctx, &reads).Close()
}
