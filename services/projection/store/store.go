// Package store is what a projection needs of a database: a tenant's views and
// how far they have followed the journal, changed together or not at all.
//
// Its implementations are in sqlite and postgres; one test suite runs over both.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
)

// Store is one tenant's views. Apply is called by one goroutine at a time, the
// reads by any number.
type Store interface {
	// Dialect is the database's SQL.
	Dialect() query.Dialect
	// State returns how far the views have followed the journal.
	State(ctx context.Context) (State, error)
	// Apply runs change, and writes what it has added to the batch, in one transaction. change
	// receives the state within the transaction: another node may have changed it. Nothing changes
	// when Apply returns an error; a [*RejectedError] says that the database refuses a view's row.
	Apply(ctx context.Context, change func(batch *Batch, state State) error) error
	// Query calls each for the plan's rows, up to its limit, with the values of its columns
	// and of its terms, and returns the view's state at which they were read. Only a few rows
	// are in memory at a time, and when each returns [ErrStop] no further rows are read. each
	// must not retain the slices.
	Query(ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error) (ViewState, error)
	// Close gives up what the store holds.
	Close() error
}

// ErrStop ends a query early, without an error, when each returns it.
var ErrStop = errors.New("store: no further rows are needed")

// ErrUnavailable says that the database cannot be reached, or cannot serve any query now. A
// later attempt may succeed.
var ErrUnavailable = errors.New("the views' database does not answer")

// ErrFull says that the disk of the views has no room. Nothing has changed, and a later attempt may
// succeed.
var ErrFull = errors.New("the disk of the views is full")

// ErrDamaged says that what a tenant's views are stored in is damaged, or no longer there. The
// store must be closed and opened again: the damaged store is then set aside, and the views are
// empty.
var ErrDamaged = errors.New("the views' store is damaged or missing")

// RejectedError says that the database refuses a row of a view for what is in it: another attempt
// meets the same error, and rows of other views can be written.
type RejectedError struct {
	// View is the view's name.
	View string
	// Reason says why, for users.
	Reason string
	// Err is the database's error.
	Err error
}

// Error implements error.
func (e *RejectedError) Error() string {
	return fmt.Sprintf("view %s: %s: %v", e.View, e.Reason, e.Err)
}

// Unwrap returns the database's error.
func (e *RejectedError) Unwrap() error { return e.Err }

// ErrDecode says that a stored value is not what was stored.
var ErrDecode = errors.New("a stored value cannot be read")

// Opener opens a tenant's store for views; origin fingerprints the model and the
// journal that they are made from. Rows of another origin are not shown.
type Opener func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (Store, error)

// ByKey is the plan that finds the row under a key.
func ByKey(view *model.View, dialect query.Dialect, key string) query.Plan {
	return query.Plan{
		Where: fmt.Sprintf("%q = %s", query.KeyColumn, dialect.Placeholder(1, key)), Args: []any{key},
		OrderBy: fmt.Sprintf("%q", query.KeyColumn), Limit: 1, Columns: view.Columns,
	}
}

// Among narrows a plan to the rows under keys, which it may have fewer of.
func Among(plan query.Plan, dialect query.Dialect, keys []string) query.Plan {
	marks := make([]string, len(keys))
	plan.Args = slices.Clone(plan.Args)
	for i, key := range keys {
		plan.Args = append(plan.Args, key)
		marks[i] = dialect.Placeholder(len(plan.Args), key)
	}
	condition := fmt.Sprintf("%q IN (%s)", query.KeyColumn, strings.Join(marks, ", "))
	if plan.Where != "" {
		condition = "(" + plan.Where + ") AND " + condition
	}
	plan.Where, plan.Limit = condition, len(keys)
	return plan
}

// Select returns a plan's statement.
func Select(dialect query.Dialect, view *model.View, plan query.Plan) string {
	selected := make([]string, 0, len(plan.Columns)+len(plan.Terms))
	for _, column := range plan.Columns {
		selected = append(selected, dialect.Column(column.Name))
	}
	for _, term := range plan.Terms {
		selected = append(selected, dialect.Column(term.Column))
	}
	text := "SELECT " + strings.Join(selected, ", ") + " FROM " + dialect.Table(view.Name)
	if plan.Where != "" {
		text += " WHERE " + plan.Where
	}
	return text + fmt.Sprintf(" ORDER BY %s LIMIT %d", plan.OrderBy, plan.Limit)
}

// encode returns a column's value as it is bound: JSON as its text, and what is no
// number as nothing, which is what SQLite makes of it.
func encode(view *model.View, column model.Column, value any) (any, error) {
	if number, ok := value.(float64); ok && column.Type == model.TypeDouble && math.IsNaN(number) {
		return nil, nil
	}
	if column.Type != model.TypeJSON || value == nil {
		return value, nil
	}
	data, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s.%s: %w", view.Name, column.Name, err)
	}
	return string(data), nil
}

// Decode returns a column's value as plain JSON.
func Decode(column model.Column, value any) (any, error) {
	text, ok := value.(string)
	if !ok || column.Type != model.TypeJSON {
		return value, nil
	}
	var out any
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&out); err != nil {
		return nil, fmt.Errorf("%w: column %s: %w", ErrDecode, column.Name, err)
	}
	return model.Normalize(out), nil
}

// Object returns a row's values by their columns' names.
func Object(columns []model.Column, values []any) model.Object {
	row := make(model.Object, len(columns))
	for i, column := range columns {
		row[column.Name] = values[i]
	}
	return row
}
