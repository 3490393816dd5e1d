package query_test

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
)

func TestPattern_Match(t *testing.T) {
	for _, tc := range []struct {
		pattern query.Pattern
		text    string
		want    bool
	}{
		{"%", "", true}, {"%", "x", true}, {"a%", "a", true}, {"a%", "ba", false}, {"%a", "ba", true},
		{"a%a", "a", false}, {"a%a", "aa", true},
		{"%a%b%", "xaxbx", true}, {"%a%b%", "xbxax", false}, {`\%%`, "%x", true}, {`\%`, "x", false},
		{`\\%`, `\x`, true}, {`a\_`, "ab", false}, {"%%", "", true},
	} {
		if got := tc.pattern.Match(tc.text); got != tc.want {
			t.Errorf("%q, %q: %v", tc.pattern, tc.text, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(rapid.StringMatching(`[a-c]{0,3}`), 2, 4).Draw(t, "parts")
		fill := rapid.StringMatching(`[a-c]{0,3}`)
		var text strings.Builder
		for i, part := range parts {
			if i > 0 {
				text.WriteString(fill.Draw(t, "between"))
			}
			text.WriteString(part)
		}
		if pattern := query.Pattern(strings.Join(parts, "%")); !pattern.Match(text.String()) {
			t.Fatalf("%q does not match %q", pattern, text.String())
		}
	})
}

// FuzzFilter compiles filters: errors are ErrFilter, and every value is bound.
func FuzzFilter(f *testing.F) {
	m, err := model.Parse("m.yaml", []byte(`model: m
aggregates: {a: {commands: {make: {emit: [{event: made, data: {}}]}}, evolve: {made: {}}}}
views: {v: {columns: {s: string, n: int, d: double, b: bool, t: timestamp, j: json}, on: {a.made: {upsert: {n: "1"}}}}}
`))
	if err != nil {
		f.Fatal(err)
	}
	view, _ := m.View("v")
	for _, filter := range []string{
		"", `s = "x*" OR NOT (n > 1.5 b)`, `j.a."b c":(x OR y)`, "t >= 2027-01-15T00:00:00Z",
		`t < timestamp("2027-01-15")`, "-n = 0x1f", `s = "\u00e9\*"`, "(((", "n = )", `"`,
	} {
		f.Add(filter)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		for _, dialect := range []query.Dialect{query.SQLite, query.PostgreSQL} {
			plan, err := query.Compile(view, query.Request{Filter: filter}, dialect)
			if err != nil && !errors.Is(err, query.ErrFilter) {
				t.Fatal(err)
			}
			if marks := strings.Count(plan.Where, "?"); err == nil && dialect.Like == query.SQLite.Like &&
				marks != len(plan.Args) {
				t.Fatalf("%d parameters and %d values: %s", marks, len(plan.Args), plan.Where)
			}
		}
	})
}
