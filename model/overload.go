package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
)

// overloadError is CEL's error of an operation that is not defined for the types of its operands.
const overloadError = "no such overload"

// explain returns the error of an evaluation. That of an operation which is not defined for the types of its operands
// names the types and what to write instead, which takes a second evaluation. Values are not quoted.
func (e *expression) explain(ctx context.Context, vars *scope, err error) error {
	var failed *types.Err
	if !errors.As(err, &failed) || !strings.HasPrefix(failed.Error(), overloadError) {
		return err
	}
	tracked := e.tracked.Load()
	if tracked == nil {
		if tracked, err = e.track(); err != nil {
			return failed
		}
		e.tracked.Store(tracked)
	}
	var details *cel.EvalDetails
	if e.loops {
		_, details, err = tracked.program.ContextEval(ctx, vars)
	} else {
		_, details, err = tracked.program.Eval(vars)
	}
	if !errors.As(err, &failed) || !strings.HasPrefix(failed.Error(), overloadError) || details == nil {
		return err // it was cancelled
	}
	call := callAt(tracked.tree, failed.NodeID())
	if call == nil {
		return failed
	}
	var operands, kinds []string
	for _, operand := range operandsOf(call) {
		text := strings.Join(memberOf(operand), ".")
		kind := "null"
		switch value, ok := details.State().Value(operand.ID()); {
		case ok && value != types.NullValue:
			kind = value.Type().TypeName()
		case !ok && operand.Kind() == ast.LiteralKind:
			kind = operand.AsLiteral().Type().TypeName()
		case !ok:
			kind = unknown
		}
		operands, kinds = append(operands, text), append(kinds, kind)
	}
	function := call.AsCall().FunctionName()
	return errors.New(overloadError + ": " + signature(function, operands, kinds) + advice(function, operands, kinds))
}

// trackedProgram is an expression that records the values of its parts.
type trackedProgram struct {
	program cel.Program
	tree    ast.Expr
}

// track compiles the expression again.
func (e *expression) track() (*trackedProgram, error) {
	checked, issues := e.env.Compile(e.source)
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	guard, err := sharedGuard()
	if err != nil {
		return nil, err
	}
	program, err := e.env.Program(
		checked, cel.CostLimit(costLimit), cel.CostTracking(costs{}), cel.CustomDecoratorV2(guard),
		cel.InterruptCheckFrequency(interruptEvery), cel.EvalOptions(cel.OptTrackState),
	)
	return &trackedProgram{program, checked.NativeRep().Expr()}, err
}

// callAt returns the innermost call that is, or contains, the expression with an id; nil for none.
func callAt(tree ast.Expr, id int64) (call ast.Expr) {
	found := false
	ast.PostOrderVisit(tree, ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.ID() == id
		if found && call == nil && e.Kind() == ast.CallKind && contains(e, id) {
			call = e
		}
	}))
	return call
}

func contains(tree ast.Expr, id int64) (found bool) {
	ast.PostOrderVisit(tree, ast.NewExprVisitor(func(e ast.Expr) { found = found || e.ID() == id }))
	return found
}

// operandsOf returns the operands of a call, with the one that a function is a method of first.
func operandsOf(e ast.Expr) []ast.Expr {
	call := e.AsCall()
	if call.IsMemberFunction() {
		return append([]ast.Expr{call.Target()}, call.Args()...)
	}
	return call.Args()
}

// celNames are the names of CEL's types in messages.
var celNames = map[string]string{
	"int": "an integer", "uint": "an unsigned integer", "double": "a number with a fraction", "string": "a text",
	"bool": "true or false", "null": "null", "list": "a list", "map": "an object", "timestamp": "a time",
	"google.protobuf.Timestamp": "a time", "google.protobuf.Duration": "a duration",
}

// signature describes a call by the types of its operands.
func signature(function string, operands, kinds []string) string {
	parts := make([]string, len(kinds))
	for i, kind := range kinds {
		parts[i] = celNames[kind]
		if parts[i] == "" {
			parts[i] = kind
		}
		switch {
		case parts[i] == unknown:
			parts[i] = "…"
		case operands[i] != "":
			parts[i] += " (" + operands[i] + ")"
		}
	}
	symbol, isOperator := operators.FindReverse(function)
	switch {
	case function == operators.Conditional:
		return fmt.Sprintf("the condition %s ? … : …", parts[0])
	case function == operators.In:
		symbol = "in"
	case isOperator && len(parts) == 1:
		return symbol + parts[0]
	}
	if isOperator && symbol != "" && len(parts) == 2 {
		return parts[0] + " " + symbol + " " + parts[1]
	}
	return function + "(" + strings.Join(parts, ", ") + ")"
}

// advice returns what to write instead of a call with operands of types that do not fit, "" if there is no advice.
func advice(function string, operands, kinds []string) string {
	write := func(conversion, kind string) string {
		i := slices.Index(kinds, kind)
		operand := "…"
		if i < len(operands) && operands[i] != "" {
			operand = operands[i]
		}
		return ": write " + conversion + "(" + operand + ")"
	}
	has := func(kind string) bool { return slices.Contains(kinds, kind) }
	calculates := slices.Contains(arithmetic, function) || slices.Contains(comparisons, function)
	switch function {
	case operators.Conditional:
		if len(kinds) > 2 && kinds[0] == "bool" {
			return ": both values must be of the same type"
		}
		fallthrough
	case operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot:
		return ": a condition needs true or false: compare the value, such as … == …"
	}
	switch {
	case has("null"):
		return ": test the value before, such as … != null"
	case has("list") || has("map") || !calculates:
		return ""
	case has("int") && has("double"):
		return write("double", "int")
	case has("string") && has("google.protobuf.Timestamp"),
		has("string") && has("google.protobuf.Duration") && function != operators.Add:
		return write("timestamp", "string")
	case function == operators.Add && has("string"):
		for _, kind := range kinds {
			if kind != "string" {
				return write("string", kind)
			}
		}
	case has("string") && has("int"):
		return write("int", "string")
	case has("string") && has("double"):
		return write("double", "string")
	}
	return ""
}

// overloadAdvice returns what to write instead of a call that CEL's type check refuses, from the check's message:
// found no matching overload for '_+_' applied to '(int, string)'.
func overloadAdvice(message string) string {
	const refused, applied = "found no matching overload for '", "' applied to '("
	text, ok := strings.CutPrefix(message, refused)
	function, kinds, found := strings.Cut(text, applied)
	if !ok || !found {
		return ""
	}
	return advice(function, nil, strings.Split(strings.TrimSuffix(kinds, ")'"), ", "))
}
