package model_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

// evaluated returns the value of an expression over an event's data.
func evaluated(t *testing.T, expression string, data model.Object) (any, error) {
	t.Helper()
	quoted := "'" + strings.ReplaceAll(expression, "'", "''") + "'"
	m, err := model.Parse("m",
		[]byte("model: m\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, evolve: {e: {out: "+quoted+"}}}}\n"))
	if err != nil {
		t.Fatalf("%.200s: %v", expression, err)
	}
	a, _ := m.Aggregate("a")
	state, err := a.Evolve(t.Context(), model.Object{}, "e", data, model.Meta{})
	return state["out"], err
}

// Without the bounds, each of these took seconds to hours, or all memory, regardless of deadlines.
func TestExpression_CostIsBoundedBeforeCall(t *testing.T) {
	if testing.Short() {
		t.Skip("long evaluations, no concurrency")
	}
	long, list := strings.Repeat("a", 1<<20), make([]any, 50_000)
	for n := range list {
		list[n] = "x"
	}
	numbers := make([]any, 50_000)
	for n := range numbers {
		numbers[n] = int64(n + 1)
	}
	data := model.Object{
		"numbers": numbers, "hours": strings.Repeat("1ns", 1<<16),
		"s": long, "half": strings.Repeat("a", 1<<19) + "b", "list": list, "one": []any{"x"},
		"pattern": "(((a{30}){30}){10})+$", "pattern_long": strings.Repeat("(a|b)", 1<<16), "small": "a",
	}
	chain := func(start, step string, times int) string { return start + strings.Repeat(".map(a, "+step+")", times) }
	for _, expression := range []string{
		"event.s.matches('^((a{30}){30})*$')",
		"matches(event.s, '(a|aa|aaa|aaaa|aaaaa)*b')",
		"event.s.matches(event.pattern)",
		"event.small.matches(event.pattern_long)",
		"event.list.all(x, event.half.matches('(x+x+)+y'))",
		"event.s.replace('', event.s)",
		"event.s.replace('a', event.s)",
		"event.s.replace('', event.s, 1000000)",
		"event.list.join(event.s)",
		"event.s.indexOf(event.half)",
		"event.s.lastIndexOf(event.half)",
		"event.s.indexOf(event.half, 3)",
		"'" + strings.Repeat("%s", 600) + "'.format([" + strings.TrimSuffix(strings.Repeat("event.s,", 600), ",") +
			"])",
		chain("[event.s]", "a + a", 30),
		chain("[event.list]", "a + a", 30),
		chain("[event.one]", "[a, a]", 30),
		chain("[event.one]", "{'x': a, 'y': a}", 30),
		"size(" + chain("[event.one]", "a + a", 30) + "[0])",
		chain("[event.one]", "[a, a]", 30) + " == " + chain("[event.one]", "[a, a]", 30),
		"event.list.all(x, event.list == event.list)",
		"event.list.all(x, 'y' in event.list || true)",
		"event.list.all(x, size(event.s) > 1)",
		"event.list.all(x, event.s + 'x' != '')",
		"event.numbers.all(x, math.greatest(event.numbers) > 0)",
		"event.numbers.all(x, duration(event.hours) < duration('1h'))",
	} {
		_, err := evaluated(t, expression, data)
		if !errors.Is(err, model.ErrEvaluation) {
			t.Errorf("%.100s: %v", expression, err)
		}
	}
}

func TestExpression_OrdinaryUseIsNotBounded(t *testing.T) {
	data := model.Object{
		"s": strings.Repeat("a", 1<<20), "text": strings.Repeat("lorem ipsum ", 200), "mail": "ada@example.com",
		"pattern": "^[a-z]+@", "list": []any{"a", "b"},
	}
	for expression, want := range map[string]any{
		"size(event.s) > 1000": true,
		`event.mail.matches('^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+[.][a-zA-Z]{2,}$')`: true,
		"matches(event.mail, '^x')":                                         false,
		"event.mail.matches(event.pattern)":                                 true,
		"event.text.matches('ipsum$')":                                      false,
		"event.text == event.text":                                          true,
		"event.text.replace('lorem', 'dolor').contains('lorem')":            false,
		"event.mail.replace('a', 'b', 1)":                                   "bda@example.com",
		"event.list.join(', ')":                                             "a, b",
		"event.list.join()":                                                 "ab",
		"event.text.indexOf('ipsum')":                                       int64(6),
		"event.text.lastIndexOf('lorem') > 1000":                            true,
		"event.text.replace('lorem', event.mail, 1).startsWith(event.mail)": true,
		"event.mail.indexOf('a', 1)":                                        int64(2),
		"'%s is %d'.format([event.mail, 3])":                                "ada@example.com is 3",
		"event.list.map(x, x + x).join()":                                   "aabb",
		"(event.list + event.list).size()":                                  int64(4),
		"'a' in event.list":                                                 true,
	} {
		if got, err := evaluated(t, expression, data); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", expression, got, err, want)
		}
	}
	if _, err := evaluated(t, "event.list.matches('x')", data); !errors.Is(err, model.ErrEvaluation) {
		t.Errorf("list matches: %v", err)
	}
}

func TestPayload_TextTooLongForPatternIsRejected(t *testing.T) {
	m, err := model.Parse(
		"m",
		[]byte(
			"model: m\naggregates: {a: {commands: {x: {payload: {type: object, properties: {s: {type: string, "+
				"pattern: '^((a{30}){30})*$'}, t: {type: string, pattern: '^a*$'}}}, emit: [{event: e}]}}, evolve: "+
				"{e: {}}}}\n",
		),
	)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := m.Aggregate("a")
	c, _ := a.Command("x")
	long := strings.Repeat("a", 1<<20)
	var refused *model.PayloadError
	if _, err := c.Decide(
		t.Context(), model.Object{}, model.Object{"s": long}, model.Meta{},
	); !errors.As(err, &refused) || !strings.Contains(err.Error(), "too long for its regular expression") {
		t.Errorf("long string: %v", err)
	}
	if _, err := c.Decide(
		t.Context(), model.Object{}, model.Object{"s": strings.Repeat("a", 900), "t": long}, model.Meta{},
	); err != nil {
		t.Errorf("strings within the limit: %v", err)
	}
}
