package auth

import (
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/headgate/headgate/contextkit"
)

// claimsVariable is the variable that has the claims.
const claimsVariable = "claims"

// mappingEnvironment has CEL's standard functions, optional values and these:
//
//   - words(string) returns the words of a text that spaces separate, such as those of scope;
//   - split(string, separator) returns the parts of a text;
//   - rights(list) returns the members that are rights, and tenants(list) the names of
//     tenants: other roles and groups are left out, and so is "*";
//   - lookup(list, table) returns the entries of the table, strings or lists of strings, under the
//     members of the list, one after the other.
//
// Their results are at most as large as their arguments, or for lookup as the table's entries.
var mappingEnvironment = sync.OnceValues(func() (*cel.Env, error) {
	texts, anything := cel.ListType(cel.StringType), cel.ListType(cel.DynType)
	return cel.NewEnv(
		cel.Variable(claimsVariable, cel.MapType(cel.StringType, cel.DynType)),
		cel.OptionalTypes(), cel.ParserExpressionSizeLimit(maxMappingBytes), cel.ParserRecursionLimit(maxJSONDepth),
		cel.Function("words",
			cel.Overload("words_string", []*cel.Type{cel.StringType}, texts, cel.UnaryBinding(words))),
		cel.Function(
			"split",
			cel.Overload("split_string_string", []*cel.Type{cel.StringType, cel.StringType}, texts,
				cel.BinaryBinding(split)),
		),
		cel.Function("rights",
			cel.Overload("rights_list", []*cel.Type{anything}, texts, cel.UnaryBinding(only(isRight)))),
		cel.Function("tenants",
			cel.Overload("tenants_list", []*cel.Type{anything}, texts, cel.UnaryBinding(only(isTenant)))),
		cel.Function(
			"lookup",
			cel.Overload("lookup_list_map", []*cel.Type{anything, cel.MapType(cel.StringType, cel.DynType)}, texts,
				cel.BinaryBinding(lookup)),
		),
	)
})

func listOf(texts []string) ref.Val { return types.NewStringList(types.DefaultTypeAdapter, texts) }

func words(text ref.Val) ref.Val {
	value, ok := text.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(text)
	}
	return listOf(strings.Fields(string(value)))
}

func split(text, separator ref.Val) ref.Val {
	value, ok := text.(types.String)
	by, also := separator.(types.String)
	if !ok || !also {
		return types.MaybeNoSuchOverloadErr(text)
	}
	return listOf(strings.SplitN(string(value), string(by), maxMapped))
}

func isRight(text string) bool {
	right, err := ParseRight(text)
	return err == nil && right.Check() == nil
}

func isTenant(text string) bool {
	_, err := contextkit.ParseTenantID(text)
	return err == nil
}

// only returns a function that filters a list by accepted.
func only(accepted func(string) bool) func(ref.Val) ref.Val {
	return func(value ref.Val) ref.Val {
		list, ok := value.(traits.Lister)
		if !ok {
			return types.MaybeNoSuchOverloadErr(value)
		}
		out := []string{}
		for it := list.Iterator(); it.HasNext() == types.True; {
			if text, ok := it.Next().(types.String); ok && accepted(string(text)) {
				out = append(out, string(text))
			}
		}
		return listOf(out)
	}
}

func lookup(names, table ref.Val) ref.Val {
	list, ok := names.(traits.Lister)
	entries, also := table.(traits.Mapper)
	if !ok || !also {
		return types.MaybeNoSuchOverloadErr(names)
	}
	out := []string{}
	for it := list.Iterator(); it.HasNext() == types.True; {
		entry, found := entries.Find(it.Next())
		if !found {
			continue
		}
		switch entry := entry.(type) {
		case types.String:
			out = append(out, string(entry))
		case traits.Lister:
			for each := entry.Iterator(); each.HasNext() == types.True; {
				text, ok := each.Next().(types.String)
				if !ok {
					return types.NewErr("the table has an entry that is no string")
				}
				out = append(out, string(text))
			}
		default:
			return types.NewErr("the table has an entry that is no string or list of strings")
		}
		if len(out) > maxMapped {
			return types.NewErr("cost limit: the table's entries are too many")
		}
	}
	return listOf(out)
}

// claimCosts charges calls for the sizes of their arguments: CEL charges by static types, which claims
// do not have.
type claimCosts struct{}

// bytesPerUnit is the number of bytes, or of values, per unit of cost.
const bytesPerUnit = 10

// CallCost implements [interpreter.ActualCostEstimator].
func (claimCosts) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	var size int
	switch function {
	case operators.Add:
		size = sizeOf(args[1]) // a loop's list is not copied
		if _, list := args[0].(traits.Lister); !list {
			size += sizeOf(args[0])
		}
	case "matches":
		if len(args) == 2 { // RE2: at most one step per byte and instruction
			size = (sizeOf(args[0]) + 1) * (sizeOf(args[1]) + 1) / 4
		}
	case operators.Equals, operators.NotEquals, operators.In, "contains", "startsWith", "endsWith", "size", "int",
		"uint", "double", "string",
		"bytes", "timestamp", "duration", "words", "split", "rights", "tenants", "lookup":
		for _, arg := range args {
			size += sizeOf(arg)
		}
	default:
		return nil // as CEL charges it
	}
	units := 1 + uint64(size)/bytesPerUnit
	return &units
}

// sizeOf returns the bytes of the texts in a value, and one for each value. Values are no larger
// than a token, or than what has been charged.
func sizeOf(value ref.Val) int {
	switch value := value.(type) {
	case types.String:
		return len(value)
	case types.Bytes:
		return len(value)
	case traits.Mapper:
		size := 1
		for it := value.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			size += sizeOf(key) + sizeOf(value.Get(key))
		}
		return size
	case traits.Lister:
		size := 1
		for it := value.Iterator(); it.HasNext() == types.True; {
			size += sizeOf(it.Next())
		}
		return size
	}
	return 1
}

// constantPatterns reports whether all regular expressions in an expression are constants: one of a
// claim could be too large.
func constantPatterns(expression ast.Expr) bool {
	constant := true
	ast.PreOrderVisit(expression, ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != "matches" {
			return
		}
		args := e.AsCall().Args()
		constant = constant && len(args) > 0 && args[len(args)-1].Kind() == ast.LiteralKind
	}))
	return constant
}
