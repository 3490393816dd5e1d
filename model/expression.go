package model

import (
	"context"
	"errors"
	"fmt"
	"sync"
	_ "time/tzdata" // time zones of expressions, on machines without zoneinfo

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

const (
	// costLimit bounds one evaluation in CEL's cost units: thousands of
	// operations, far above any rule and far below a busy loop.
	costLimit = 100_000
	// interruptEvery is how many comprehension steps pass between looks at the
	// context.
	interruptEvery = 100
)

// ErrEvaluation is wrapped when an expression fails at run time: a missing
// member, a type that does not fit, the cost limit.
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
	usesRow bool // looks at the row that stands in a view
	loops   bool // may take long: it looks at the context meanwhile
	// constant says that it names no variable.
	constant bool
	member   []string // the variable's member that it is, if it is no more than that
}

// sourceText returns the expression's source, "" for none.
func (e *expression) sourceText() string {
	if e == nil {
		return ""
	}
	return e.source
}

// The variables of expressions.
const (
	metaVariable    = "meta"    // what is known of an event or a command beside its data
	stateVariable   = "state"   // an aggregate's
	commandVariable = "cmd"     // a command's payload
	eventVariable   = "event"   // an event's data
	rowVariable     = "row"     // a view's row as it stands
	failureVariable = "failure" // why a workflow's step was refused
)

// environments hold the variables that an expression of each kind may use.
type environments struct {
	decide, evolve, upcast, view, workflow *cel.Env
}

// sharedEnvironments are made once: they are immutable and costly to make.
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

// compile checks source; want, if given, is the type that it must yield. Its regular
// expressions are charged to budget.
func compile(env *cel.Env, source string, want *cel.Type, budget *regexpBudget) (*expression, error) {
	if len(source) > maxExpressionBytes {
		return nil, fmt.Errorf("the expression has %d bytes; at most %d are allowed", len(source), maxExpressionBytes)
	}
	ast, issues := env.Parse(source)
	if issues.Err() != nil {
		return nil, errors.New(firstIssue(issues))
	}
	if nesting(ast.NativeRep().Expr()) > maxNesting {
		return nil, fmt.Errorf("lists, mappings and loops are nested more than %d deep", maxNesting)
	}
	if ast, issues = env.Check(ast); issues.Err() != nil {
		return nil, errors.New(firstIssue(issues))
	}
	if want != nil && !ast.OutputType().IsExactType(want) && !ast.OutputType().IsExactType(cel.DynType) {
		return nil, fmt.Errorf("the expression yields %s, want %s", ast.OutputType(), want)
	}
	if err := budget.takeMatches(ast.NativeRep().Expr()); err != nil {
		return nil, err
	}
	guard, err := sharedGuard()
	if err != nil {
		return nil, err
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.CostTracking(costs{}), cel.CustomDecoratorV2(guard), cel.InterruptCheckFrequency(interruptEvery), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	out := &expression{
		source: source, program: program, member: memberOf(ast.NativeRep().Expr()),
		loops: loops(ast.NativeRep()), constant: isConstant(ast.NativeRep()),
	}
	for _, reference := range ast.NativeRep().ReferenceMap() {
		out.usesRow = out.usesRow || reference.Name == rowVariable
	}
	return out, nil
}

func firstIssue(issues *cel.Issues) string {
	first := issues.Errors()[0]
	return fmt.Sprintf("column %d of the expression: %s", first.Location.Column()+1, first.Message)
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
	return out, err
}

// boolean evaluates an expression that says yes or no.
func (e *expression) boolean(ctx context.Context, vars *scope) (bool, error) {
	v, err := e.value(ctx, vars)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, &ExpressionError{Expression: e.source, Err: fmt.Errorf("it yields %s, want true or false", jsonType(v))}
	}
	return b, nil
}

// text evaluates an expression that names something.
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

// fields is an object built member by member, in the document's order.
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
