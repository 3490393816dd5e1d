// Package store defines the database of a projection: it stores a tenant's views and their checkpoint in the journal,
// which change together or not at all.
//
// Packages sqlite and postgres implement it; one test suite covers both.
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

// Store is the views of one tenant. Apply is called by one goroutine at a time, the reads by any number.
type Store interface {
	// Dialect returns the database's SQL dialect.
	Dialect() query.Dialect
	// State returns the views' progress in the journal.
	State(ctx context.Context) (State, error)
	// Apply runs change, and writes the resulting batch, in one transaction. change receives the state within the
	// transaction, since another node may have changed it. Nothing changes when Apply returns an error. A
	// [*RejectedError] reports that the database rejects a view's row.
	Apply(ctx context.Context, change func(batch *Batch, state State) error) error
	// Query calls each for the plan's rows, up to its limit, with the values of its columns and of its terms, and
	// returns the view's state at which they were read. Only a few rows are in memory at a time, and when each
	// returns [ErrStop] no further rows are read. each must not retain the slices.
	Query(
		ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
	) (ViewState, error)
	// Aggregates calls each for the entries of a lookup, ordered by id, until it returns [ErrStop], and returns how far
	// the index that they were read from covers the journal. An aggregate of which another program has written two
	// first events has two entries.
	Aggregates(ctx context.Context, lookup Lookup, each func(Aggregate) error) (Indexed, error)
	// Close releases the store's resources.
	Close() error
}

// ErrStop ends a query early, without an error, when each returns it.
var ErrStop = errors.New("store: no further rows are needed")

// ErrUnavailable reports that the database cannot be reached or cannot serve queries now. It is transient.
var ErrUnavailable = errors.New("the views' database does not respond")

// ErrFull reports that the disk of the views is full. Nothing has changed, and the operation may be retried.
var ErrFull = errors.New("the disk of the views is full")

// ErrDamaged reports that the storage of a tenant's views is damaged or missing. The caller must close and reopen the
// store, which sets the damaged storage aside and starts with empty views.
var ErrDamaged = errors.New("the views' store is damaged or missing")

// RejectedError reports that the database rejects a row of a view because of its content: a retry would fail too, and
// rows of other views can be written.
type RejectedError struct {
	// View is the view's name.
	View string
	// Reason is the reason, for users.
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

// ErrDecode reports that a stored value differs from what was stored.
var ErrDecode = errors.New("a stored value cannot be read")

// Opener opens a tenant's store for views; origin identifies the model and the journal that they are made from. Rows
// of another origin are not shown.
type Opener func(ctx context.Context, tenant contextkit.TenantID, views []*model.View, origin string) (Store, error)

// ByKey returns the plan that finds the row under a key.
func ByKey(view *model.View, dialect query.Dialect, key string) query.Plan {
	return query.Plan{
		Where:   fmt.Sprintf("%q = %s", query.KeyColumn, dialect.Placeholder(1, key)),
		Args:    []any{key},
		OrderBy: fmt.Sprintf("%q", query.KeyColumn),
		Limit:   1,
		Columns: view.Columns,
	}
}

// Among restricts a plan to the rows under keys.
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

// encode returns the bound form of a column's value: JSON as its text, and NaN as NULL, as SQLite does.
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

// Object returns a row's values by column name.
func Object(columns []model.Column, values []any) model.Object {
	row := make(model.Object, len(columns))
	for i, column := range columns {
		row[column.Name] = values[i]
	}
	return row
}
