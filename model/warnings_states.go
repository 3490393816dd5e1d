package model

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// warnOfStates records the JSON types of the states' members, and warns of members that events set to values of
// different types.
func (p *parser) warnOfStates(m *Model) {
	m.states = map[string]map[string]string{}
	type first struct{ kind, event string }
	for _, a := range m.Aggregates() {
		members, uncertain := map[string]first{}, map[string]bool{}
		place := join(join("aggregates", a.Name), "evolve")
		for _, u := range p.usesBelow(place) {
			event, member, _ := strings.Cut(strings.TrimPrefix(u.path, place+"."), ".")
			if slices.Equal(memberOf(u.expr), []string{stateVariable, member}) {
				continue // the rule keeps the value
			}
			kind := m.jsonKindAt(u.path, u.expr)
			before, known := members[member]
			switch {
			case kind == unknown:
				uncertain[member] = true
			case !known:
				members[member] = first{kind, event}
			case before.kind == kind:
			case isNumeric(before.kind) && isNumeric(kind):
				members[member] = first{"number", before.event}
			default:
				uncertain[member] = true
				p.warn(u.node, u.path, "the values are of JSON type %s, and %s sets state.%s to values of type %s: "+
					"write values of one type", kind, before.event, member, before.kind)
			}
		}
		m.states[a.Name] = map[string]string{}
		for member, known := range members {
			if !uncertain[member] {
				m.states[a.Name][member] = known.kind
			}
		}
	}
}

// warnOfRow warns of values that never fit their column, and whose type is that of an operation.
func (p *parser) warnOfRow(m *Model, u use) {
	parts := strings.Split(u.path, ".")
	if len(parts) != 7 || parts[0] != "views" || parts[2] != "on" || parts[5] != "upsert" && parts[5] != "patch" {
		return
	}
	v, ok := m.View(parts[1])
	if !ok || slices.ContainsFunc(p.warnings, func(i Issue) bool { return i.Line == u.node.Line && i.Path == u.path }) {
		return
	}
	if column, ok := v.Column(parts[6]); ok {
		p.warnOfColumn(u.node, u.path, column, m.jsonKindAt(u.path, u.expr))
	}
}

// jsonKindAt returns the JSON type of the values of the expression at a path.
func (m *Model) jsonKindAt(path string, e ast.Expr) string {
	switch {
	case e.Kind() == ast.ListKind:
		return "array"
	case e.Kind() == ast.MapKind:
		return "object"
	case e.Kind() == ast.CallKind && slices.Contains(booleanOperators, e.AsCall().FunctionName()):
		return "boolean"
	case e.Kind() == ast.SelectKind && e.AsSelect().IsTestOnly():
		return "boolean"
	case e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.Conditional:
		one, other := m.jsonKindAt(path, e.AsCall().Args()[1]), m.jsonKindAt(path, e.AsCall().Args()[2])
		if one == other {
			return one
		}
		return unknown
	}
	switch kind := m.operandAt(path, e); kind {
	case kindFraction:
		return "number"
	case kindTime, kindLength:
		return "string"
	default:
		return kind
	}
}

// booleanOperators yield true or false.
var booleanOperators = []string{
	operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.In, operators.Less, operators.LessEquals,
	operators.Greater, operators.GreaterEquals, operators.Equals, operators.NotEquals,
}
