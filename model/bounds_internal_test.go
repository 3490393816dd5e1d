package model

import (
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"go.yaml.in/yaml/v3"
)

// The tests of this file are those of small inputs, which take no time: TestParse_HostileDocumentsAreRejected and
// TestExpression_CostIsBoundedBeforeCall have the large ones.

func TestBounds_DocumentOfExactlyTheBoundIsAccepted(t *testing.T) {
	nested := func(levels int, inner string) string {
		return strings.Repeat("[", levels) + inner + strings.Repeat("]", levels)
	}
	for _, test := range []struct{ document, want string }{
		{nested(maxDepth, "1"), ""},
		{nested(maxDepth+1, "1"), "column 66: the nesting is deeper than 64"},
		{"[&a " + nested(30, "1") + ", " + nested(maxDepth-31, "*a") + "]", ""},
		{"[&a " + nested(30, "1") + ", " + nested(maxDepth-30, "*a") + "]", "the nesting is deeper than 64, with " +
			"aliases"},
		{"&a [*a]", "the alias *a is within its own anchor"},
		{"[&a 1, *a, *a]", ""},
	} {
		var root yaml.Node
		if err := yaml.Unmarshal([]byte(test.document), &root); err != nil {
			t.Fatal(err)
		}
		d := &document{}
		ok := d.bounded(root.Content[0])
		if ok != (test.want == "") || !ok && !strings.Contains(d.issues[0].Message, test.want) {
			t.Errorf("%s: %v, %v; want %q", test.document, ok, d.issues, test.want)
		}
	}
}

func TestBounds_ResultOfAnExpressionIsCharged(t *testing.T) {
	list := types.DefaultTypeAdapter.NativeToValue([]any{"abc", int64(1), map[string]any{"de": "f"}})
	for _, test := range []struct {
		left quota
		fits bool
	}{
		{quota{6, 6}, true}, {quota{5, 6}, false}, {quota{6, 5}, false}, {quota{0, 6}, false}, {quota{6, 0}, false},
	} {
		left := test.left
		if _, err := left.native(list); (err == nil) != test.fits {
			t.Errorf("with %+v left: %v, want it to fit: %v", test.left, err, test.fits)
		}
	}
}

func TestBounds_EachRegularExpressionIsCharged(t *testing.T) {
	large := "(" + strings.Repeat("ab", 1000) + "){6}"
	envs, err := sharedEnvironments()
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{
		"'a'.matches('" + large + "')", "'a'.matches('" + large + "') && 'a'.matches('b')",
		"'a'.matches('b') && matches('a', '" + large + "')",
	} {
		if _, err := compile(envs.decide, source, nil, &regexpBudget{}); err == nil ||
			!strings.Contains(err.Error(), "more than 10000 steps") {
			t.Errorf("%s: %v, want it rejected", source, err)
		}
	}
	budget := &regexpBudget{}
	engine, checked := budget.engine()
	if _, err := engine(large); err == nil {
		t.Error("a pattern of a schema with more than 10,000 steps is accepted")
	}
	if _, err := engine("a{9}"); err != nil || budget.used == 0 {
		t.Errorf("a short pattern: %v, %d steps charged", err, budget.used)
	}
	checked()
	used := budget.used
	if _, err := engine("a{9}"); err != nil || budget.used != used {
		t.Errorf("a pattern of a payload: %v, %d steps charged", err, budget.used-used)
	}
}

func TestBounds_UnitsOfACallAreThoseOfItsArguments(t *testing.T) {
	text := func(bytes int) ref.Val { return types.String(strings.Repeat("a", bytes)) }
	list := func(texts ...any) ref.Val { return types.DefaultTypeAdapter.NativeToValue(texts) }
	for name, test := range map[string]struct{ got, want uint64 }{
		"a " +
			"match": {matchUnits([]ref.Val{text(399), types.String("a{9}")}),
			400 * 18 / stepsPerUnit},
		"a match of no text":          {matchUnits([]ref.Val{types.Int(1), text(1)}), 0},
		"a match with no text":        {matchUnits([]ref.Val{text(1), types.Int(1)}), 0},
		"a pattern that is too large": {matchUnits([]ref.Val{text(1), text(maxPatternBytes + 1)}), costLimit + 1},
		"a malformed pattern":         {matchUnits([]ref.Val{text(1), types.String("(")}), costLimit + 1},
		"a replacement":               {replaceUnits([]ref.Val{text(10), text(1), text(30)}), (10 + 10*30) / perUnit},
		"a replacement of " +
			"one": {replaceUnits([]ref.Val{text(10), text(1), text(30), types.Int(1)}), 40 / perUnit},
		"a replacement of " +
			"all": {replaceUnits([]ref.Val{text(10), text(1), text(30), types.Int(-1)}), 310 / perUnit},
		"a replacement of no text":      {replaceUnits([]ref.Val{text(10), types.Int(1), text(1)}), 0},
		"texts that are joined":         {joinUnits([]ref.Val{list("aaaa", "bbbb"), text(50)}), (9 + 2*50) / perUnit},
		"texts that are joined plainly": {joinUnits([]ref.Val{list(strings.Repeat("a", 49))}), 50 / perUnit},
		"a search":                      {searchUnits([]ref.Val{text(500), text(20)}), 500 * 20 / comparedPerUnit},
		"a search of no text":           {searchUnits([]ref.Val{text(500), types.Int(1)}), 0},
	} {
		if test.got != test.want {
			t.Errorf("%s: %d units, want %d", name, test.got, test.want)
		}
	}
}

func TestBounds_CallIsChargedAtLeastAsCELChargesIt(t *testing.T) {
	text := func(bytes int) ref.Val { return types.String(strings.Repeat("a", bytes)) }
	for _, test := range []struct {
		function string
		args     []ref.Val
		want     uint64 // 0: as CEL charges it
	}{
		{"startsWith", []ref.Val{text(1000), text(1000)}, 0},
		{"size", []ref.Val{text(99)}, 0},
		{"size", []ref.Val{text(1000)}, 11},
		{constantMatches + "40", []ref.Val{text(399)}, 401},
		{"_+_", []ref.Val{text(500), text(500)}, 101},
		{"_==_", []ref.Val{text(500), text(40)}, 5},
	} {
		charged := costs{}.CallCost(test.function, "", test.args, nil)
		if (charged == nil) != (test.want == 0) || charged != nil && *charged != test.want {
			t.Errorf("%s: charged %v, want %d", test.function, charged, test.want)
		}
	}
}

func TestBounds_ReferenceOfASchemaCountsItsTarget(t *testing.T) {
	schema := func(reference string) int {
		s := schemaSizer{known: map[string]int{}}
		s.root = Object{
			"$defs": Object{"small": Object{}, "a/b": Object{"x": Object{}, "y": Object{}, "z": Object{}}},
			"$ref":  reference,
		}
		return s.steps(s.root)
	}
	none := schema("#/$defs/small") - 1
	for reference, want := range map[string]int{"#/$defs/small": 1, "#/$defs/a~1b": 4, "#/$defs": 6, "#": none} {
		if got := schema(reference) - none; got != want {
			t.Errorf("%s counts %d, want %d", reference, got, want)
		}
	}
}

func TestSchemaError_PlaceThatTheDocumentLacksIsThatOfItsParent(t *testing.T) {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte("a: {b: [1, 2]}"), &root); err != nil {
		t.Fatal(err)
	}
	n := root.Content[0]
	for _, test := range []struct {
		location []string
		column   int
	}{
		{[]string{"a", "b", "1"}, 12}, {[]string{"a", "b", "2"}, 8}, {[]string{"a", "c"}, 4}, {[]string{"a", "b", "-1"},
			8},
		{[]string{"a", "b", "1", "c"}, 12}, {nil, 1},
	} {
		if got := nodeAt(n, test.location); got.Column != test.column {
			t.Errorf("%v: column %d, want %d", test.location, got.Column, test.column)
		}
	}
}
