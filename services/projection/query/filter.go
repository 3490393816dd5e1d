package query

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/model"
)

// filter compiles an AIP-160 filter to a condition:
//
//   - comparators =, !=, <, <=, >, >= with a literal, or with another column of the same type;
//     null is the value of an unset column
//   - `*` in a text that is compared with = or != is a wildcard for any text
//   - `:` tests whether a text contains another, a JSON list or object has an element or member,
//     or another column equals the value; `column:*` tests whether the column is set
//   - members of JSON columns by dots; values in parentheses, joined by AND, OR and NOT, after a
//     comparator; a column of type bool without a comparator
//
// A condition on an unset column is false, except for = null and !=; NOT is true exactly where its condition is not.
// Errors wrap [ErrFilter].
func (b *builder) filter(view *model.View, source string) (string, error) {
	b.view = view
	tree, err := parse(source)
	var condition string
	if err == nil {
		condition, err = b.condition(tree)
	}
	var at *syntaxError
	if errors.As(err, &at) {
		character := utf8.RuneCountInString(source[:min(at.at, len(source))]) + 1
		return "", fmt.Errorf("%w: at character %d: %s", ErrFilter, character, at.message)
	}
	return condition, err
}

// condition compiles a part of a filter.
func (b *builder) condition(part node) (string, error) {
	switch part := part.(type) {
	case *junction:
		return b.junction(part, b.condition)
	case *negation:
		inner, err := b.condition(part.part)
		return b.not(inner), err
	case *restriction:
		return b.restriction(part)
	}
	return "", fmt.Errorf("query: a part of type %T", part)
}

// not returns the condition that is true where inner is false or NULL.
func (b *builder) not(inner string) string { return fmt.Sprintf(b.dialect.Not, inner) }

// junction compiles the parts and joins them. The joined conditions form a balanced tree, since SQLite bounds the
// depth of expressions.
func (b *builder) junction(j *junction, compile func(node) (string, error)) (string, error) {
	conditions := make([]string, len(j.parts))
	for i, part := range j.parts {
		var err error
		if conditions[i], err = compile(part); err != nil {
			return "", err
		}
	}
	joiner := " AND "
	if j.any {
		joiner = " OR "
	}
	return balanced(joiner, conditions), nil
}

func balanced(joiner string, conditions []string) string {
	if len(conditions) == 1 {
		return conditions[0]
	}
	middle := len(conditions) / 2
	return "(" + balanced(joiner, conditions[:middle]) + joiner + balanced(joiner, conditions[middle:]) + ")"
}

// restriction compiles a comparison.
func (b *builder) restriction(r *restriction) (string, error) {
	column, ok := b.view.Column(r.path[0])
	switch {
	case !ok && len(r.path) == 1 && r.operator == "" && (r.path[0] == "true" || r.path[0] == "false"):
		return b.bind(r.path[0] == "true") + " = " + b.bind(true), nil
	case !ok && r.operator == "":
		return "", mistake(r.at, "%q is not a condition: compare a column with it (view %q has the columns %s)",
			r.path[0], b.view.Name, names(b.view))
	case !ok:
		return "", mistake(r.at, "view %q has no column %q (it has the columns %s)", b.view.Name, r.path[0],
			names(b.view))
	case len(r.path) > 1 && column.Type != model.TypeJSON:
		return "", mistake(r.at, "column %q is of type %s, which has no members", column.Name, column.Type)
	case r.operator == "" && (column.Type == model.TypeBool || column.Type == model.TypeJSON && len(r.path) > 1):
		return b.compare(column, r, "=", &value{at: r.at, text: "true"})
	case r.operator == "":
		return "", mistake(r.at, "%q alone is not a condition: compare it with a value", column.Name)
	}
	return b.argument(column, r, r.arg)
}

// argument compiles a comparison with a value, or with values joined by AND, OR and NOT.
func (b *builder) argument(column model.Column, r *restriction, arg node) (string, error) {
	switch arg := arg.(type) {
	case *junction:
		return b.junction(arg, func(part node) (string, error) { return b.argument(column, r, part) })
	case *negation:
		inner, err := b.argument(column, r, arg.part)
		return b.not(inner), err
	case *value:
		if r.operator != "!=" {
			return b.compare(column, r, r.operator, arg)
		}
		equal, err := b.compare(column, r, "=", arg)
		return b.not(equal), err
	}
	return "", fmt.Errorf("query: an argument of type %T", arg)
}

// compare compiles a comparison of a column with a value; the operator is not !=.
func (b *builder) compare(column model.Column, r *restriction, operator string, v *value) (string, error) {
	if column.Type == model.TypeJSON {
		return b.compareJSON(column, r, operator, v)
	}
	name := b.dialect.Column(column.Name)
	if !v.quoted {
		switch {
		case v.text == "null" && (operator == "=" || operator == ":"):
			return name + " IS NULL", nil
		case v.text == "null":
			return "", mistake(v.at, "null has no order: use =, != or :*")
		case v.text == "*" && operator == ":":
			return name + " IS NOT NULL", nil
		}
		if other, ok := b.view.Column(v.text); ok && operator != ":" && sameOrder(column, other) {
			return "(" + name + " " + operator + " " + b.dialect.Column(other.Name) + ")", nil
		}
	}
	if column.Type == model.TypeString && !v.time {
		if p, ok := pattern(v.text); ok && (operator == "=" || operator == ":") {
			return fmt.Sprintf(b.dialect.Like, name, b.bind(string(p))), nil
		}
		if operator == ":" {
			return "(" + fmt.Sprintf(b.dialect.Contains, name, b.bind(v.plain())) + ")", nil
		}
	}
	literal, err := v.as(column.Type)
	if err != nil {
		return "", mistake(v.at, "column %q is of type %s: %s", column.Name, column.Type, err)
	}
	if operator == ":" {
		operator = "="
	}
	if _, isBool := literal.(bool); isBool && operator != "=" {
		return "", mistake(v.at, "column %q is of type bool, which has no order: use = or !=", column.Name)
	}
	return "(" + name + " " + operator + " " + b.bind(literal) + ")", nil
}

// sameOrder reports whether the values of two columns can be compared.
func sameOrder(a, b model.Column) bool {
	numbers := []model.ColumnType{model.TypeInt, model.TypeDouble}
	return a.Type == b.Type && a.Type != model.TypeJSON && a.Type != model.TypeBool ||
		slices.Contains(numbers, a.Type) && slices.Contains(numbers, b.Type)
}

// compareJSON compiles a comparison of a value in a JSON column.
func (b *builder) compareJSON(column model.Column, r *restriction, operator string, v *value) (string, error) {
	test := JSONTest{
		Path:     r.path[1:],
		Has:      operator == ":",
		Operator: operator,
		Kind:     KindText,
		Text:     v.plain(),
	}
	if test.Has {
		test.Operator = "="
	}
	missing := false
	p, isPattern := pattern(v.text)
	equality := test.Operator == "="
	switch {
	case v.time:
		return "", mistake(v.at, "column %q is of type json, which has no timestamps: compare it with a text",
			column.Name)
	case !v.quoted && v.text == "null":
		if !equality {
			return "", mistake(v.at, "null has no order: use =, != or :*")
		}
		missing, test = true, JSONTest{Path: test.Path, Kind: KindPresent}
	case !v.quoted && v.text == "*" && test.Has:
		test = JSONTest{Path: test.Path, Has: true, Kind: KindPresent}
	case !v.quoted && (v.text == "true" || v.text == "false"):
		if !equality {
			return "", mistake(v.at, "%s has no order: use = or !=", v.text)
		}
		test.Kind, test.Text, test.Bool = KindBool, "", v.text == "true"
	case !v.quoted && isNumber(v.text):
		number, err := v.number()
		if err != nil {
			return "", mistake(v.at, "%s", err)
		}
		test.Kind, test.Text = KindNumber, jsonNumber(number)
	case isPattern && equality:
		test.Kind, test.Text = KindPattern, string(p)
	}
	condition := b.dialect.JSON(b.dialect.Column(column.Name), test, b.bind)
	if missing {
		condition = b.not(condition)
	}
	return condition, nil
}

// jsonNumber returns the JSON of a number.
func jsonNumber(number any) string {
	if f, ok := number.(float64); ok {
		return strconv.FormatFloat(f, 'g', -1, 64)
	}
	return fmt.Sprint(number)
}

// plain returns the value's text, in which asterisks are literal.
func (v *value) plain() string { return strings.ReplaceAll(v.text, string(literalStar), "*") }

// as returns the value as a column's type binds it, or why it does not fit.
func (v *value) as(t model.ColumnType) (any, error) {
	if v.time && t != model.TypeTimestamp {
		return nil, errors.New("it is not compared with a timestamp")
	}
	switch t {
	case model.TypeString:
		return v.plain(), nil
	case model.TypeTimestamp:
		return timestamp(v.text)
	case model.TypeBool:
		if !v.quoted && (v.text == "true" || v.text == "false") {
			return v.text == "true", nil
		}
		return nil, errors.New("compare it with true or false")
	}
	if v.quoted || !isNumber(v.text) {
		return nil, errors.New("compare it with a number")
	}
	number, err := v.number()
	if i, ok := number.(int64); ok && t == model.TypeDouble {
		return float64(i), err
	}
	return number, err
}

// numberPattern matches the numbers of filters: JSON numbers, with optional leading zeros and a leading or trailing
// dot, and hexadecimal integers.
var numberPattern = regexp.MustCompile(`^-?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)$`)

func isNumber(text string) bool { return numberPattern.MatchString(text) }

// number returns an int64 for a number without a fraction that fits 64 bits, else a float64.
func (v *value) number() (any, error) {
	if strings.ContainsAny(v.text, "xX") {
		i, err := strconv.ParseInt(v.text, 0, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is too large", v.text)
		}
		return i, nil
	}
	if i, err := strconv.ParseInt(v.text, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if err != nil {
		return nil, fmt.Errorf("%s is too large", v.text)
	}
	return model.Normalize(f), nil
}

// timestamp returns the bound form of an RFC 3339 timestamp, or of a date, which means its midnight in UTC.
func timestamp(text string) (any, error) {
	upper := strings.ToUpper(text) // RFC 3339 §5.6 allows "t" and "z"
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, upper); err == nil {
			return model.FormatTime(t), nil
		}
	}
	return nil, fmt.Errorf("%q is neither an RFC 3339 timestamp (2030-01-31T12:00:00Z) nor a date (2030-01-31)", text)
}
