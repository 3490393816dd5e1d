package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// Dialect implements [store.Store].
func (s *Store) Dialect() query.Dialect { return query.SQLite }

// State implements [store.Store].
func (s *Store) State(ctx context.Context) (store.State, error) {
	state, _, err := readState(ctx, s.read)
	return state, s.check(err)
}

// Query implements [store.Store].
func (s *Store) Query(
	ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	state, err := s.query(ctx, view, plan, each)
	return state, s.check(err)
}

func (s *Store) query(
	ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.ViewState{}, fmt.Errorf("sqlite: begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // the transaction only reads
	state, err := readSequence(ctx, tx)
	if err != nil {
		return store.ViewState{}, err
	}
	rows, err := tx.QueryContext(ctx, statement(view, plan), plan.Args...)
	if err != nil {
		return store.ViewState{}, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err returns its error
	for rows.Next() {
		values, err := scan(plan.Columns, len(plan.Terms), rows.Scan)
		if err != nil {
			return store.ViewState{}, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
		}
		err = each(values[:len(plan.Columns)], values[len(plan.Columns):])
		if errors.Is(err, store.ErrStop) {
			return state.View(view.Name), nil
		}
		if err != nil {
			return store.ViewState{}, err
		}
	}
	if err := rows.Err(); err != nil {
		return store.ViewState{}, fmt.Errorf("sqlite: query %s: %w", view.Name, err)
	}
	return state.View(view.Name), nil
}

// statement returns a plan's statement. If rows may have to be sorted, it sorts only keys and terms and reads the
// other columns afterwards, one row at a time, in that order: the outer loop of a CROSS JOIN is the left one
// (https://sqlite.org/optoverview.html#crossjoin), and the subquery yields its rows in its order. Otherwise SQLite
// would sort whole rows of any size, up to the number of rows of the page.
func statement(view *model.View, plan query.Plan) string {
	if plan.Where == "" && len(plan.Terms) == 1 || len(plan.Terms) == 0 {
		return store.Select(query.SQLite, view, plan) // in the table's order
	}
	var inner, outer []string
	for _, column := range plan.Columns {
		outer = append(outer, fmt.Sprintf(`r.%q`, column.Name))
	}
	for i, term := range plan.Terms {
		inner = append(inner, fmt.Sprintf(`%q AS "term.%d"`, term.Column, i)) // no column has such a name
		outer = append(outer, fmt.Sprintf(`k."term.%d"`, i))
	}
	where := ""
	if plan.Where != "" {
		where = " WHERE " + plan.Where
	}
	table := query.SQLite.Table(view.Name)
	return fmt.Sprintf(
		"SELECT %s FROM (SELECT %s FROM %s%s ORDER BY %s LIMIT %d) AS k CROSS JOIN %s AS r ON r.%q = k.\"term.%d\"",
		strings.Join(outer, ", "), strings.Join(inner, ", "), table, where, plan.OrderBy, plan.Limit, table,
		query.KeyColumn, len(plan.Terms)-1,
	)
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
	if v, ok := value.(int64); ok && column.Type == model.TypeBool {
		return v != 0, nil
	}
	return store.Decode(column, value)
}
