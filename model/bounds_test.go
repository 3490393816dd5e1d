package model_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

// demo is a model with a placeholder for a workflow's steps, for a rule and for a schema.
func demo(steps, rule, schema string) string {
	if steps == "" {
		steps = "[]"
	}
	return `model: demo
aggregates:
  thing:
    commands:
      make:
        payload: ` + schema + `
        emit:
          - event: made
    events: {}
    evolve:
      made: {}
workflows:
  flow:
    on: thing.made
    when: ` + rule + `
    steps: ` + steps + "\n"
}

// laughs returns nested anchors, each of which occurs ten times in the next.
func laughs(levels int) string {
	var b strings.Builder
	b.WriteString("model: laughs\nx0: &a0 [1, 1]\n")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&b, "x%d: &a%d [%s]\n", i, i,
			strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	return b.String()
}

// doubling returns a schema with nested definitions, each of which refers to the next twice.
func doubling(levels int) string {
	var b strings.Builder
	b.WriteString(`{"$ref": "#/$defs/d0", "$defs": {`)
	for i := range levels {
		fmt.Fprintf(&b, `"d%d": {"allOf": [{"$ref": "#/$defs/d%d"}, {"$ref": "#/$defs/d%d"}]}, `, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"d%d": {"type": "object"}}}`, levels)
	return b.String()
}

func TestParse_HostileDocumentIsRejectedWithinBounds(t *testing.T) {
	if testing.Short() {
		t.Skip("large documents, no concurrency")
	}
	const megabyte = 1 << 20
	for name, tc := range map[string]struct{ document, want string }{
		"recursive alias": {
			demo("&s [{name: x, parallel: *s}]", "true", "{}"), ":16: column 36: the alias *s is within its own anchor",
		},
		"recursive alias in a mapping": {
			"model: m\naggregates: &a\n  x: *a\n", ":3: column 6: the alias *a is within",
		},
		"recursive alias in a merge": {
			"model: m\naggregates: &a\n  <<: *a\n", ":3: column 7: the alias *a is within",
		},
		"nested aliases": {laughs(9), ":7: column 25: the document has more than 100000 values"},
		"aliases of a long string": {
			"model: m\nx: &a " + strings.Repeat("a", 100_000) + "\ny: [" + strings.Repeat("*a,", 1000) + "]\n",
			":3: column",
		},
		"aliases of deep values": {
			"model: m\nx: &a " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\ny: " + strings.Repeat("[", 40) +
				"*a" + strings.Repeat("]", 40) + "\n",
			":3: column 44: the nesting is deeper",
		},
		"nested merges": {
			demo(
				"", "true",
				`{a0: &a0 {x: 1}, a1: &a1 {<<: [*a0, *a0]}, a2: &a2 {<<: [`+strings.Repeat("*a1, ", 9000)+
					`*a1]}, a3: {<<: [`+strings.Repeat("*a2, ", 9000)+`*a2]}}`,
			),
			":6: column",
		},
		"nested lists": {
			"model: m\nx: " + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + "\n",
			":2: column 67: the nesting is deeper than 64",
		},
		"unclosed lists":    {strings.Repeat("[", megabyte), "exceeded max depth"},
		"nested mappings":   {strings.Repeat("{a: ", megabyte/4), "exceeded max depth"},
		"nested list items": {strings.Repeat("- ", megabyte/2), "exceeded max depth"},
		"too many values":   {"x: [" + strings.Repeat("a,", 500_000) + "]", ":1: column"},
		"too many errors":   {strings.Repeat("? [x]\n", 30_000), ":1:"},
		"key of 1 MiB": {
			"model: m\n? " + strings.Repeat("k", megabyte-20) + "\n: 1", "unknown key",
		},
		"comments":            {"model: m\n" + strings.Repeat("x: #\n", 40_000), `:2: unknown key "x"`},
		"string of 1 MiB":     {"model: " + strings.Repeat("x", megabyte-10), ":1: model: "},
		"document over 1 MiB": {strings.Repeat("x", megabyte+1), "larger than 1 MiB"},
		"long expression": {
			demo("", `"`+strings.Repeat("true || ", 2000)+`true"`, "{}"),
			":15: workflows.flow.when: the expression has 16004 bytes",
		},
		"nested lists in an expression": {
			demo("", `"size(`+strings.Repeat("[", 200)+strings.Repeat("]", 200)+`) > 0"`, "{}"),
			":15: workflows.flow.when: ",
		},
		"nested mappings in an expression": {
			demo("", `"size(`+strings.Repeat("{'a': ", 100)+`1`+strings.Repeat("}", 100)+`) > 0"`, "{}"),
			":15: workflows.flow.when: ",
		},
		"nested parentheses in an expression": {
			demo("", `"`+strings.Repeat("(", 4000)+"true"+strings.Repeat(")", 4000)+`"`, "{}"),
			":15: workflows.flow.when: ",
		},
		"expression of negations": {
			demo("", `"`+strings.Repeat("!", 20_000)+`true"`, "{}"), ":15: workflows.flow.when: ",
		},
		"large regular expression": {
			demo("", `"'a'.matches('(`+strings.Repeat("ab", 1000)+`){1000}')"`, "{}"),
			":15: workflows.flow.when: the regular expression has more than 10000 steps",
		},
		"nested repetitions": {
			demo("", `"matches('a', '(((((a{10}){10}){10})b{100}){9}){9}')"`, "{}"), ":15: workflows.flow.when: ",
		},
		"pattern of a schema": {
			demo("", "true", `{"properties": {"a": {"pattern": "(`+strings.Repeat("ab", 1000)+`){1000}"}}}`),
			":6: aggregates.thing.commands.make.payload.properties.a.pattern: ",
		},
		"references that double": {
			demo("", "true", doubling(30)),
			":6: aggregates.thing.commands.make.payload: the schema has more than 10000 subschemas",
		},
		"external reference": {demo("", "true", `{"$ref": "http://127.0.0.1:1/x"}`), ":6: "},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := model.Parse("m.yaml", []byte(tc.document))
			runtime.ReadMemStats(&after)
			var mistakes *model.Error
			if !errors.As(err, &mistakes) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%.300v\nwant %s", err, tc.want)
			} else if len(mistakes.Issues) > 200 || len(err.Error()) > 1<<19 {
				t.Errorf("%d errors in %d bytes", len(mistakes.Issues), len(err.Error()))
			}
			if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 400 {
				t.Errorf("%d bytes allocated %d MiB", len(tc.document), made)
			}
		})
	}
}

func TestParse_AliasesOfOneExpressionAreBounded(t *testing.T) {
	rule := `"` + strings.Repeat("event.a + ", 700) + `1"`
	document := "model: m\naggregates:\n  thing:\n    commands: {}\n    evolve:\n      made: {a: &e " + rule + ", " +
		strings.TrimSuffix(strings.Repeat("b: *e, ", 400), ", ") + "}\n"
	if _, err := model.Parse("m.yaml", []byte(document)); err == nil ||
		!strings.Contains(err.Error(), "texts are longer than 2097152 bytes") {
		t.Errorf("%.300v", err)
	}
}

func TestParse_RecursiveSchemasAndSharedAnchorsAreValid(t *testing.T) {
	for name, schema := range map[string]string{
		"schema tree": `{"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}`,
		"definition used often": `{"$defs": {"m": {"type": "integer"}}, "properties": {` +
			strings.Repeat(`"a": {"$ref": "#/$defs/m"}, `, 1) + `"b": {"$ref": "#/$defs/m"}}}`,
		"shared anchor": `{"properties": {"a": &s {"type": "string"}, "b": *s, "c": *s}}`,
		"pattern":       `{"properties": {"a": {"type": "string", "pattern": "^[a-z0-9]{1,64}$"}}}`,
	} {
		var mistakes *model.Error
		_, err := model.Parse("m.yaml",
			[]byte(demo("[{name: again, submit: {aggregate: thing, id: event.id, command: make}}]", "true", schema)))
		if errors.As(err, &mistakes) {
			for _, issue := range mistakes.Issues {
				if strings.Contains(issue.Path, "payload") || strings.Contains(issue.Message, "alias") {
					t.Errorf("%s: %v", name, issue)
				}
			}
		}
	}
}

func TestParse_TotalOfRegularExpressionsIsBounded(t *testing.T) {
	var rules []string
	for i := range 300 {
		rules = append(rules, fmt.Sprintf("'a'.matches('(abcdefgh%d){90}')", i))
	}
	steps := "["
	for i, rule := range rules {
		steps += fmt.Sprintf("{name: s%d, webhook: {url: \"%s ? 'a' : 'b'\"}}, ", i, rule)
	}
	_, err := model.Parse("m.yaml", []byte(demo(strings.TrimSuffix(steps, ", ")+"]", "true", "{}")))
	if err == nil ||
		!strings.Contains(err.Error(), "the document's regular expressions have more than 200000 steps together") {
		t.Errorf("%.500v", err)
	}
}

func TestParse_OrdinaryLongExpressionsAreValid(t *testing.T) {
	for _, rule := range []string{
		`"` + strings.Repeat("event.a == 'x' || ", 200) + `true"`, `"(` + strings.Repeat("'a' + ", 100) + `'b') != ''"`,
		`"event.a in [` + strings.Repeat("'value', ", 500) + `'last']"`,
		`"` + strings.Repeat("event.a == 1 ? true : ", 30) + `false"`,
	} {
		_, err := model.Parse("m.yaml", []byte(demo("[]", rule, "{}")))
		if err != nil && strings.Contains(err.Error(), "flow.when") {
			t.Errorf("%.30s: %v", rule, err)
		}
	}
}

func TestParseContext_EndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := model.ParseContext(ctx, "m.yaml", []byte(demo("", "true", "{}"))); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
