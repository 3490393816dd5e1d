package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"go.yaml.in/yaml/v3"
)

// warnOfComparisons warns of members of the payload that are compared with texts that their schema's enum lacks.
func (p *parser) warnOfComparisons(m *Model, u use) {
	parts := strings.Split(u.path, ".")
	if len(parts) < 4 || parts[0] != "aggregates" || parts[2] != "commands" || declaredNames(u.expr)[commandVariable] {
		return
	}
	command := m.aggregates[parts[1]].commands[parts[3]]
	check := func(member, value ast.Expr) {
		path := pathOf(member)
		text, ok := textOf(value)
		if !ok || len(path) < 2 || path[0] != commandVariable {
			return
		}
		property, _, _ := propertyAt(command.raw, path)
		if values, ok := enumOf(property); ok && !slices.Contains(values, text) {
			p.warn(u.node, u.path, "%s is never %q: its schema's enum has %s", strings.Join(path, "."), text,
				list(strings.Join(values, ", ")))
		}
	}
	ast.PostOrderVisit(u.expr, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		args := e.AsCall().Args()
		switch e.AsCall().FunctionName() {
		case operators.Equals, operators.NotEquals:
			check(args[0], args[1])
			check(args[1], args[0])
		case operators.In:
			if args[1].Kind() == ast.ListKind {
				for _, value := range args[1].AsList().Elements() {
					check(args[0], value)
				}
			}
		}
	}))
}

// warnOfNestedMembers warns of members of the payload's closed objects that an expression reads and the schema refuses.
func (p *parser) warnOfNestedMembers(m *Model, u use) {
	parts := strings.Split(u.path, ".")
	if len(parts) < 4 || parts[0] != "aggregates" || parts[2] != "commands" || declaredNames(u.expr)[commandVariable] {
		return
	}
	command := m.aggregates[parts[1]].commands[parts[3]]
	warned := map[string]bool{}
	ast.PostOrderVisit(u.expr, ast.NewExprVisitor(func(e ast.Expr) {
		path := pathOf(e)
		if len(path) < 3 || path[0] != commandVariable || warned[strings.Join(path, ".")] {
			return
		}
		if _, parent, known := propertyAt(command.raw, path); !known && parent != nil {
			warned[strings.Join(path, ".")] = true
			p.warn(u.node, u.path, "%s never has the member %q (it has %s)", strings.Join(path[:len(path)-1], "."),
				path[len(path)-1], list(strings.Join(parent, ", ")))
		}
	}))
}

// propertyAt returns the schema of a path's member below a payload's schema. If the schema of the path's last object
// refuses the member, known is false and siblings has the members that the object can have.
func propertyAt(schema Object, path []string) (property Object, siblings []string, known bool) {
	for i := 1; i < len(path); i++ {
		names, closed := closedMembers(schema)
		if i == len(path)-1 && closed && !slices.Contains(names, path[i]) {
			return nil, names, false
		}
		properties, _ := schema["properties"].(Object)
		next, ok := properties[path[i]].(Object)
		if !ok {
			return nil, nil, false
		}
		schema = next
	}
	return schema, nil, true
}

// closedMembers returns the members that an object of a schema can have; false if it can have others.
func closedMembers(schema Object) ([]string, bool) {
	properties, ok := schema["properties"].(Object)
	if !ok || schema["additionalProperties"] != false || schema["patternProperties"] != nil || schema["$ref"] != nil {
		return nil, false
	}
	return slices.Sorted(maps.Keys(properties)), true
}

// enumOf returns the values of a schema's enum, if all are texts.
func enumOf(schema Object) ([]string, bool) {
	values, ok := schema["enum"].([]any)
	var out []string
	for _, value := range values {
		text, isText := value.(string)
		if !isText {
			return nil, false
		}
		out = append(out, text)
	}
	return out, ok
}

// textOf returns the text of a literal.
func textOf(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	text, ok := e.AsLiteral().Value().(string)
	return text, ok
}

// warnOfLiteral warns of the literals in a value of a workflow's payload that the schema of the command's member
// refuses: texts that an enum lacks, and members of objects. place leads to the value in the payload.
func (p *parser) warnOfLiteral(n *yaml.Node, path, place string, command *Command, schema Object, e ast.Expr) {
	switch e.Kind() {
	case ast.LiteralKind:
		text, ok := textOf(e)
		if values, limited := enumOf(schema); ok && limited && !slices.Contains(values, text) {
			p.warn(n, path, "command %q refuses the value %q of %s: its enum has %s", command.Name, text, place,
				list(strings.Join(values, ", ")))
		}
		if kind := literalKind(e); strings.ContainsAny(place, ".[") && kind != unknown && refuses(schema, kind) {
			p.warn(n, path, "the values of %s are of JSON type %s, and command %q requires %v", place, kind,
				command.Name, schema["type"])
		}
	case ast.CallKind:
		if call := e.AsCall(); call.FunctionName() == operators.Conditional {
			p.warnOfLiteral(n, path, place, command, schema, call.Args()[1])
			p.warnOfLiteral(n, path, place, command, schema, call.Args()[2])
		}
	case ast.ListKind:
		if items, ok := schema["items"].(Object); ok && schema["prefixItems"] == nil {
			for i, element := range e.AsList().Elements() {
				p.warnOfLiteral(n, path, fmt.Sprintf("%s[%d]", place, i), command, items, element)
			}
		}
	case ast.MapKind:
		p.warnOfMembersOfLiteral(n, path, place, command, schema, e.AsMap())
	default:
	}
}

// warnOfMembersOfLiteral is [parser.warnOfLiteral] for an object.
func (p *parser) warnOfMembersOfLiteral(
	n *yaml.Node, path, place string, command *Command, schema Object, object ast.MapExpr,
) {
	names, closed := closedMembers(schema)
	properties, _ := schema["properties"].(Object)
	set, certain := map[string]bool{}, true
	for _, entry := range object.Entries() {
		name, ok := textOf(entry.AsMapEntry().Key())
		if certain = certain && ok && !entry.AsMapEntry().IsOptional(); !ok {
			continue
		}
		set[name] = true
		if closed && !slices.Contains(names, name) {
			p.warn(n, path, "command %q refuses the member %q of %s (it accepts %s)", command.Name, name, place,
				list(strings.Join(names, ", ")))
		}
		if property, ok := properties[name].(Object); ok {
			p.warnOfLiteral(n, path, join(place, name), command, property, entry.AsMapEntry().Value())
		}
	}
	required, _ := schema["required"].([]any)
	for _, member := range required {
		if name, ok := member.(string); ok && certain && !set[name] {
			p.warn(n, path, "command %q requires the member %q of %s", command.Name, name, place)
		}
	}
}

// literalKind returns the JSON type of a literal.
func literalKind(e ast.Expr) string {
	switch e.AsLiteral().Value().(type) {
	case string:
		return "string"
	case int64:
		return "integer"
	case float64:
		return "number"
	case bool:
		return "boolean"
	}
	return unknown
}

// refuses reports whether a schema refuses all values of a JSON type.
func refuses(schema Object, kind string) bool {
	want, ok := schema["type"].(string)
	return ok && want != kind && (!isNumeric(want) || !isNumeric(kind))
}
