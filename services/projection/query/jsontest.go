package query

import (
	"cmp"
	"encoding/json"
	"math/big"
	"strings"

	"github.com/headgate/headgate/model"
)

// JSONKind is the kind of value that a [JSONTest] compares with.
type JSONKind string

// Kinds of values.
const (
	KindPresent JSONKind = "present" // any value except null
	KindText    JSONKind = "text"
	KindNumber  JSONKind = "number"
	KindBool    JSONKind = "bool"
	KindPattern JSONKind = "pattern" // Text is a Pattern
)

// JSONTest is a condition on a value in a JSON column. Values of different types are not equal and not ordered. A
// test is false if there is no value.
type JSONTest struct {
	// Path is the path of members to the value; empty: the column's value.
	Path []string `json:"path,omitempty"`
	// Has selects the `:` operator, which also visits the elements of arrays on the path and at its end, and tests
	// whether a text contains another or an object has a member.
	Has bool `json:"has,omitempty"`
	// Operator is =, <, <=, > or >=.
	Operator string   `json:"operator,omitempty"`
	Kind     JSONKind `json:"kind"`
	// Text is the text, the pattern, or the number as JSON.
	Text string `json:"text,omitempty"`
	Bool bool   `json:"bool,omitempty"`
}

// Match reports whether a column's value passes the test. An error means that it is not JSON.
func (t JSONTest) Match(text string) (bool, error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var document any
	if err := decoder.Decode(&document); err != nil {
		return false, err
	}
	return t.follow(document, t.Path), nil
}

// follow reports whether the value at path, from v, passes the test.
func (t JSONTest) follow(v any, path []string) bool {
	if t.Has {
		if list, ok := v.([]any); ok && (len(path) > 0 || t.Kind != KindPresent) {
			for _, element := range list {
				if _, nested := element.([]any); !nested && t.follow(element, path) {
					return true
				}
			}
			return false
		}
	}
	if len(path) == 0 {
		return t.passes(v)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return false
	}
	member, ok := object[path[0]]
	return ok && t.follow(member, path[1:])
}

// passes reports whether a value passes the test.
func (t JSONTest) passes(v any) bool {
	switch v := v.(type) {
	case bool:
		return t.Kind == KindPresent || t.Kind == KindBool && v == t.Bool
	case json.Number:
		return t.Kind == KindPresent || t.Kind == KindNumber && t.ordered(compareNumbers(v, json.Number(t.Text)))
	case string:
		switch t.Kind {
		case KindPresent:
			return true
		case KindPattern:
			return Pattern(t.Text).Match(v)
		case KindText:
			if t.Has {
				return strings.Contains(v, t.Text)
			}
			return t.ordered(cmp.Compare(v, t.Text))
		}
		return false
	case map[string]any:
		_, member := v[t.Text]
		return t.Kind == KindPresent || t.Has && t.Kind == KindText && member
	case []any:
		return t.Kind == KindPresent
	}
	return false
}

// ordered reports whether the result of a comparison satisfies the operator.
func (t JSONTest) ordered(order int) bool {
	switch t.Operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	return order == 0
}

// compareNumbers orders two JSON numbers exactly if they have at most 64 bits or are the same text.
func compareNumbers(a, b json.Number) int {
	x, y := model.Normalize(a), model.Normalize(b)
	if i, ok := x.(int64); ok {
		if j, ok := y.(int64); ok {
			return cmp.Compare(i, j)
		}
	}
	return float(x).Cmp(float(y))
}

func float(v any) *big.Float {
	switch v := v.(type) {
	case int64:
		return new(big.Float).SetInt64(v)
	case float64:
		return new(big.Float).SetFloat64(v)
	}
	return new(big.Float)
}
