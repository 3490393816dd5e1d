package model_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/headgate/headgate/model"
)

// rejects reports whether a document has an issue at a path that ends so, with the text.
func rejects(document, path, text string) bool {
	_, err := model.Parse("m.yaml", []byte(document))
	var mistakes *model.Error
	if !errors.As(err, &mistakes) {
		return false
	}
	for _, issue := range mistakes.Issues {
		if strings.HasSuffix(issue.Path, path) && strings.Contains(issue.Message, text) {
			return true
		}
	}
	return false
}

// loops returns nested loops over a list of one element.
func loops(depth int) string {
	text := "true"
	for n := range depth {
		text = fmt.Sprintf("[1].all(x%d, %s)", n, text)
	}
	return text
}

// The greatest value within each bound is accepted, and the next one is not.
func TestBounds_OfDocumentsAreExact(t *testing.T) {
	step := func(retry string) string {
		return demo("[{name: again, retry: "+retry+
			", submit: {aggregate: thing, id: event.id, command: make}}]", "true", "{}")
	}
	rule := func(text string) string { return demo("", `"`+text+`"`, "{}") }
	schema := func(values int) string {
		return demo("", "true", `{"enum": [`+strings.TrimSuffix(strings.Repeat("1, ", values), ", ")+`]}`)
	}
	for name, c := range map[string]struct{ within, beyond, path, text string }{
		"attempts":           {step("{attempts: 1000}"), step("{attempts: 1001}"), "retry.attempts", "from 1 to 1000"},
		"one attempt":        {step("{attempts: 1}"), step("{attempts: 0}"), "retry.attempts", "from 1 to 1000"},
		"number of attempts": {step("{attempts: 2}"), step("{attempts: two}"), "retry.attempts", "from 1 to 1000"},
		"days":               {step("{for: 30d}"), step("{for: 31d}"), "retry.for", "up to 30 days"},
		"hours":              {step("{for: 720h}"), step("{for: 720h1ns}"), "retry.for", "up to 30 days"},
		"some time":          {step("{for: 1ns}"), step("{for: 0s}"), "retry.for", "up to 30 days"},
		"some days":          {step("{for: 1d}"), step("{for: 0d}"), "retry.for", "up to 30 days"},
		"forward":            {step("{for: 1s}"), step("{for: -1s}"), "retry.for", "up to 30 days"},
		"very many days":     {step("{for: 1d}"), step("{for: 106751991167301d}"), "retry.for", "up to 30 days"},
		"length of an expression": {
			rule("'" + strings.Repeat("x", 8192-8) + "' != ''"), rule("'" + strings.Repeat("x", 8192-7) + "' != ''"),
			"flow.when", "bytes",
		},
		"nesting of an expression": {
			rule("size(" + strings.Repeat("[", 32) + strings.Repeat("]", 32) + ") > 0"),
			rule("size(" + strings.Repeat("[", 33) + strings.Repeat("]", 33) + ") > 0"), "flow.when", "nest",
		},
		"nesting of loops": {rule(loops(31)), rule(loops(32)), "flow.when", "nest"},
		"nesting of a document": {
			"model: m\nx: " + strings.Repeat("[", 63) + strings.Repeat("]", 63) + "\n",
			"model: m\nx: " + strings.Repeat("[", 64) + strings.Repeat("]", 64) + "\n", "",
			"the nesting is deeper than 64",
		},
		"a regular expression": {
			rule("'a'.matches('(xxxxxxxx){1000}')"), rule("'a'.matches('(xxxxxxxx){1000}y')"), "flow.when",
			"more than 10000 steps",
		},
		"a schema": {schema(9998), schema(9999), "make.payload", "more than 10000 subschemas"},
	} {
		if rejects(c.within, c.path, c.text) {
			t.Errorf("%s: the greatest value is rejected", name)
		}
		if !rejects(c.beyond, c.path, c.text) {
			_, err := model.Parse("m.yaml", []byte(c.beyond))
			t.Errorf("%s: a value beyond the bound is not rejected: %s", name, fmt.Sprintf("%.300v", err))
		}
	}
}
