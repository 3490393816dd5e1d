package model

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"go.yaml.in/yaml/v3"
)

// foldKind is how an event's value is combined with a column.
type foldKind string

const (
	foldValue foldKind = "value" // the newest
	foldCount foldKind = "count"
	foldSum   foldKind = "sum"
	foldMin   foldKind = "min"
	foldMax   foldKind = "max"
)

// fold is the effect of an event on a column of a view whose rows are groups.
type fold struct {
	column Column
	kind   foldKind
	expr   *expression // nil for a count
}

// folded returns the row after the event's values are combined with it; row is empty for a group's first event.
func folded(ctx context.Context, folds []fold, vars *scope, row Object) (Object, error) {
	out := make(Object, len(row)+len(folds))
	for name, value := range row {
		out[name] = value
	}
	for _, f := range folds {
		var value any = int64(1)
		if f.expr != nil {
			var err error
			if value, err = f.expr.value(ctx, vars); err != nil {
				return nil, err
			}
			// Convert to the column's form first, since only in that form are times ordered.
			if value, err = f.column.fit(value); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrEvaluation, err)
			}
		}
		next, err := f.combine(out[f.column.Name], value)
		if err != nil {
			return nil, fmt.Errorf("%w: column %s: %w", ErrEvaluation, f.column.Name, err)
		}
		out[f.column.Name] = next
	}
	return out, nil
}

// combine combines a value with the column's current one; nil changes nothing.
func (f fold) combine(have, value any) (any, error) {
	switch {
	case f.kind == foldValue, have == nil:
		return value, nil
	case value == nil:
		return have, nil
	case f.kind == foldCount, f.kind == foldSum:
		return add(have, value)
	}
	order, err := compare(have, value)
	if err != nil {
		return nil, err
	}
	if f.kind == foldMin && order > 0 || f.kind == foldMax && order < 0 {
		return value, nil
	}
	return have, nil
}

func add(a, b any) (any, error) {
	x, xInt := a.(int64)
	y, yInt := b.(int64)
	if xInt && yInt {
		if sum := x + y; (sum > x) == (y > 0) {
			return sum, nil
		}
		return nil, fmt.Errorf("%d and %d are too large to be added", x, y)
	}
	f, fOK := number(a)
	g, gOK := number(b)
	if !fOK || !gOK || math.IsInf(f+g, 0) {
		return nil, fmt.Errorf("%v and %v cannot be added", a, b)
	}
	return f + g, nil
}

// compare orders two numbers or two texts, such as timestamps.
func compare(a, b any) (int, error) {
	x, xInt := a.(int64)
	y, yInt := b.(int64)
	if xInt && yInt {
		return cmp.Compare(x, y), nil // exact, even where a float64 has gaps
	}
	f, fOK := number(a)
	g, gOK := number(b)
	if fOK && gOK {
		return cmp.Compare(f, g), nil
	}
	s, sOK := a.(string)
	t, tOK := b.(string)
	if sOK && tOK {
		return cmp.Compare(s, t), nil
	}
	return 0, fmt.Errorf("%v and %v cannot be compared", a, b)
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// folds parses a `fold` section: what each column takes from the event.
func (p *parser) folds(m *Model, v *View, ref EventRef, n *yaml.Node, path string) (out []fold) {
	for key, value := range p.members(n, path) {
		path := join(path, key.Value)
		column, ok := v.Column(key.Value)
		if !ok {
			p.reject(key, path, "the view has no column %q", key.Value)
			continue
		}
		f := fold{column: column, kind: foldCount}
		if value.Kind == yaml.ScalarNode {
			if value.Value != string(foldCount) {
				p.reject(value, path, "%q is not `count`, nor {sum: …}, {min: …}, {max: …} or {value: …}", value.Value)
			}
		} else {
			kinds := 0
			for key, value := range p.members(
				value, path, string(foldValue), string(foldSum), string(foldMin), string(foldMax),
			) {
				kinds++
				f.kind = foldKind(key.Value)
				f.expr = p.expression(p.envs.view, value, join(path, key.Value), nil)
				p.warnOfColumn(value, join(path, key.Value), column, m.kindOf(ref, f.expr))
			}
			if kinds != 1 {
				p.reject(value, path, "expected exactly one of sum, min, max and value")
				continue
			}
		}
		allowed, limited := foldTypes[f.kind]
		if limited && slices.Contains(columnTypes, column.Type) && !slices.Contains(allowed, column.Type) {
			p.reject(value, path, "a column of type %s has no %s", column.Type, f.kind)
		}
		out = append(out, f)
	}
	return out
}

var foldTypes = map[foldKind][]ColumnType{
	foldCount: {TypeInt},
	foldSum:   {TypeInt, TypeDouble},
	foldMin:   {TypeInt, TypeDouble, TypeString, TypeTimestamp},
	foldMax:   {TypeInt, TypeDouble, TypeString, TypeTimestamp},
}
