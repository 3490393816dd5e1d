package model

import (
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestRounded_FindsIntegersWithoutFloat64(t *testing.T) {
	for _, tc := range []struct {
		value any
		place string
		found bool
	}{
		{int64(1) << 53, "", false}, {int64(1)<<53 + 1, "", true}, {-int64(1)<<53 - 1, "", true},
		{int64(1)<<53 + 2, "", false}, {int64(1) << 62, "", false},
		{int64(math.MaxInt64), "", true}, {int64(math.MinInt64), "", false}, {1e300, "", false}, {nil, "", false},
		{"9007199254740993", "", false},
		{Object{"lines": []any{int64(1), Object{"total": int64(1)<<53 + 1}}}, "lines[1].total", true},
		{[]any{[]any{int64(1)<<53 + 1}}, "[0][0]", true},
	} {
		if place, found := Rounded(tc.value); place != tc.place || found != tc.found {
			t.Errorf("%v: %q, %v", tc.value, place, found)
		}
	}
}

// JSON readers with float64 numbers return the integer that was accepted.
func TestRounded_OtherIntegersSurviveFloat64(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.Int64(),
			rapid.Custom(func(t *rapid.T) int64 { return rapid.Int64().Draw(t, "n") &^ 0x7ff })).Draw(t, "value")
		if _, found := Rounded(n); found {
			return
		}
		text, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var read float64
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		if again := Normalize(read); again != any(n) && int64(read) != n {
			t.Fatalf("%d decoded as %v", n, again)
		}
	})
}

func TestPayload_ValuesOfASchemaAreEnforced(t *testing.T) {
	m, err := Parse("m.yaml", []byte(`model: m
aggregates:
  a:
    commands:
      x:
        payload:
          properties:
            kind: {enum: [gift, 9007199254740993]}
            only: {const: yes}
            id: {type: integer}
            small: {type: integer, minimum: -3, maximum: 3}
            named: {patternProperties: {"^n": {type: integer}}, additionalProperties: false}
            list: {items: {type: integer}}
        emit: [{event: e}]
    evolve: {e: {}}
`))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := m.Aggregate("a")
	command, _ := a.Command("x")
	const largest = int64(1<<53 - 1)
	for _, test := range []struct {
		payload Object
		accepts bool
	}{
		{Object{"kind": "gift"}, true}, {Object{"kind": "sale"}, false}, {Object{"kind": int64(1<<53 + 1)}, true},
		{Object{"only": "yes"}, true}, {Object{"only": "no"}, false},
		{Object{"id": largest}, true}, {Object{"id": largest + 1}, false}, {Object{"id": -largest}, true},
		{Object{"id": -largest - 1}, false}, {Object{"id": "1"}, false},
		{Object{"small": int64(3)}, true}, {Object{"small": int64(4)}, false}, {Object{"small": int64(-4)}, false},
		{Object{"named": Object{"n": largest}}, true}, {Object{"named": Object{"n": largest + 1}}, false},
		{Object{"named": Object{"o": int64(1)}}, false},
		{Object{"list": []any{largest}}, true}, {Object{"list": []any{int64(1), largest + 1}}, false},
	} {
		if got := command.Accepts(test.payload); got != test.accepts {
			t.Errorf("%v is accepted: %v", test.payload, got)
		}
	}
}
