package model

import (
	"strings"
	"testing"
)

const fingerprinted = `model: m
description: some words
aggregates:
  a:
    events: {made: {version: 2, upcasts: [{from: 1, set: {n: event.n * 2}}]}}
    commands: {make: {emit: [{event: made, data: {n: cmd.n}}]}}
    evolve: {made: {n: event.n}}
views:
  v:
    columns: {n: int, s: string}
    on: {a.made: {upsert: {n: event.n, s: "'x'"}}}
`

func fingerprint(t *testing.T, change ...string) uint64 {
	t.Helper()
	m, err := Parse("m.yaml", []byte(strings.NewReplacer(change...).Replace(fingerprinted)))
	if err != nil {
		t.Fatal(err)
	}
	view, _ := m.View("v")
	return view.Fingerprint()
}

func TestFingerprint_DependsOnlyOnView(t *testing.T) {
	base := fingerprint(t)
	for name, tc := range map[string]struct {
		change  []string
		changes bool
	}{
		"other description": {[]string{"some words", "others"}, false},
		"other name":        {[]string{"model: m", "model: n"}, false},
		"index":             {[]string{"n: int,", "n: {type: int, index: true, description: the number},"}, false},
		"other order":       {[]string{"{n: int, s: string}", "{s: string, n: int}"}, false},
		"other command": {
			[]string{"commands: {", "commands: {again: {emit: [{event: made, data: {n: '1'}}]}, "}, false,
		},
		"other evolve rule": {[]string{"evolve: {made: {n: event.n}}", "evolve: {made: {n: event.n + 1}}"}, false},
		"other view": {
			[]string{"views:\n", "views:\n  w: {columns: {n: int}, on: {a.made: {upsert: {n: event.n}}}}\n"}, false,
		},
		"key column":            {[]string{"    on:", "    key: event.s\n    on:"}, true},
		"other column type":     {[]string{"s: string", "s: json"}, true},
		"additional column":     {[]string{"s: string", "s: string, z: string"}, true},
		"other value":           {[]string{`"'x'"`, `"'y'"`}, true},
		"patch for upsert":      {[]string{"upsert", "patch"}, true},
		"fold for upsert":       {[]string{`{upsert: {n: event.n, s: "'x'"}}`, "{fold: {n: count}}"}, true},
		"other upcast":          {[]string{"event.n * 2", "event.n * 3"}, true},
		"dropped member":        {[]string{"set: {n: event.n * 2}", "set: {n: event.n * 2}, drop: [s]"}, true},
		"without an expression": {[]string{`, s: "'x'"`, ""}, true},
	} {
		if changed := fingerprint(t, tc.change...) != base; changed != tc.changes {
			t.Errorf("%s: changed: %v", name, changed)
		}
	}
	if again := fingerprint(t); again != base {
		t.Errorf("fingerprints of the same view: %x and %x", base, again)
	}
}
