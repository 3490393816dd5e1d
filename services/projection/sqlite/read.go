package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
)

// Dialect implements the projection's Store.
func (s *Store) Dialect() query.Dialect { return query.SQLite }

// Checkpoint returns the journal sequence that the views have followed.
func (s *Store) Checkpoint(ctx context.Context) (uint64, error) {
	var sequence int64
	if err := s.read.QueryRowContext(ctx, `SELECT sequence FROM "_checkpoint"`).Scan(&sequence); err != nil {
		return 0, fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	return uint64(sequence), nil
}

// Query calls each for the plan's rows, up to its limit, with the values of its
// columns and of its terms, and returns the checkpoint at which they were read.
// each must not keep the slices.
func (s *Store) Query(ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error) (uint64, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return 0, fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it only reads
	var sequence int64
	if err := tx.QueryRowContext(ctx, `SELECT sequence FROM "_checkpoint"`).Scan(&sequence); err != nil {
		return 0, fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	selected := make([]string, 0, len(plan.Columns)+len(plan.Terms))
	for _, column := range plan.Columns {
		selected = append(selected, fmt.Sprintf("%q", column.Name))
	}
	for _, term := range plan.Terms {
		selected = append(selected, fmt.Sprintf("%q", term.Column))
	}
	text := fmt.Sprintf("SELECT %s FROM %q", strings.Join(selected, ", "), table(view))
	if plan.Where != "" {
		text += " WHERE " + plan.Where
	}
	text += fmt.Sprintf(" ORDER BY %s LIMIT %d", plan.OrderBy, plan.Limit)
	rows, err := tx.QueryContext(ctx, text, plan.Args...)
	if err != nil {
		return 0, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
	}
	defer func() { _ = rows.Close() }() // its error is rows.Err's
	for rows.Next() {
		values, err := scan(plan.Columns, len(plan.Terms), rows.Scan)
		if err != nil {
			return 0, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
		}
		if err := each(values[:len(plan.Columns)], values[len(plan.Columns):]); err != nil {
			return 0, err
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
	}
	return uint64(sequence), nil
}

// Get returns the row under key, nil for none, and the checkpoint at which it
// was read.
func (s *Store) Get(ctx context.Context, view *model.View, key string) ([]any, uint64, error) {
	plan := query.Plan{
		Where: fmt.Sprintf("%q = ?", query.KeyColumn), Args: []any{key},
		OrderBy: fmt.Sprintf("%q", query.KeyColumn), Limit: 1, Columns: view.Columns,
	}
	var found []any
	sequence, err := s.Query(ctx, view, plan, func(values, _ []any) error {
		found = values
		return nil
	})
	return found, sequence, err
}

// scan reads the columns and then extra values of a row as plain JSON values.
func scan(columns []model.Column, extra int, scan func(...any) error) ([]any, error) {
	values := make([]any, len(columns)+extra)
	targets := make([]any, len(values))
	for i := range values {
		targets[i] = &values[i]
	}
	if err := scan(targets...); err != nil {
		return nil, err
	}
	for i, column := range columns {
		var err error
		if values[i], err = decode(column, values[i]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func decode(column model.Column, value any) (any, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case int64:
		if column.Type == model.TypeBool {
			return v != 0, nil
		}
	case string:
		if column.Type == model.TypeJSON {
			var out any
			decoder := json.NewDecoder(strings.NewReader(v))
			decoder.UseNumber()
			if err := decoder.Decode(&out); err != nil {
				return nil, errors.Join(fmt.Errorf("column %s", column.Name), err)
			}
			return model.Normalize(out), nil
		}
	}
	return value, nil
}

func object(columns []model.Column, values []any) model.Object {
	row := make(model.Object, len(columns))
	for i, column := range columns {
		row[column.Name] = values[i]
	}
	return row
}
