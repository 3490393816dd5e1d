package model

import (
	"slices"

	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"
)

// unknown is the JSON type of an expression whose type depends on data that the model does not describe.
const unknown = ""

// columnKinds are the JSON types that a column can hold. Values of other types never fit.
var columnKinds = map[ColumnType][]string{
	TypeString:    {"string"},
	TypeInt:       {"integer", "number"}, // a number may have no fraction
	TypeDouble:    {"integer", "number"},
	TypeBool:      {"boolean"},
	TypeTimestamp: {"string"},
}

// celKinds are the JSON types of CEL's values.
var celKinds = map[types.Kind]string{
	types.StringKind: "string", types.BytesKind: "string", types.TimestampKind: "string",
	types.DurationKind: "string", types.IntKind: "integer", types.UintKind: "integer", types.DoubleKind: "number",
	types.BoolKind: "boolean", types.ListKind: "array", types.MapKind: "object",
}

// kindOf returns the JSON type of the values of a view's expression for an event: that of the expression, or of the
// event's member that it is, if all commands emit it with the same type.
func (m *Model) kindOf(ref EventRef, expr *expression) string {
	if expr == nil {
		return unknown
	}
	switch {
	case len(expr.member) == 2 && expr.member[0] == eventVariable:
		return m.kindOfMember(ref, expr.member[1])
	case len(expr.member) == 2 && expr.member[0] == metaVariable:
		return metaKind(expr.member[1])
	}
	return celKinds[expr.yields.Kind()]
}

// metaKind returns the JSON type of a member of meta.
func metaKind(member string) string {
	switch _, ok := metaMembers[member]; {
	case !ok:
		return unknown
	case member == "version":
		return "integer"
	}
	return "string"
}

// kindOfMember returns the JSON type of a member of an event, if all commands emit it with the same type.
func (m *Model) kindOfMember(ref EventRef, member string) string {
	a := m.aggregates[ref.Aggregate]
	if a == nil {
		return unknown
	}
	kind := unknown
	for _, command := range a.commands {
		for _, e := range command.emit {
			if e.event != ref.Event {
				continue
			}
			emitted := command.kindOf(e.data, member)
			if emitted == unknown || kind != unknown && kind != emitted {
				return unknown
			}
			kind = emitted
		}
	}
	return kind
}

// kindOf returns the JSON type of a member of an event that the command emits.
func (c *Command) kindOf(data fields, name string) string {
	for _, f := range data {
		if f.name != name || f.expr == nil {
			continue
		}
		switch {
		case len(f.expr.member) == 2 && f.expr.member[0] == commandVariable:
			return c.kindOfMember(f.expr.member[1])
		case len(f.expr.member) == 2 && f.expr.member[0] == metaVariable:
			return metaKind(f.expr.member[1])
		}
		return celKinds[f.expr.yields.Kind()]
	}
	return unknown
}

// kindOfMember returns the JSON type of a member of the command's payload.
func (c *Command) kindOfMember(name string) string {
	properties, _ := c.raw["properties"].(Object)
	property, _ := properties[name].(Object)
	kind, _ := property["type"].(string) // a list of types is none that is known
	return kind
}

// warnOfColumn warns of values of a JSON type that never fits the column that they are for.
func (p *parser) warnOfColumn(n *yaml.Node, path string, column Column, kind string) {
	fitting, limited := columnKinds[column.Type]
	if kind == unknown || !limited || slices.Contains(fitting, kind) {
		return
	}
	p.warn(n, path, "the values are of JSON type %s, which never fits column %q of type %s", kind, column.Name,
		string(column.Type))
}
