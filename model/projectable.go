package model

import (
	"context"
	"fmt"
	"time"
)

// MaxKeyBytes bounds the key of a view's row that a new event makes. With MaxIndexedBytes and a tenant's name it fits
// an entry of PostgreSQL's B-trees, a third of a page of 8 KiB.
const MaxKeyBytes = 1024

// MaxIndexedBytes bounds a text of a new event in a column with an index, see [MaxKeyBytes].
const MaxIndexedBytes = 1536

// projection is the part of one view's projection of one event type that does not depend on rows.
type projection struct {
	view   *View
	place  string
	key    *expression
	values []projectedValue
	simple bool // all expressions are members of the event or its envelope, so none has to be evaluated
}

// projectedValue is a value for a column.
type projectedValue struct {
	column Column
	expr   *expression
	number bool // the value is added to another
}

// newProjections returns the views' projections by event type.
func (m *Model) newProjections() map[EventRef][]projection {
	out := map[EventRef][]projection{}
	for _, v := range m.views {
		for ref, on := range v.on {
			p := projection{
				view:   v,
				place:  v.place(ref),
				key:    v.key,
				simple: v.key == nil || len(v.key.member) == 2,
			}
			add := func(column Column, expr *expression, sum bool) {
				if expr == nil || expr.usesRow {
					return
				}
				p.values = append(p.values, projectedValue{column, expr, sum})
				p.simple = p.simple && len(expr.member) == 2
			}
			for _, value := range on.values {
				if column, ok := v.Column(value.name); ok {
					add(column, value.expr, false)
				}
			}
			for _, f := range on.folds {
				add(f.column, f.expr, f.kind == foldSum)
			}
			out[ref] = append(out[ref], p)
		}
	}
	return out
}

// CheckProjections returns an [*EvaluationError] if a view cannot apply a new event regardless of its rows: an
// expression without rows fails, a value does not have its column's type, or a key or an indexed text is too long. A
// view may still fail by an expression that uses its row. It also returns ctx's error.
func (m *Model) CheckProjections(ctx context.Context, ref EventRef, data Object, meta Meta) error {
	projections := m.projections[ref]
	if len(projections) == 0 {
		return nil
	}
	var vars *scope // created by the first expression that must be evaluated
	for i := range projections {
		p := &projections[i]
		if vars == nil && !p.simple {
			vars = eventScope(data, meta)
		}
		if err := p.check(ctx, data, meta, vars); err != nil {
			return err
		}
	}
	return nil
}

// check is CheckProjections for one view. vars is nil if all expressions are simple.
func (p *projection) check(ctx context.Context, data Object, meta Meta, vars *scope) error {
	value := func(e *expression) (any, error) {
		if v, ok := e.simple(data); ok {
			return v, nil
		}
		if vars == nil { // a member that is missing or not a scalar
			vars = eventScope(data, meta)
		}
		return e.value(ctx, vars)
	}
	if p.key != nil {
		v, err := value(p.key)
		if err != nil {
			return evaluating("views."+p.view.Name+".key", err)
		}
		key, ok := v.(string)
		switch {
		case !ok:
			return evaluating("views."+p.view.Name+".key",
				&ExpressionError{Expression: p.key.source, Err: fmt.Errorf("it yields %s, want a string", jsonType(v))})
		case len(key) > MaxKeyBytes:
			return evaluating(
				"views."+p.view.Name+".key",
				&ExpressionError{
					Expression: p.key.source,
					Err:        fmt.Errorf("the key has %d bytes; at most %d are allowed", len(key), MaxKeyBytes),
				},
			)
		}
	}
	for i := range p.values {
		one := &p.values[i]
		v, err := value(one.expr)
		if err == nil {
			if err = one.fits(v); err != nil {
				err = &ExpressionError{Expression: one.expr.source, Err: err}
			}
		}
		if err != nil {
			return evaluating(p.place, err)
		}
	}
	return nil
}

// eventScope returns the variables of an event without a row.
func eventScope(data Object, meta Meta) *scope {
	return &scope{variables: [2]variable{{rowVariable, emptyRow}, {eventVariable, data}}, meta: &meta}
}

// simple returns the event's member that the expression names, if it is a scalar.
func (e *expression) simple(data Object) (any, bool) {
	if len(e.member) != 2 || e.member[0] != eventVariable {
		return nil, false
	}
	switch v := data[e.member[1]].(type) {
	case string, int64, bool, float64:
		return v, true
	}
	return nil, false
}

// fits returns why a value does not fit the column.
func (p *projectedValue) fits(value any) error {
	if text, ok := value.(string); ok {
		if p.column.Type == TypeTimestamp {
			_, err := parseTime(text)
			if err != nil {
				err = fmt.Errorf("column %s: %w", p.column.Name, err)
			}
			return err
		}
		if p.column.Index && len(text) > MaxIndexedBytes {
			return fmt.Errorf("column %s has an index, and the text has %d bytes; at most %d are allowed",
				p.column.Name, len(text), MaxIndexedBytes)
		}
	}
	if p.number && value != nil {
		if _, ok := number(value); !ok {
			return fmt.Errorf("column %s is a sum and got %s", p.column.Name, jsonType(value))
		}
	}
	if _, ok := value.(int64); ok && p.column.Type == TypeDouble {
		return nil
	}
	_, err := p.column.fit(value)
	return err
}

// parseTime parses a timestamp as RFC 3339 defines it: with "t" and "z" in either case (§5.6), and with leap seconds
// (§5.7), which are the first instant of the next minute. Its year in UTC has four digits.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t, err = parseRareTime(text)
	}
	if err == nil {
		if year := t.UTC().Year(); year < 0 || year > 9999 {
			err = errNotTimestamp
		}
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not a timestamp (RFC 3339)", shortened(text))
	}
	return t, nil
}

var errNotTimestamp = fmt.Errorf("it is not a timestamp")

// parseRareTime parses the timestamps that package time does not.
func parseRareTime(text string) (time.Time, error) {
	if len(text) < len("2006-01-02t15:04:05z") {
		return time.Time{}, errNotTimestamp
	}
	upper := []byte(text)
	if upper[10] == 't' {
		upper[10] = 'T'
	}
	if last := len(upper) - 1; upper[last] == 'z' {
		upper[last] = 'Z'
	}
	leap := string(upper[16:19]) == ":60"
	if leap {
		upper[17], upper[18] = '5', '9'
	}
	t, err := time.Parse(time.RFC3339Nano, string(upper))
	if err != nil || !leap {
		return t, err
	}
	if utc := t.UTC(); utc.Hour() != 23 || utc.Minute() != 59 { // leap seconds end a day of UTC
		return time.Time{}, errNotTimestamp
	}
	return t.Truncate(time.Second).Add(time.Second), nil
}

// shortened truncates a text for a message.
func shortened(text string) string {
	const most = 64
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}
