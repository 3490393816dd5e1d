package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/internal/format"
)

// databaseFormat is the format of the database that this version writes. Version 2 records the origins of generations
// and the state of single views; a program that knows version 1 can use such a database, see upgrade. A database
// without a record has version 1.
var databaseFormat = format.Format{Version: 2, Floor: 1}

// formatTable is the statement that creates the table of the record, which has one row.
const formatTable = `CREATE TABLE IF NOT EXISTS headgate.format (
	one BOOLEAN PRIMARY KEY DEFAULT true CHECK (one), version INTEGER NOT NULL, floor INTEGER NOT NULL, writer TEXT NOT NULL)`

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// readFormat returns the format that the database records, or a zero record.
func readFormat(ctx context.Context, db querier) (format.Record, error) {
	var (
		found  format.Record
		exists bool
	)
	if err := db.QueryRow(ctx, `SELECT to_regclass('headgate.format') IS NOT NULL`).Scan(&exists); err != nil ||
		!exists {
		return found, err
	}
	err := db.QueryRow(ctx,
		`SELECT version, floor, writer FROM headgate.format`).Scan(&found.Version, &found.Floor, &found.Writer)
	if errors.Is(err, pgx.ErrNoRows) {
		return format.Record{}, nil
	}
	return found, err
}

// checkFormat returns a [format.NewerError] if the database needs a newer version of this program.
func checkFormat(ctx context.Context, db querier) error {
	found, err := readFormat(ctx, db)
	if err == nil {
		_, err = upgradedFormat(found)
	}
	return err
}

func upgradedFormat(found format.Record) (format.Record, error) {
	return found.Upgrade("the PostgreSQL database", databaseFormat)
}

// raiseFormat checks the record and raises it to the format of this program. The caller holds the lock of schemas.
func raiseFormat(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, formatTable); err != nil {
		return err
	}
	found, err := readFormat(ctx, tx)
	if err != nil {
		return err
	}
	next, err := upgradedFormat(found)
	if err != nil || next == found {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO headgate.format (version, floor, writer) VALUES ($1, $2, $3)
		ON CONFLICT (one) DO UPDATE SET version = EXCLUDED.version, floor = EXCLUDED.floor, writer = EXCLUDED.writer`, next.Version, next.Floor, next.Writer)
	if err != nil {
		return fmt.Errorf("record the format: %w", err)
	}
	return nil
}
