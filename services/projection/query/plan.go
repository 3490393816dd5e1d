package query

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.einride.tech/aip/ordering"

	"github.com/headgate/headgate/model"
)

// Errors of invalid requests; they are wrapped with the reason.
var (
	ErrFilter = errors.New("the filter cannot be used")
	ErrOrder  = errors.New("order_by cannot be used")
	ErrFields = errors.New("fields cannot be used")
	ErrToken  = errors.New("the page token cannot be used")
)

// KeyColumn is the column that contains a row's key. It is not a column of the view.
const KeyColumn = "_key"

const (
	// DefaultPageSize is the default size of a page.
	DefaultPageSize = 100
	// maxOrderTerms bounds the terms of an order.
	maxOrderTerms = 8
)

// Request is a client's query.
type Request struct {
	Filter    string
	OrderBy   string
	PageSize  int
	PageToken string
	Fields    []string
}

// Plan is a page of a view in SQL.
type Plan struct {
	// Where is the condition, "" for none, with Args bound in order.
	Where string
	Args  []any
	// OrderBy is the ORDER BY list.
	OrderBy string
	// Limit is the page size plus one, to detect whether another page follows.
	Limit int
	// Columns are the columns to return.
	Columns []model.Column
	// Terms are the columns of the order, the key last. Their values in the last row of a page make the next page
	// token.
	Terms []Term
	// Fingerprint is the fingerprint of the view's definition.
	Fingerprint uint64
}

// Term is a term of an order.
type Term struct {
	Column string
	Type   model.ColumnType
	Desc   bool
}

// Dialect describes the differences between databases.
type Dialect struct {
	// Table and Column return the quoted names of a view's table and of a column.
	Table, Column func(name string) string
	// Placeholder returns the n-th bound parameter, from 1, for value.
	Placeholder func(n int, value any) string
	// NullSafeEqual is the operator that treats NULL as equal to NULL.
	NullSafeEqual string
	// Not is a format of a condition: whether it is false or NULL.
	Not string
	// Contains is a format of two operands: whether the first contains the second.
	Contains string
	// Like is a format of two operands: whether a [Pattern] matches a text.
	Like string
	// JSON returns the condition that a JSON column passes a test. bind binds a value and returns its parameter.
	JSON func(column string, test JSONTest, bind func(value any) string) string
	// NullsFirst is appended to an ascending and NullsLast to a descending term if the database's default order of
	// NULL differs.
	NullsFirst, NullsLast string
}

// Compile plans a request, except its page token, for a view. Errors wrap [ErrFilter], [ErrOrder] or [ErrFields].
func Compile(view *model.View, request Request, dialect Dialect) (Plan, error) {
	b := &builder{dialect: dialect}
	plan := Plan{Limit: request.PageSize, Fingerprint: view.Fingerprint()}
	if plan.Limit == 0 {
		plan.Limit = DefaultPageSize
	}
	plan.Limit++
	var err error
	if plan.Columns, err = Columns(view, request.Fields); err != nil {
		return Plan{}, err
	}
	if plan.Terms, err = terms(view, request.OrderBy); err != nil {
		return Plan{}, err
	}
	if strings.TrimSpace(request.Filter) != "" {
		if plan.Where, err = b.filter(view, request.Filter); err != nil {
			return Plan{}, err
		}
	}
	plan.Args = b.args
	order := make([]string, len(plan.Terms))
	for i, term := range plan.Terms {
		order[i] = dialect.Column(term.Column) + " ASC" + dialect.NullsFirst
		if term.Desc {
			order[i] = dialect.Column(term.Column) + " DESC" + dialect.NullsLast
		}
	}
	plan.OrderBy = strings.Join(order, ", ")
	return plan, nil
}

// After restricts the plan to the rows after a cursor without digests.
func (p Plan) After(dialect Dialect, cursor Cursor) Plan {
	b := &builder{dialect: dialect, args: slices.Clone(p.Args)}
	condition := b.after(p.Terms, cursor)
	if p.Where != "" {
		condition = "(" + p.Where + ") AND " + condition
	}
	p.Where, p.Args = condition, b.args
	return p
}

// Columns returns the view's columns that fields name, or all if there are none. The error wraps [ErrFields].
func Columns(view *model.View, fields []string) ([]model.Column, error) {
	if len(fields) == 0 {
		return view.Columns, nil
	}
	var list []model.Column
	for _, name := range fields {
		column, ok := view.Column(name)
		if !ok {
			return nil, fmt.Errorf("%w: view %q has no column %q (it has %s)", ErrFields, view.Name, name, names(view))
		}
		if !slices.Contains(list, column) {
			list = append(list, column)
		}
	}
	return list, nil
}

// terms parses an order and appends the key, so that the order is total.
func terms(view *model.View, orderBy string) ([]Term, error) {
	var parsed ordering.OrderBy
	if err := parsed.UnmarshalString(orderBy); err != nil {
		return nil, fmt.Errorf(
			"%w: write columns separated by commas, each with desc or without, such as \"total desc, title\"",
			ErrOrder,
		)
	}
	if len(parsed.Fields) > maxOrderTerms {
		return nil, fmt.Errorf("%w: it has %d criteria, at most %d are allowed", ErrOrder, len(parsed.Fields),
			maxOrderTerms)
	}
	list := make([]Term, 0, len(parsed.Fields)+1)
	for _, f := range parsed.Fields {
		column, ok := view.Column(f.Path)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: view %q has no column %q (it has %s)", ErrOrder, view.Name, f.Path, names(view))
		case column.Type == model.TypeJSON:
			return nil, fmt.Errorf("%w: column %q is JSON, which is not ordered", ErrOrder, f.Path)
		}
		list = append(list, Term{Column: column.Name, Type: column.Type, Desc: f.Desc})
	}
	return append(list, Term{Column: KeyColumn, Type: model.TypeString}), nil
}

// after returns the condition that a row comes after the given values of terms. NULL comes first.
func (b *builder) after(terms []Term, values []any) string {
	var alternatives []string
	for i, term := range terms {
		if values[i] == nil && term.Desc {
			continue // no value comes after NULL in a descending order
		}
		parts := make([]string, 0, i+1)
		for j, equal := range terms[:i] {
			parts = append(parts, b.dialect.Column(equal.Column)+" "+b.dialect.NullSafeEqual+" "+b.bind(values[j]))
		}
		column := b.dialect.Column(term.Column)
		switch {
		case values[i] == nil:
			parts = append(parts, column+" IS NOT NULL")
		case term.Desc:
			parts = append(parts, "("+column+" < "+b.bind(values[i])+" OR "+column+" IS NULL)")
		default:
			parts = append(parts, column+" > "+b.bind(values[i]))
		}
		alternatives = append(alternatives, "("+strings.Join(parts, " AND ")+")")
	}
	return "(" + strings.Join(alternatives, " OR ") + ")"
}

// builder collects the bound values of a statement.
type builder struct {
	dialect Dialect
	view    *model.View
	args    []any
}

func (b *builder) bind(value any) string {
	b.args = append(b.args, value)
	return b.dialect.Placeholder(len(b.args), value)
}

func names(view *model.View) string {
	list := make([]string, len(view.Columns))
	for i, column := range view.Columns {
		list[i] = column.Name
	}
	return strings.Join(list, ", ")
}
