package projection_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// notes is a view for filters.
func notes(t testing.TB) *model.View {
	t.Helper()
	m, err := model.Parse("notes.yaml", []byte(`model: notes
aggregates:
  note:
    commands: {make: {emit: [{event: made, data: {}}]}}
    evolve: {made: {}}
views:
  notes:
    columns: {title: string, sub: string, n: int, max: int, d: double, open: bool, at: timestamp, j: json, "null": string}
    on: {note.made: {upsert: {title: "''"}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.View("notes")
	return view
}

// noteRows are the rows that filters select from, by key.
var noteRows = map[string]model.Object{
	"a": {
		"title": "Yo-yo", "sub": "Yo-yo", "n": int64(10), "max": int64(20), "d": 10.0, "open": true,
		"at": "2027-01-15T08:00:00.000000000Z",
		"j": model.Object{
			"city": "Oslo", "n": int64(5), "on": true, "tags": []any{"red", "blue"}, "nothing": nil,
			"deep":  model.Object{"post-code": "0150", "a.b": int64(1)},
			"items": []any{model.Object{"sku": "x", "count": int64(2)}, model.Object{"sku": "y"}},
		},
	},
	"b": {
		"title": "Hey Yo", "sub": "x", "n": int64(-5), "max": int64(-5), "d": 0.5, "open": false,
		"at": "2027-01-15T00:00:00.000000000Z",
		"j": model.Object{
			"city": "Bergen", "n": 5.5, "on": false, "tags": []any{"green"}, "nothing": "x", "zero": "a\x00b",
		},
	},
	"c": {"title": "100%_*\\", "n": int64(1) << 60, "d": 1e300, "j": []any{"red", int64(1)}},
	"d": {"title": "", "j": "text file"},
	"e": {},
	"f": {"title": "Yo\x00y", "n": int64(31), "j": int64(7)},
}

// selected returns the keys of the rows that a filter selects, in order.
func selected(t testing.TB, s store.Store, view *model.View, filter string) (string, error) {
	t.Helper()
	plan, err := query.Compile(view, query.Request{Filter: filter}, s.Dialect())
	if err != nil {
		return "", err
	}
	var keys []string
	_, err = s.Query(t.Context(), view, plan, func(_, terms []any) error {
		keys = append(keys, terms[0].(string))
		return nil
	})
	if err != nil {
		t.Fatalf("filter %q: %v", filter, err)
	}
	return strings.Join(keys, ""), nil
}

// noteStore returns a store with the rows.
func noteStore(t *testing.T, open store.Opener) (store.Store, *model.View) {
	t.Helper()
	view := notes(t)
	s, err := open(t.Context(), natstest.Tenant(t, "acme"), []*model.View{view}, "origin")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	err = s.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
		batch.Advance(store.Checkpoint{Sequence: 1})
		for key, row := range noteRows {
			if err := batch.Put(view, key, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, view
}

// any40 is a filter of 40 values.
func any40(column, operator string) string {
	terms := make([]string, 40)
	for i := range terms {
		terms[i] = fmt.Sprintf("%s %s %d", column, operator, i)
	}
	return strings.Join(terms, " OR ")
}

func TestFilter_IsAIP160(t *testing.T) {
	cases := []struct{ filter, want string }{
		// Whitespace, parentheses, logic.
		{"", "abcdef"}, {"  ", "abcdef"}, {"(n = 10 )", "a"}, {"( n=10)", "a"}, {"((n = 10))", "a"}, {"n\t=\n10", "a"},
		{"n = 10 OR n = -5", "ab"}, {"n > 0 AND n < 100", "af"}, {"n > 0 n < 100", "af"},
		{"n = 10 OR n = -5 AND open", "a"}, // OR binds tighter than AND
		{"n = 10 open OR n = -5", "a"},     // a sequence is AND
		{"NOT n = 10", "bcdef"}, {"-n = 10", "bcdef"}, {"NOT (n = 10 OR n = -5)", "cdef"},
		{"-(n = 10 OR n = -5)", "cdef"},
		{"NOT NOT n = 10", "a"}, {any40("n", "="), "af"}, {"NOT (" + any40("n", "=") + ")", "bcde"},
		{strings.TrimSuffix(strings.Repeat("open ", 500), " "), "a"},
		// Numbers.
		{"n = 10.0", "a"}, {"n = 1e1", "a"}, {"n = -5", "b"}, {"n = 0x1f", "f"}, {"n > 10.5", "cf"}, {"n = 10.5", ""},
		{"n < 1e30", "abcf"},
		{"n > 99999999999999999999", ""}, {"n = 1152921504606846976", "c"}, {"n = 1152921504606846977", ""},
		{"d = 10", "a"}, {"d = .5", "b"}, {"d < 1.", "b"}, {"d >= 1e300", "c"}, {"n:10", "a"}, {"d:0.5", "b"},
		{"n = (10 OR -5)", "ab"},
		{"n = (10 OR -5) AND open = true", "a"}, {"n != (10 OR -5)", "abcdef"}, {"n != (10 AND -5)", "cdef"},
		{"n = (NOT 10)", "bcdef"},
		// Null.
		{"n = null", "de"}, {"n != null", "abcf"}, {"title = null", "e"}, {"at != null", "ab"}, {"j = null", "e"},
		{"open = null", "cdef"},
		{`title = "null"`, ""}, {"null = null", "abcdef"}, {"n != 10", "bcdef"}, {"n > -100", "abcf"},
		{"NOT n > -100", "de"}, {"n = (null OR 10)", "ade"},
		// Has.
		{"title:*", "abcdf"}, {"n:*", "abcf"}, {"open:*", "ab"}, {"at:*", "ab"}, {"j:*", "abcdf"}, {"NOT title:*", "e"},
		{`title:"Yo"`, "abf"}, {"title:Yo", "abf"},
		{`title:"Yo*"`, "af"}, {`title:"*Yo"`, "b"}, {`title:"*Yo*"`, "abf"}, {"open:true", "a"}, {`title:""`, "abcdf"},
		{`title:("Hey" OR "-")`, "ab"},
		// Wildcards.
		{`title = "Yo*"`, "af"}, {"title = Yo*", "af"}, {`title = "*Yo"`, "b"}, {`title = "*y*"`, "abf"},
		{`title != "Yo*"`, "bcde"}, {`title = "Y*-*o"`, "a"},
		{`title = "*"`, "abcdf"}, {`title = "100%_\*\\"`, "c"}, {`title = "100%*"`, "c"}, {`title = "1*%_\*\\"`, "c"},
		{`title = "Y_*"`, ""}, {`title = "%*"`, ""},
		{`title = "Yo*y"`, "f"}, {`title = "Yo\x00*"`, "f"}, {`title = "Yo\u0000y"`, "f"}, {"title = \"yo*\"", ""},
		{`title = "\*"`, ""},
		// Texts.
		{`title = ""`, "d"}, {"title = 'Hey Yo'", "b"}, {"title = Yo-yo", "a"}, {`title > "Y"`, "af"},
		{`title = "'; DROP TABLE view_notes; --"`, ""}, {"sub = x", "b"},
		{`title = "\"\\\n"`, ""}, {"title < 2", "cd"},
		// Columns.
		{"n = max", "b"}, {"n < max", "a"}, {"n != max", "acdef"}, {"d = n", "a"}, {"title = sub", "a"},
		{`title = "sub"`, ""}, {"open", "a"}, {"NOT open", "bcdef"}, {"open = false", "b"},
		{"open != true", "bcdef"}, {"true", "abcdef"}, {"false", ""}, {"NOT false", "abcdef"},
		// Times and dates.
		{`at = "2027-01-15T08:00:00Z"`, "a"}, {"at = 2027-01-15T08:00:00Z", "a"},
		{"at = 2027-01-15t09:00:00.0+01:00", "a"}, {"at = 2027-01-15", "b"}, {`at > "2027-01-15"`, "a"},
		{"at >= 2027-01-15 at < 2027-01-16", "ab"}, {`at > timestamp("2027-01-15T00:00:00Z")`, "a"},
		{`at = timestamp( "2027-01-15T00:00:00Z" )`, "b"}, {"at < 2000-01-01", ""},
		// Members of JSON.
		{`j.city = "Oslo"`, "a"}, {"j.city = Oslo", "a"}, {`j.city = "*er*"`, "b"}, {`j.city != "Oslo"`, "bcdef"},
		{`j.city > "C"`, "a"}, {"j.city:sl", "a"}, {"j.city:*", "ab"},
		{"j.n = 5", "a"}, {"j.n = 5.5", "b"}, {"j.n > 5.1", "b"}, {"j.n >= 5", "ab"}, {`j.n = "5"`, ""}, {"j.n:5", "a"},
		{"j.on = true", "a"}, {"j.on", "a"}, {"NOT j.on", "bcdef"}, {"j.on:false", "b"},
		{"j.nothing = null", "acdef"}, {"j.nothing != null", "b"}, {"j.nothing:*", "b"}, {"j.missing:*", ""},
		{"j.missing = 1", ""}, {"j.missing != 1", "abcdef"},
		{"j:city", "ab"}, {"j:missing", ""}, {"j:red", "c"}, {"j:1", "c"}, {"j.tags:red", "a"}, {`j.tags:"*e*"`, "ab"},
		{"j.tags:(red OR green)", "ab"}, {"j.tags = red", ""},
		{"j.deep:a", ""}, {`j.deep."post-code" = "0150"`, "a"}, {"j.deep.post-code:*", "a"}, {`j.deep."a.b" = 1`, "a"},
		{"j.items.sku:y", "a"}, {"j.items.sku:z", ""}, {"j.items.count:2", "a"}, {"j.items.sku:*", "a"},
		{"j.tags.0 = red", ""}, {`j = "text file"`, "d"}, {"j:text", "d"}, {"j = 7", "f"}, {"j > 6", "f"},
		{`j.zero = "a\x00b"`, "b"}, {`j.zero:"\x00"`, "b"}, {`j.zero = "a\x00*"`, "b"}, {`j."\"x" = 1`, ""},
		{`j."\x00":*`, ""},
	}
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		s, view := noteStore(t, newStore(t))
		for _, tc := range cases {
			if got, err := selected(t, s, view, tc.filter); err != nil || got != tc.want {
				t.Errorf("filter %.100q: got %q, %v; want %q", tc.filter, got, err, tc.want)
			}
		}
	})
}

func TestFilter_InvalidFilterIsInvalidArgument(t *testing.T) {
	view := notes(t)
	for filter, want := range map[string]string{
		`nope:"x"`: `no column "nope"`, "nope:*": `no column "nope"`, "nope = 1": "it has the columns title, sub",
		"nope":    "character 1",
		"n = ten": "compare it with a number", `n = "10"`: "number", "n:x": "number", "open = 1": "true or false",
		"open > false": "no order", "n < null": "null has no order",
		"at = yesterday": "RFC 3339", "at = 2027-13-01": "RFC 3339", `at = timestamp("x")`: "RFC 3339",
		"n = 1e999": "too large", "n = 0xffffffffffffffffff": "too large", "n = 1_0": "number",
		"n = inf": "number", "n = NaN": "number", "n.x = 1": "no members", "title": "alone is not a condition",
		"j": "alone", "10 = n": `no column "10"`, `"x"`: "compare a column",
		"n = ": "value is expected", "n = 1 AND": "condition is expected", "AND": "condition is expected",
		"NOT": "condition is expected", "(n = 1": `")" is expected`, "n = 1)": `not expected`,
		"n = (1 OR": "expected", "n = (1": `")" is expected`, "n ! 1": "use != or NOT", "n == 1": "value is expected",
		`title = "x`: "not closed", `title = "\q"`: "escape", `title = "\xZZ"`: "code",
		`title = "\ud800"`: "code", "title = \xff": "UTF-8", "f(n) = 1": "unknown function",
		"n = f(1)": "unknown function", "n = timestamp(1)": "takes a string",
		`n = timestamp("2027-01-15")`:   "not compared with a timestamp",
		`j.x = timestamp("2027-01-15")`: "no timestamps", "j.x < true": "no order",
		"j." + strings.Repeat("a.", 20) + "b = 1":                     "more than 16 members",
		"n = 1 AND AND n = 2":                                         "condition is expected",
		strings.Repeat("(", 200) + "n = 1" + strings.Repeat(")", 200): "nested deeper",
		strings.Repeat("NOT ", 200) + "n = 1":                         "nested deeper",
		strings.Repeat("open ", 600):                                  "more than 512", "n = 1, n = 2": "not expected",
	} {
		for _, dialect := range []query.Dialect{query.SQLite, query.PostgreSQL} {
			if _, err := query.Compile(
				view, query.Request{Filter: filter}, dialect,
			); !errors.Is(err, query.ErrFilter) || !strings.Contains(err.Error(), want) {
				t.Errorf("filter %.60q: %v, want %q", filter, err, want)
			}
		}
	}
}

// condition draws a filter of few conditions.
func condition(t *rapid.T, depth int) string {
	if depth == 0 || rapid.Bool().Draw(t, "simple") {
		member := rapid.SampledFrom(
			[]string{"title", "sub", "n", "d", "at", "j.city", "j.n", "j.tags", "j.items.sku", "j", "j.on"},
		).Draw(t, "member")
		operators := []string{"=", "!=", ":", "<", "<=", ">", ">="}
		if member == "title" {
			operators = operators[:3] // PostgreSQL orders texts with NUL differently
		}
		operator := rapid.SampledFrom(operators).Draw(t, "operator")
		value := rapid.SampledFrom(
			[]string{
				"10", "-5", "5.5", `"Yo*"`, `"*o"`, "Yo", "max", "sub", "*", "null", "true", "red", "x", "2027-01-15",
				`""`,
			},
		).Draw(t, "value")
		return member + " " + operator + " " + value
	}
	left, right := condition(t, depth-1), condition(t, depth-1)
	switch rapid.IntRange(0, 2).Draw(t, "joiner") {
	case 0:
		return "(" + left + " AND " + right + ")"
	case 1:
		return "(" + left + " OR " + right + ")"
	}
	return "NOT (" + left + ")"
}

// Both databases return the same rows for every filter, and NOT selects exactly the other rows.
func TestFilter_StoresAgreeAndNotIsComplement(t *testing.T) {
	stores := map[string]store.Store{}
	var view *model.View
	overBoth(t, func(sub *testing.T, newStore func(t *testing.T) store.Opener) {
		stores[sub.Name()], view = noteStore(t, newStore(t)) // open until all are compared
	})
	all := "abcdef"
	rapid.Check(t, func(r *rapid.T) {
		filter := condition(r, 3)
		if _, err := query.Compile(view, query.Request{Filter: filter}, query.SQLite); err != nil {
			r.Skip(err)
		}
		answers := map[string]string{}
		for name, s := range stores {
			got, err := selected(t, s, view, filter)
			if err != nil {
				r.Fatal(err)
			}
			others, err := selected(t, s, view, "NOT ("+filter+")")
			if err != nil {
				r.Fatal(err)
			}
			rest := all
			for _, key := range got {
				rest = strings.Replace(rest, string(key), "", 1)
			}
			if others != rest {
				r.Fatalf("%s: %q selects %q, its negation %q", name, filter, got, others)
			}
			answers[got] = name
		}
		if len(answers) > 1 {
			r.Fatalf("%q: %v", filter, answers)
		}
	})
}
