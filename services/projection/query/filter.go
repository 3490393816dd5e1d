package query

import (
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/model"
	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// maxFilterDepth bounds the nesting of a filter.
const maxFilterDepth = 32

var filterTypes = map[model.ColumnType]*expr.Type{
	model.TypeString:    filtering.TypeString,
	model.TypeInt:       filtering.TypeInt,
	model.TypeDouble:    filtering.TypeFloat,
	model.TypeBool:      filtering.TypeBool,
	model.TypeTimestamp: filtering.TypeTimestamp,
}

var comparisons = map[string]string{
	filtering.FunctionEquals:        "=",
	filtering.FunctionNotEquals:     "<>",
	filtering.FunctionLessThan:      "<",
	filtering.FunctionLessEquals:    "<=",
	filtering.FunctionGreaterThan:   ">",
	filtering.FunctionGreaterEquals: ">=",
}

// filter compiles an AIP-160 filter to a condition. Every column of the view
// but JSON ones may be named; `:` asks whether a text has another in it.
func (b *builder) filter(view *model.View, source string) (string, error) {
	options := []filtering.DeclarationOption{
		filtering.DeclareStandardFunctions(),
		// Conditions side by side are all wanted; the library leaves that open.
		filtering.DeclareFunction(filtering.FunctionFuzzyAnd,
			filtering.NewFunctionOverload(filtering.FunctionFuzzyAnd+"_bool", filtering.TypeBool, filtering.TypeBool, filtering.TypeBool)),
		filtering.DeclareIdent("true", filtering.TypeBool),
		filtering.DeclareIdent("false", filtering.TypeBool),
	}
	for _, column := range view.Columns {
		if t, ok := filterTypes[column.Type]; ok {
			options = append(options, filtering.DeclareIdent(column.Name, t))
		}
	}
	declarations, err := filtering.NewDeclarations(options...)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrFilter, err)
	}
	parsed, err := filtering.ParseFilterString(source, declarations)
	if err != nil {
		return "", fmt.Errorf("%w: %s (view %q has the columns %s)", ErrFilter, placed(err), view.Name, names(view))
	}
	b.view = view
	condition, err := b.condition(parsed.CheckedExpr.GetExpr())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrFilter, err)
	}
	return condition, nil
}

// placed says where a filter's mistake is: what the library's innermost error
// says, instead of its trace of the grammar.
func placed(err error) string {
	text := err.Error()
	for err != nil {
		var at interface {
			Position() filtering.Position
			Message() string
		}
		if !errors.As(err, &at) {
			break
		}
		text = fmt.Sprintf("column %d: %s", at.Position().Column, at.Message())
		inner, ok := at.(interface{ Unwrap() error })
		if !ok {
			break
		}
		err = inner.Unwrap()
	}
	return text
}

// condition compiles an expression that is true or false.
func (b *builder) condition(e *expr.Expr) (string, error) {
	if b.depth++; b.depth > maxFilterDepth {
		return "", fmt.Errorf("it is nested deeper than %d", maxFilterDepth)
	}
	defer func() { b.depth-- }()
	call := e.GetCallExpr()
	if call == nil {
		// A bare word: true for a column of type bool.
		if ident := e.GetIdentExpr(); ident != nil {
			operand, err := b.operand(e)
			if err != nil {
				return "", err
			}
			if column, ok := b.view.Column(ident.GetName()); ident.GetName() != "true" && ident.GetName() != "false" && (!ok || column.Type != model.TypeBool) {
				return "", fmt.Errorf("%q alone is no condition: compare it with something", ident.GetName())
			}
			return operand, nil
		}
		return "", fmt.Errorf("a value alone is no condition: compare a column with it")
	}
	args := call.GetArgs()
	switch function := call.GetFunction(); function {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr:
		joiner := " AND "
		if function == filtering.FunctionOr {
			joiner = " OR "
		}
		left, err := b.condition(args[0])
		if err != nil {
			return "", err
		}
		right, err := b.condition(args[1])
		if err != nil {
			return "", err
		}
		return "(" + left + joiner + right + ")", nil
	case filtering.FunctionNot:
		inner, err := b.condition(args[0])
		if err != nil {
			return "", err
		}
		return "NOT " + inner, nil
	case filtering.FunctionHas:
		left, err := b.operand(args[0])
		if err != nil {
			return "", err
		}
		right, err := b.operand(args[1])
		if err != nil {
			return "", err
		}
		return fmt.Sprintf(b.dialect.Contains, left, right), nil
	default:
		operator, ok := comparisons[function]
		if !ok {
			return "", fmt.Errorf("the function %q is not supported", function)
		}
		left, err := b.operand(args[0])
		if err != nil {
			return "", err
		}
		right, err := b.operandLike(args[1], args[0])
		if err != nil {
			return "", err
		}
		return "(" + left + " " + operator + " " + right + ")", nil
	}
}

// operandLike compiles the right side of a comparison: a text compared with a
// timestamp is a timestamp.
func (b *builder) operandLike(e, left *expr.Expr) (string, error) {
	if constant := e.GetConstExpr(); constant != nil {
		if column, ok := b.view.Column(left.GetIdentExpr().GetName()); ok && column.Type == model.TypeTimestamp {
			return b.timestamp(constant.GetStringValue())
		}
	}
	return b.operand(e)
}

// operand compiles a column or a value.
func (b *builder) operand(e *expr.Expr) (string, error) {
	switch kind := e.GetExprKind().(type) {
	case *expr.Expr_IdentExpr:
		switch name := kind.IdentExpr.GetName(); name {
		case "true":
			return b.bind(true), nil
		case "false":
			return b.bind(false), nil
		default:
			if _, ok := b.view.Column(name); !ok {
				return "", fmt.Errorf("there is no column %q", name)
			}
			return quote(name), nil
		}
	case *expr.Expr_ConstExpr:
		switch value := kind.ConstExpr.GetConstantKind().(type) {
		case *expr.Constant_StringValue:
			return b.bind(value.StringValue), nil
		case *expr.Constant_Int64Value:
			return b.bind(value.Int64Value), nil
		case *expr.Constant_DoubleValue:
			return b.bind(value.DoubleValue), nil
		case *expr.Constant_BoolValue:
			return b.bind(value.BoolValue), nil
		}
	case *expr.Expr_CallExpr:
		if kind.CallExpr.GetFunction() == filtering.FunctionTimestamp && len(kind.CallExpr.GetArgs()) == 1 {
			return b.timestamp(kind.CallExpr.GetArgs()[0].GetConstExpr().GetStringValue())
		}
	}
	return "", fmt.Errorf("only columns and values can be compared")
}

func (b *builder) timestamp(text string) (string, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return "", fmt.Errorf("%q is not an RFC 3339 timestamp", text)
	}
	return b.bind(model.FormatTime(t)), nil
}
