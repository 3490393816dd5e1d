package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// keptGenerations is the number of most recently used schemas of views that are always retained: the current one,
	// one that is being built, and the one before an upgrade.
	keptGenerations = 3
	// unusedFor is the time after which another schema is dropped if no node has used it, and renewEvery the interval
	// at which a node renews the schemas that it uses.
	unusedFor  = time.Hour
	renewEvery = 5 * time.Minute
	// renewAgain is the delay before a failed renewal is retried.
	renewAgain = time.Minute
)

// generations are the statements that create the table of generations.
var generations = []string{
	`CREATE SCHEMA IF NOT EXISTS headgate`,
	`CREATE TABLE IF NOT EXISTS headgate.generations (name TEXT PRIMARY KEY, made TIMESTAMPTZ NOT NULL DEFAULT now())`,
	`ALTER TABLE headgate.generations ADD COLUMN IF NOT EXISTS used TIMESTAMPTZ NOT NULL DEFAULT now()`,
	// The origin of a generation that a node of format 1 has made is unknown.
	`ALTER TABLE headgate.generations ADD COLUMN IF NOT EXISTS origin TEXT NOT NULL DEFAULT ''`,
}

// renew records that schemas are in use.
func renew(ctx context.Context, tx pgx.Tx, used []string) error {
	_, err := tx.Exec(ctx, `UPDATE headgate.generations SET used = clock_timestamp() WHERE name = ANY ($1)`, used)
	return err
}

// dropOld drops the schemas of generations that no node has used for unusedFor, except the newest. The caller holds
// the lock of schemas and has renewed the schemas that it uses.
func dropOld(ctx context.Context, tx pgx.Tx, used []string) error {
	rows, err := tx.Query(
		ctx, `SELECT name FROM (SELECT name, used FROM headgate.generations ORDER BY used DESC, name OFFSET $1) old
		WHERE used < clock_timestamp() - $2 * interval '1 second' AND name <> ALL ($3)`, keptGenerations,
		int64(unusedFor.Seconds()), used,
	)
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, name := range old {
		if _, err := tx.Exec(ctx, "DROP SCHEMA IF EXISTS "+pgx.Identifier{name}.Sanitize()+" CASCADE"); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM headgate.generations WHERE name = $1`, name); err != nil {
			return err
		}
	}
	return nil
}

// Renew records that the generations of open stores are in use, so that no node drops them, and drops old ones.
// [Database.Watch] calls it every few minutes.
func (d *Database) Renew(ctx context.Context) error {
	used := d.used()
	if len(used) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, d.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(schemaLock)); err != nil {
			return err
		}
		if err := renew(ctx, tx, used); err != nil {
			return fmt.Errorf("postgres: renew generations: %w", err)
		}
		return dropOld(ctx, tx, used)
	})
}

// renewSometimes calls [Database.Renew] if it is due. Watch calls it.
func (d *Database) renewSometimes(ctx context.Context, now time.Time) error {
	if now.Sub(d.renewed) < renewEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	d.renewed = now
	err := d.Renew(ctx)
	if err != nil {
		d.renewed = now.Add(renewAgain - renewEvery)
	}
	return err
}

// renewTimeout bounds a renewal, which waits for nodes that create schemas.
const renewTimeout = 10 * time.Second
