package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	_ "time/tzdata" // time zones of expressions, on machines without zoneinfo

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

const (
	// costLimit bounds one evaluation in CEL's cost units: thousands of operations, which is far above any real rule
	// and far below a busy loop.
	costLimit = 100_000
	// interruptEvery is the number of comprehension steps between checks of the context.
	interruptEvery = 100
)

// ErrEvaluation is wrapped by errors of an expression at run time: a missing member, a type mismatch, the cost limit.
var ErrEvaluation = errors.New("the model's expression failed")

// ExpressionError is the failure of an expression at run time. It wraps [ErrEvaluation].
type ExpressionError struct {
	// Expression is the expression's source.
	Expression string
	// Err is the reason.
	Err error
}

// Error returns the expression and the reason.
func (e *ExpressionError) Error() string {
	return fmt.Sprintf("%s: %s: %s", ErrEvaluation, e.Expression, e.Err)
}

// Unwrap returns [ErrEvaluation] and the reason.
func (e *ExpressionError) Unwrap() []error { return []error{ErrEvaluation, e.Err} }

// expression is a compiled CEL expression.
type expression struct {
	source  string
	program cel.Program
	usesRow bool // uses the current row of a view
	loops   bool // may take long, so the evaluation checks the context
	// constant is set if the expression uses no variable.
	constant bool
	yields   *cel.Type
	member   []string // the path, if the expression is only a member of a variable
	tree     ast.Expr // until the parser has recorded it
	env      *cel.Env
	tracked  *atomic.Pointer[trackedProgram] // once an operation has failed; see explain
}

// sourceText returns the expression's source, "" for none.
func (e *expression) sourceText() string {
	if e == nil {
		return ""
	}
	return e.source
}

// Variables of expressions.
const (
	metaVariable    = "meta"    // metadata of an event or a command
	stateVariable   = "state"   // an aggregate's state
	commandVariable = "cmd"     // a command's payload
	eventVariable   = "event"   // an event's data
	rowVariable     = "row"     // a view's current row
	failureVariable = "failure" // why a workflow's step was refused
)

// environments hold the variables that an expression of each kind may use.
type environments struct {
	decide, evolve, upcast, view, workflow *cel.Env
}

// sharedEnvironments are created once, since they are immutable and expensive to create.
var sharedEnvironments = sync.OnceValues(newEnvironments)

func newEnvironments() (environments, error) {
	object := cel.MapType(cel.StringType, cel.DynType)
	base, err := cel.NewEnv(
		cel.Variable(metaVariable, object), ext.Strings(), ext.Math(), cel.OptionalTypes(),
		cel.ParserExpressionSizeLimit(maxExpressionBytes),
	)
	if err != nil {
		return environments{}, err
	}
	var envs environments
	for _, e := range []struct {
		env   **cel.Env
		names []string
	}{
		{&envs.decide, []string{stateVariable, commandVariable}},
		{&envs.evolve, []string{stateVariable, eventVariable}},
		{&envs.upcast, []string{eventVariable}},
		{&envs.view, []string{rowVariable, eventVariable}},
		{&envs.workflow, []string{eventVariable, failureVariable}},
	} {
		var variables []cel.EnvOption
		for _, name := range e.names {
			variables = append(variables, cel.Variable(name, object))
		}
		if *e.env, err = base.Extend(variables...); err != nil {
			return environments{}, err
		}
	}
	return envs, nil
}

// compile checks source; want, if given, is the type that it must yield. Its regular expressions are charged to
// budget.
func compile(env *cel.Env, source string, want *cel.Type, budget *regexpBudget) (*expression, error) {
	if len(source) > maxExpressionBytes {
		return nil, fmt.Errorf("the expression has %d bytes; at most %d are allowed", len(source), maxExpressionBytes)
	}
	checked, issues := env.Parse(source)
	if issues.Err() != nil {
		return nil, errors.New(firstIssue(env, issues))
	}
	if nesting(checked.NativeRep().Expr()) > maxNesting {
		return nil, fmt.Errorf("lists, mappings and loops are nested more than %d deep", maxNesting)
	}
	if checked, issues = env.Check(checked); issues.Err() != nil {
		return nil, errors.New(firstIssue(env, issues))
	}
	if want != nil && !checked.OutputType().IsExactType(want) && !checked.OutputType().IsExactType(cel.DynType) {
		hint := ""
		if want.IsExactType(cel.StringType) && converts(checked.OutputType()) {
			hint = ": write string(…)"
		}
		return nil, fmt.Errorf("the expression yields %s, want %s%s", checked.OutputType(), want, hint)
	}
	if err := budget.chargeMatches(checked.NativeRep().Expr()); err != nil {
		return nil, err
	}
	guard, err := sharedGuard()
	if err != nil {
		return nil, err
	}
	program, err := env.Program(
		checked, cel.CostLimit(costLimit), cel.CostTracking(costs{}), cel.CustomDecoratorV2(guard),
		cel.InterruptCheckFrequency(interruptEvery), cel.EvalOptions(cel.OptOptimize),
	)
	if err != nil {
		return nil, err
	}
	out := &expression{
		source:   source,
		env:      env,
		tracked:  new(atomic.Pointer[trackedProgram]),
		program:  program,
		tree:     checked.NativeRep().Expr(),
		member:   memberOf(checked.NativeRep().Expr()),
		loops:    loops(checked.NativeRep()),
		constant: isConstant(checked.NativeRep()),
		yields:   checked.OutputType(),
	}
	for _, reference := range checked.NativeRep().ReferenceMap() {
		out.usesRow = out.usesRow || reference.Name == rowVariable
	}
	return out, nil
}

// converts reports whether string() accepts values of a type.
func converts(t *cel.Type) bool {
	return slices.ContainsFunc([]*cel.Type{
		cel.TimestampType, cel.DurationType, cel.IntType, cel.UintType, cel.DoubleType, cel.BoolType,
	}, t.IsExactType)
}

// firstIssue describes the first mistake in an expression, and what to do about the frequent ones.
func firstIssue(env *cel.Env, issues *cel.Issues) string {
	first := issues.Errors()[0]
	text := fmt.Sprintf("column %d of the expression: %s", first.Location.Column()+1, first.Message)
	switch {
	case strings.HasPrefix(first.Message, "undeclared reference"):
		text += fmt.Sprintf(" (variables: %s; quote a text within the expression: \"'text'\")",
			strings.Join(variablesOf(env), ", "))
	case strings.Contains(first.Message, "token recognition error at: '="):
		text += " (== compares)"
	case strings.Contains(first.Message, "mismatched input '<EOF>'"):
		text = fmt.Sprintf("column %d of the expression: it ends where a value is expected", first.Location.Column()+1)
	default:
		text += overloadAdvice(first.Message)
	}
	return text
}

// variablesOf returns the names of the variables that expressions of the environment may use.
func variablesOf(env *cel.Env) []string {
	var names []string
	for _, v := range env.Variables() {
		switch name := v.Name(); name {
		case metaVariable, stateVariable, commandVariable, eventVariable, rowVariable, failureVariable:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// value evaluates the expression to a plain JSON value.
func (e *expression) value(ctx context.Context, vars *scope) (any, error) {
	if v, ok := vars.scalar(e.member); ok {
		return v, nil
	}
	out, err := e.evaluate(ctx, vars)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, &ExpressionError{Expression: e.source, Err: err}
	}
	v, err := native(out)
	if err != nil {
		return nil, &ExpressionError{Expression: e.source, Err: err}
	}
	return v, nil
}

func (e *expression) evaluate(ctx context.Context, vars *scope) (out ref.Val, err error) {
	if e.loops {
		out, _, err = e.program.ContextEval(ctx, vars)
	} else {
		out, _, err = e.program.Eval(vars)
	}
	if err != nil {
		err = e.explain(ctx, vars, err)
	}
	return out, err
}

// boolean evaluates an expression that yields a boolean.
func (e *expression) boolean(ctx context.Context, vars *scope) (bool, error) {
	v, err := e.value(ctx, vars)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, &ExpressionError{
			Expression: e.source,
			Err:        fmt.Errorf("it yields %s, want true or false", jsonType(v)),
		}
	}
	return b, nil
}

// text evaluates an expression that yields a string.
func (e *expression) text(ctx context.Context, vars *scope) (string, error) {
	v, err := e.value(ctx, vars)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", &ExpressionError{Expression: e.source, Err: fmt.Errorf("it yields %s, want a string", jsonType(v))}
	}
	return s, nil
}

// jsonType returns the name of a plain JSON value's type, for messages.
func jsonType(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case int64:
		return "an integer"
	case float64:
		return "a number with a fraction"
	case []any:
		return "a list"
	}
	return "an object"
}

// fields is an object that is built member by member, in the document's order.
type fields []field

type field struct {
	name string
	expr *expression
}

// object evaluates all members.
func (f fields) object(ctx context.Context, vars *scope) (Object, error) {
	out := make(Object, len(f))
	for _, member := range f {
		v, err := member.expr.value(ctx, vars)
		if err != nil {
			return nil, err
		}
		out[member.name] = v
	}
	return out, nil
}

var boolType, stringType = types.BoolType, types.StringType
