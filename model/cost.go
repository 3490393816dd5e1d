package model

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// Costs are in CEL's units, of which [costLimit] bounds an evaluation; a simple operation costs one. Functions whose
// time is not linear in the size of their arguments are bounded before they run (see guards), since a single call
// cannot be interrupted. All others are charged after they have run.

const (
	// perUnit is the number of bytes read or written, or of values visited, per unit.
	perUnit = 10
	// stepsPerUnit is the number of steps of regular expressions tried per unit, in the worst case one step per byte
	// of the text (RE2).
	stepsPerUnit = 40
	// comparedPerUnit is the number of characters compared per unit.
	comparedPerUnit = 100
	// countedPerUnit is the number of bytes counted per unit.
	countedPerUnit = 100
	// maxVisited bounds the values that are visited to charge for them. It costs more than costLimit.
	maxVisited = costLimit*perUnit + 1
	// maxPatternBytes bounds a computed regular expression.
	maxPatternBytes = maxExpressionBytes
)

// costs is the [cost.ActualCostEstimator] of costs that CEL does not charge: CEL uses the static types of arguments,
// which are unknown for members of state, payloads and events.
type costs struct{}

// CallCost implements [cost.ActualCostEstimator].
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	units := uint64(0)
	switch function {
	case operators.Add:
		units = 1 + concatenation(args)
	case operators.Equals, operators.NotEquals:
		units = 1 + min(visited(args[0]), visited(args[1]))/perUnit
	case operators.In:
		units = 1 + visited(args[1])/perUnit
	case "size", "duration", "timestamp", "int", "uint", "double", "string":
		if text, ok := args[0].(types.String); ok {
			units = 1 + uint64(len(text))/countedPerUnit
		}
	case "math.@max", "math.@min":
		for _, arg := range args {
			units += visited(arg) / perUnit
		}
	case "matches()":
		units = 1 + matchUnits(args)
	case "format()":
		units = 1 + formatUnits(args)
	default:
		// The name of a call with a constant regular expression ends in the number of its steps.
		if number, ok := strings.CutPrefix(function, constantMatches); ok {
			steps, _ := strconv.ParseUint(number, 10, 64)
			text, _ := args[0].(types.String)
			units = 1 + uint64(len(text)+1)*steps/stepsPerUnit
		}
	}
	if units <= 1 {
		return nil // as CEL charges it
	}
	charged := units
	return &charged
}

// constantMatches is the prefix of the name of a call of matches with a constant regular expression.
const constantMatches = "matches()/"

// concatenation returns the units of a concatenation of texts, or of a list with the result of a loop's iteration.
func concatenation(args []ref.Val) uint64 {
	switch left := args[0].(type) {
	case types.String:
		if right, ok := args[1].(types.String); ok {
			return uint64(len(left)+len(right)) / perUnit
		}
	case types.Bytes:
		if right, ok := args[1].(types.Bytes); ok {
			return uint64(len(left)+len(right)) / perUnit
		}
	case traits.Lister:
		return values(args[1]) / perUnit // texts are not copied
	}
	return 0
}

// visited returns the number of values in v, or its bytes if it is a text, up to maxVisited.
func visited(v ref.Val) uint64 {
	left := uint64(maxVisited)
	visit(v, &left, func(bytes int) uint64 { return uint64(bytes) })
	return maxVisited - left
}

// values returns the number of values in v, up to maxVisited.
func values(v ref.Val) uint64 {
	left := uint64(maxVisited)
	visit(v, &left, func(int) uint64 { return 1 })
	return maxVisited - left
}

// visit subtracts the number of values in v from left, with texts counted by text, and stops at 0.
func visit(v ref.Val, left *uint64, text func(bytes int) uint64) {
	spend := func(n uint64) { *left -= min(*left, n) }
	switch v := v.(type) {
	case types.String:
		spend(text(len(v)))
	case types.Bytes:
		spend(text(len(v)))
	case traits.Mapper:
		spend(1)
		for it := v.Iterator(); *left > 0 && it.HasNext() == types.True; {
			key := it.Next()
			visit(key, left, text)
			visit(v.Get(key), left, text)
		}
	case traits.Lister:
		spend(1)
		for it := v.Iterator(); *left > 0 && it.HasNext() == types.True; {
			visit(it.Next(), left, text)
		}
	default:
		spend(1)
	}
}

// matchUnits returns the units of matching a text; more than costLimit for a regular expression that is too large.
func matchUnits(args []ref.Val) uint64 {
	text, ok1 := args[0].(types.String)
	pattern, ok2 := args[1].(types.String)
	if !ok1 || !ok2 {
		return 0
	}
	if len(pattern) > maxPatternBytes {
		return costLimit + 1
	}
	steps, err := boundedRegexp(string(pattern))
	if err != nil {
		return costLimit + 1 // or malformed, which the call itself reports
	}
	return uint64(len(text)+1) * uint64(steps) / stepsPerUnit
}

// formatUnits returns the units of formatting a list of values: each is written once.
func formatUnits(args []ref.Val) uint64 {
	total := uint64(0)
	for _, arg := range args {
		total += visited(arg)
	}
	return total / perUnit
}

// guard returns an upper bound of the units of a call, from its arguments.
type guard func(args []ref.Val) uint64

// guards are the guards of functions whose time or result may exceed the size of their arguments.
var guards = map[string]guard{
	"matches":     matchUnits,
	"format":      formatUnits,
	"replace":     replaceUnits,
	"join":        joinUnits,
	"indexOf":     searchUnits,
	"lastIndexOf": searchUnits,
}

func texts(args []ref.Val) (out []string) {
	for _, arg := range args {
		text, ok := arg.(types.String)
		if !ok {
			break
		}
		out = append(out, string(text))
	}
	return out
}

func replaceUnits(args []ref.Val) uint64 {
	t := texts(args)
	if len(t) < 3 {
		return 0
	}
	count := strings.Count(t[0], t[1])
	if len(args) > 3 {
		if limit, ok := args[3].(types.Int); ok && limit >= 0 {
			count = min(count, int(limit))
		}
	}
	return uint64(len(t[0])+count*len(t[2])) / perUnit
}

func joinUnits(args []ref.Val) uint64 {
	list, ok := args[0].(traits.Lister)
	if !ok {
		return 0
	}
	total := visited(list)
	if len(args) > 1 {
		if separator, ok := args[1].(types.String); ok {
			if count, ok := list.Size().(types.Int); ok {
				total += uint64(count) * uint64(len(separator))
			}
		}
	}
	return total / perUnit
}

func searchUnits(args []ref.Val) uint64 {
	t := texts(args)
	if len(t) < 2 {
		return 0
	}
	return uint64(len(t[0])) * uint64(len(t[1])) / comparedPerUnit
}

// sharedGuard is created once, since all environments have the same functions.
var sharedGuard = sync.OnceValues(func() (interpreter.InterpretableDecoratorV2, error) {
	envs, err := sharedEnvironments()
	if err != nil {
		return nil, err
	}
	return guarded(envs.decide)
})

// guarded returns the decorator that makes calls of guarded functions fail before they run if they would cost more
// than costLimit. Errors of evaluation do not quote the arguments.
func guarded(env *cel.Env) (interpreter.InterpretableDecoratorV2, error) {
	type implementation struct {
		cost guard
		call functions.FunctionOp
	}
	known := map[string]implementation{} // by function and overload
	for name, bound := range guards {
		declared, ok := env.Functions()[name]
		if !ok {
			return nil, fmt.Errorf("no function %q to guard", name)
		}
		overloads, err := declared.Bindings()
		if err != nil {
			return nil, err
		}
		for _, overload := range overloads {
			known[name+" "+overload.Operator] = implementation{bound, operation(overload)}
		}
	}
	return func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		call, ok := i.(interpreter.InterpretableCall)
		if !ok || guards[call.Function()] == nil {
			return i, nil
		}
		found, ok := known[call.Function()+" "+call.OverloadID()]
		if !ok {
			if found, ok = known[call.Function()+" "+call.Function()]; !ok {
				return nil, fmt.Errorf("%s has no implementation", call.Function())
			}
		}
		bound, run, name := found.cost, found.call, call.Function()+"()"
		if pattern, ok := constantPattern(call); ok {
			steps, err := boundedRegexp(pattern)
			if err != nil {
				return nil, err
			}
			compiled, err := regexp.Compile(pattern)
			if err != nil {
				return nil, err
			}
			name = constantMatches + strconv.Itoa(steps)
			bound = func(args []ref.Val) uint64 {
				text, _ := args[0].(types.String)
				return uint64(len(text)+1) * uint64(steps) / stepsPerUnit
			}
			run = func(args ...ref.Val) ref.Val {
				text, ok := args[0].(types.String)
				if !ok {
					return types.MaybeNoSuchOverloadErr(args[0])
				}
				return types.Bool(compiled.MatchString(string(text)))
			}
		}
		// The name prevents CEL from replacing the call again, for constant regular expressions.
		return interpreter.NewCall(call.ID(), name, call.OverloadID(), call.Args(), func(args ...ref.Val) ref.Val {
			if bound(args) > costLimit {
				return types.NewErr("%s costs too much for arguments of this size", call.Function())
			}
			return run(args...)
		}), nil
	}, nil
}

// constantPattern returns the regular expression of a call of matches, if it is constant.
func constantPattern(call interpreter.InterpretableCall) (string, bool) {
	if call.Function() != "matches" {
		return "", false
	}
	constant, ok := call.Args()[len(call.Args())-1].(interpreter.InterpretableConst)
	if !ok {
		return "", false
	}
	pattern, ok := constant.Value().(types.String)
	return string(pattern), ok
}

// operation returns an overload's implementation for any number of arguments.
func operation(overload *functions.Overload) functions.FunctionOp {
	return func(args ...ref.Val) ref.Val {
		switch {
		case len(args) == 1 && overload.Unary != nil:
			return overload.Unary(args[0])
		case len(args) == 2 && overload.Binary != nil:
			return overload.Binary(args[0], args[1])
		case overload.Function != nil:
			return overload.Function(args...)
		}
		return types.NoSuchOverloadErr()
	}
}
