package model

import (
	"strings"
	"testing"
)

func TestWarnings_NameMembersThatAVariableNeverHas(t *testing.T) {
	for _, test := range []struct{ part, by, want string }{
		{"", "", ""},
		{"state.available > 0", "state.avail > 0", `:15: aggregates.book.commands.take.require[0].that: ` +
			`state never has the member "avail" (it has available, last)`},
		{"state.available > 0", "'!has(state.avail)'", `state never has the member "avail"`},
		{"state.available > 0", `state["avail"] > 0`, `state never has the member "avail"`},
		{"state.available > 0", "state.?avail.orValue(1) > 0", `state never has the member "avail"`},
		{"state.available > 0", "cmd.copy > 0", `cmd never has the member "copy" (it has copies, on)`},
		{"state.available > 0", "meta.timer != ''", `meta never has the member "timer"`},
		{"state.available > 0", "\"[{'a': 1}].all(state, state.a > 0)\"", ""},
		{"available: 1}", "available: row.avail + 1}", `row never has the member "avail" (it has available, state)`},
		{"available: 1}", "available: event.copies}", `event never has the member "copies" (it has loan)`},
		{"available: 1}", "available: 'has(event.n) ? event.n : 1'}", ""},
		{"id: event.loan", "id: event.lone", `event never has the member "lone"`},
		{"additionalProperties: false", "description: open", ""},
	} {
		m, err := Parse("library.yaml", []byte(libraryWith(t, test.part, test.by)))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case test.want == "" && len(m.Warnings) > 0:
			t.Errorf("%s: %v, want no warning", test.by, m.Warnings)
		case test.want != "" && (len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].String(), test.want)):
			t.Errorf("%s: %v, want %s", test.by, m.Warnings, test.want)
		}
	}
}

func TestWarnings_DemoModelHasNone(t *testing.T) {
	name, document, err := Wallet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse(name, document)
	if err != nil || len(m.Warnings) > 0 {
		t.Errorf("%v, %v", m, err)
	}
}
