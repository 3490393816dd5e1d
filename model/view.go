package model

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

// ColumnType is the type of a view's column.
type ColumnType string

// Types of columns.
const (
	TypeString    ColumnType = "string"
	TypeInt       ColumnType = "int"
	TypeDouble    ColumnType = "double"
	TypeBool      ColumnType = "bool"
	TypeTimestamp ColumnType = "timestamp" // RFC 3339 in UTC
	TypeJSON      ColumnType = "json"
)

var columnTypes = []ColumnType{TypeString, TypeInt, TypeDouble, TypeBool, TypeTimestamp, TypeJSON}

// Column is a column of a view.
type Column struct {
	Name  string
	Type  ColumnType
	Index bool
}

// View is a table that events are projected into.
type View struct {
	// Name is the view's name.
	Name string
	// Columns are the view's columns in the document's order.
	Columns []Column

	key         *expression // nil: the aggregate's id
	on          map[EventRef]projector
	fingerprint uint64
}

type changeKind int

const (
	kindUpsert changeKind = iota
	kindPatch
	kindDelete
	kindFold
)

type projector struct {
	kind   changeKind
	blind  bool // the change does not depend on the row
	values fields
	folds  []fold
}

// Change is the effect of an event on a view: Row replaces the row under Key, or removes it if nil.
type Change struct {
	Key string
	Row Object
}

// Column returns the column of that name.
func (v *View) Column(name string) (Column, bool) {
	i := slices.IndexFunc(v.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 {
		return Column{}, false
	}
	return v.Columns[i], true
}

// Blind reports whether [View.Project] does not use current for the event, so that it can be called before earlier
// events are applied.
func (v *View) Blind(ref EventRef) bool {
	projector, ok := v.on[ref]
	return !ok || projector.blind
}

// Concerns reports whether the view projects events of that type.
func (v *View) Concerns(ref EventRef) bool {
	_, ok := v.on[ref]
	return ok
}

// Key returns the key of the row that the event affects; false for none. Errors as of [View.Project].
func (v *View) Key(ctx context.Context, ref EventRef, data Object, meta Meta) (string, bool, error) {
	if _, ok := v.on[ref]; !ok {
		return "", false, nil
	}
	key, err := v.keyOf(ctx,
		&scope{variables: [2]variable{{rowVariable, emptyRow}, {eventVariable, data}}, meta: &meta}, meta)
	return key, true, err
}

func (v *View) keyOf(ctx context.Context, vars *scope, meta Meta) (string, error) {
	if v.key == nil {
		return meta.AggregateID, nil
	}
	key, err := v.key.text(ctx, vars)
	if err != nil {
		return "", evaluating("views."+v.Name+".key", err)
	}
	return key, nil
}

// Project returns the event's change of the view, nil for none. current reads the current row under a key, nil for
// none; it is called at most once. Errors: an [*EvaluationError], ctx's or current's.
func (v *View) Project(
	ctx context.Context, ref EventRef, data Object, meta Meta, current func(key string) (Object, error),
) (*Change, error) {
	projector, ok := v.on[ref]
	if !ok {
		return nil, nil
	}
	vars := &scope{variables: [2]variable{{rowVariable, emptyRow}, {eventVariable, data}}, meta: &meta}
	key, err := v.keyOf(ctx, vars, meta)
	if err != nil {
		return nil, err
	}
	if projector.kind == kindDelete {
		return &Change{Key: key}, nil
	}
	var row Object
	if !projector.blind {
		if row, err = current(key); err != nil {
			return nil, err
		}
	}
	if row == nil {
		if projector.kind == kindPatch {
			return nil, nil // the row was deleted, or never existed: there is nothing to patch
		}
		row = emptyRow
	}
	vars.variables[0] = variable{rowVariable, row}
	var values Object // of some columns
	if projector.kind == kindFold {
		values, err = folded(ctx, projector.folds, vars, row)
	} else {
		values, err = projector.values.object(ctx, vars)
	}
	if err != nil {
		return nil, evaluating(v.place(ref), err)
	}
	for _, column := range v.Columns {
		value, set := values[column.Name]
		if !set && projector.kind == kindPatch {
			value = row[column.Name]
		}
		if values[column.Name], err = column.fit(value); err != nil {
			return nil, evaluating(v.place(ref), fmt.Errorf("%w: %w", ErrEvaluation, err))
		}
	}
	return &Change{Key: key, Row: values}, nil
}

// place returns the place in the document of an event's change of the view.
func (v *View) place(ref EventRef) string {
	return "views." + v.Name + ".on." + ref.Aggregate + "." + ref.Event
}

// emptyRow is the row in expressions if there is none; it is never written to.
var emptyRow = Object{}

// fit converts value to the column's type, or returns why it does not fit.
func (c Column) fit(value any) (any, error) {
	if value == nil {
		return nil, nil
	}
	ok := false
	switch c.Type {
	case TypeString:
		_, ok = value.(string)
	case TypeInt:
		_, ok = value.(int64)
	case TypeDouble:
		if i, isInt := value.(int64); isInt {
			return float64(i), nil
		}
		_, ok = value.(float64)
	case TypeBool:
		_, ok = value.(bool)
	case TypeTimestamp:
		if s, isText := value.(string); isText {
			t, err := parseTime(s)
			if err != nil {
				return nil, fmt.Errorf("column %s: %w", c.Name, err)
			}
			return FormatTime(t), nil
		}
	case TypeJSON:
		ok = true
	}
	if !ok {
		return nil, fmt.Errorf("column %s is of type %s and got %s", c.Name, c.Type, jsonType(value))
	}
	return value, nil
}

// FormatTime renders a time in the form of timestamp columns: RFC 3339, in UTC, of fixed width, so that text order is
// time order.
func FormatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02T15:04:05.000000000Z")
}

func (p *parser) view(m *Model, name string, n *yaml.Node, path string) *View {
	v := &View{Name: name, on: map[EventRef]projector{}}
	var on *yaml.Node
	for key, value := range p.members(n, path, "description", "key", "columns", "on") {
		switch key.Value {
		case "key":
			v.key = p.expression(p.envs.view, value, join(path, "key"), stringType)
		case "columns":
			for key, value := range p.members(value, join(path, "columns")) {
				v.Columns = append(v.Columns, p.column(key, value, join(join(path, "columns"), key.Value)))
			}
		case "on":
			on = value
		}
	}
	if len(v.Columns) == 0 || on == nil {
		p.reject(n, path, "a view needs `columns` and `on` (the change by each event)")
		return v
	}
	for key, value := range p.members(on, join(path, "on")) {
		path := join(join(path, "on"), key.Value)
		if ref, ok := p.eventRef(m, key, path); ok {
			v.on[ref] = p.projector(m, v, ref, value, path)
			if kind := m.kindOf(ref, v.key); kind != unknown && kind != "string" {
				p.warn(memberOfMapping(n, "key"), join(join("views", name), "key"),
					"the key is text, and of %s it is of JSON type %s: write string(…)", key.Value, kind)
			}
		}
	}
	return v
}

func (p *parser) column(key, n *yaml.Node, path string) Column {
	c := Column{Name: key.Value}
	p.name(key, path)
	typeNode := n
	if n.Kind == yaml.MappingNode {
		for key, value := range p.members(n, path, "type", "index", "description") {
			switch key.Value {
			case "type":
				typeNode = value
			case "index":
				if err := value.Decode(&c.Index); err != nil {
					p.reject(value, join(path, "index"), "expected true or false")
				}
			}
		}
	}
	c.Type = ColumnType(typeNode.Value)
	if !slices.Contains(columnTypes, c.Type) {
		p.reject(typeNode, path, "%q is not a column type: write string, int, double, bool, timestamp or json",
			typeNode.Value)
	}
	return c
}

func (p *parser) projector(m *Model, v *View, ref EventRef, n *yaml.Node, path string) projector {
	var (
		out   projector
		count int
	)
	for key, value := range p.members(n, path, "upsert", "patch", "delete", "fold") {
		count++
		switch key.Value {
		case "delete":
			out.kind, out.blind = kindDelete, true
			if !p.stored && value.Value != "true" {
				p.reject(value, join(path, "delete"), "expected true")
			}
			continue
		case "patch":
			out.kind = kindPatch
		case "fold":
			out.kind, out.folds = kindFold, p.folds(m, v, ref, value, join(path, "fold"))
			continue
		}
		out.values = p.fields(p.envs.view, value, join(path, key.Value))
		out.blind = out.kind == kindUpsert
		for _, f := range out.values {
			out.blind = out.blind && (f.expr == nil || !f.expr.usesRow)
			column, ok := v.Column(f.name)
			if !ok {
				p.reject(value, join(path, key.Value), "the view has no column %q", f.name)
				continue
			}
			p.warnOfColumn(memberOfMapping(value, f.name), join(join(path, key.Value), f.name), column,
				m.kindOf(ref, f.expr))
		}
	}
	if count != 1 {
		p.reject(n, path, "expected exactly one of upsert, patch, fold and delete")
	}
	return out
}
