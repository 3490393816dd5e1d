package model

import (
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
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
	if len(expr.member) != 2 || expr.member[0] != eventVariable {
		return celKinds[expr.yields.Kind()]
	}
	kind := unknown
	for _, command := range m.aggregates[ref.Aggregate].commands {
		for _, e := range command.emit {
			if e.event != ref.Event {
				continue
			}
			emitted := command.kindOf(e.data, expr.member[1])
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
		if len(f.expr.member) != 2 || f.expr.member[0] != commandVariable {
			return celKinds[f.expr.yields.Kind()]
		}
		properties, _ := c.raw["properties"].(Object)
		property, _ := properties[f.expr.member[1]].(Object)
		kind, _ := property["type"].(string) // a list of types is none that is known
		return kind
	}
	return unknown
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

// warnOfTimes warns of meta.time + duration(…): meta.time is text.
func (p *parser) warnOfTimes(u use) {
	ast.PostOrderVisit(u.expr, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		call := e.AsCall()
		if call.FunctionName() != operators.Add && call.FunctionName() != operators.Subtract {
			return
		}
		time, length := false, false
		for _, arg := range call.Args() {
			switch arg.Kind() {
			case ast.SelectKind:
				operand := arg.AsSelect().Operand()
				time = time || operand.Kind() == ast.IdentKind && operand.AsIdent() == metaVariable &&
					arg.AsSelect().FieldName() == "time"
			case ast.CallKind:
				function := arg.AsCall().FunctionName()
				length = length || function == "duration" || function == "timestamp"
			}
		}
		if time && length {
			p.warn(u.node, u.path, "meta.time is text: write timestamp(meta.time)")
		}
	}))
}
