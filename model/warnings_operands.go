package model

import (
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
)

// Kinds of operands beside JSON types.
const (
	kindFraction = "fraction" // a double of CEL, also without a fraction
	kindTime     = "timestamp"
	kindLength   = "duration"
	kindText     = "string"
)

// columnOperands are the kinds of a row's values.
var columnOperands = map[ColumnType]string{
	TypeDouble: kindFraction, TypeInt: "integer", TypeString: kindText, TypeTimestamp: kindText, TypeBool: "boolean",
}

var (
	arithmetic  = []string{operators.Add, operators.Subtract, operators.Multiply, operators.Divide}
	comparisons = []string{
		operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals, operators.Equals,
		operators.NotEquals,
	}
)

// warnOfOperands warns of operations that fail, or that fail for some values, by the types of their operands: members
// of variables have JSON's types, so a time is text, and a number without a fraction is an integer.
func (p *parser) warnOfOperands(m *Model, u use) {
	warned := map[string]bool{}
	warn := func(operand ast.Expr, format, conversion string) {
		if path := memberOf(operand); len(path) > 1 && !warned[path[1]] {
			warned[path[1]] = true
			member := strings.Join(path, ".")
			p.warn(u.node, u.path, format, member, conversion+"("+member+")")
		}
	}
	declared := declaredNames(u.expr)
	ast.PostOrderVisit(u.expr, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || len(e.AsCall().Args()) != 2 {
			return
		}
		function, args := e.AsCall().FunctionName(), e.AsCall().Args()
		calculates := slices.Contains(arithmetic, function)
		if !calculates && !slices.Contains(comparisons, function) {
			return
		}
		for i, operand := range args {
			if path := memberOf(operand); len(path) == 0 || declared[path[0]] {
				continue
			}
			kind, other := m.operandAt(u.path, operand), m.operandAt(u.path, args[1-i])
			switch {
			case other == kindTime || other == kindLength:
				conversion := kindTime
				if other == kindLength && !calculates {
					conversion = kindLength
				}
				warn(operand, "%s is text: write %s", conversion)
			case function == operators.Add && other == kindText && kind != unknown && kind != kindText:
				warn(operand, "%s is no text, and a text can be joined with texts only: write %s", kindText)
			case calculates && other != kindText && (kind == "number" || other == kindFraction && kind != kindFraction):
				warn(operand, "%s is an integer where it has no fraction, and arithmetic of an integer and a fraction "+
					"fails: write %s", "double")
			case function == operators.Add && len(memberOf(args[1-i])) > 0: // the other operand is warned of
			case kind == kindText && isNumeric(other) && function != operators.Equals &&
				function != operators.NotEquals:
				warn(operand, "%s is text, and the operation with a number fails: if it is a number, write %s", "int")
			case kind == kindText && isNumeric(other):
				warn(operand, "%s is text, and never equals a number: if it is a number, write %s", "int")
			case !calculates && isNumeric(kind) && other == kindText && args[1-i].Kind() == ast.LiteralKind:
				warn(operand, "%s is a number, and the other operand is text: write the number without quotes, or %s",
					kindText)
			}
		}
	}))
}

// isNumeric reports whether a kind is one of numbers.
func isNumeric(kind string) bool {
	return kind == "integer" || kind == "number" || kind == kindFraction
}

// warnOfCondition warns of members that are conditions, and whose values are neither true nor false.
func (p *parser) warnOfCondition(m *Model, u use) {
	declared := declaredNames(u.expr)
	check := func(e ast.Expr) {
		path := memberOf(e)
		if len(path) == 0 || declared[path[0]] {
			return
		}
		if kind := m.operandAt(u.path, e); kind != unknown && kind != "boolean" {
			member := strings.Join(path, ".")
			p.warn(u.node, u.path, "%s is of JSON type %s, and a condition needs true or false: compare it, such as "+
				"%s == …, or write has(%s)", member, kind, member, member)
		}
	}
	if strings.HasSuffix(u.path, ".that") || strings.HasSuffix(u.path, ".when") {
		check(u.expr)
	}
	ast.PostOrderVisit(u.expr, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind {
			return
		}
		switch call := e.AsCall(); call.FunctionName() {
		case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot:
			for _, operand := range call.Args() {
				check(operand)
			}
		case operators.Conditional:
			check(call.Args()[0])
		}
	}))
}

// operandAt returns the kind of an operand in the expression at a path: a JSON type, or one of CEL's.
func (m *Model) operandAt(path string, e ast.Expr) string {
	switch e.Kind() {
	case ast.LiteralKind:
		switch e.AsLiteral().Value().(type) {
		case float64:
			return kindFraction
		case string:
			return kindText
		case int64:
			return "integer"
		case bool:
			return "boolean"
		}
	case ast.CallKind:
		return m.resultAt(path, e.AsCall())
	case ast.SelectKind:
		if member := memberOf(e); len(member) == 2 {
			return m.memberAt(path, member[0], member[1])
		}
	default:
	}
	return unknown
}

// resultAt returns the kind of the result of a function.
func (m *Model) resultAt(path string, call ast.CallExpr) string {
	switch name := call.FunctionName(); {
	case name == "double":
		return kindFraction
	case name == "timestamp":
		return kindTime
	case name == "duration":
		return kindLength
	case name == "string":
		return kindText
	case slices.Contains(arithmetic, name) && len(call.Args()) == 2:
		kinds := []string{m.operandAt(path, call.Args()[0]), m.operandAt(path, call.Args()[1])}
		switch {
		case slices.Contains(kinds, kindText):
			return kindText
		case slices.Contains(kinds, kindFraction):
			return kindFraction
		case name == operators.Subtract && kinds[0] == kindTime && kinds[1] == kindTime:
			return kindLength
		case slices.Contains(kinds, kindTime):
			return kindTime
		case slices.Contains(kinds, kindLength):
			return kindLength
		case slices.Contains(kinds, "number"):
			return "number"
		case slices.Contains(kinds, "integer"):
			return "integer"
		}
	}
	return unknown
}

// memberAt returns the kind of a variable's member in the expression at a path.
func (m *Model) memberAt(path, variable, member string) string {
	parts := strings.Split(path, ".")
	switch {
	case variable == commandVariable && len(parts) > 3:
		if a := m.aggregates[parts[1]]; a != nil && a.commands[parts[3]] != nil {
			return a.commands[parts[3]].kindOfMember(member)
		}
	case variable == metaVariable:
		return metaKind(member)
	case variable == stateVariable:
		return m.states[parts[1]][member]
	case variable == rowVariable:
		if v, ok := m.View(parts[1]); ok {
			column, _ := v.Column(member)
			return columnOperands[column.Type]
		}
	case variable == eventVariable && parts[0] == "workflows":
		if w, ok := m.Workflow(parts[1]); ok {
			return m.kindOfMember(w.On, member)
		}
	case variable == eventVariable && parts[0] == "views" && len(parts) > 4:
		return m.kindOfMember(EventRef{parts[3], parts[4]}, member)
	case variable == eventVariable && len(parts) > 3 && parts[2] == "evolve":
		return m.kindOfMember(EventRef{parts[1], parts[3]}, member)
	}
	return unknown
}
