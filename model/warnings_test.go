package model

import (
	"strings"
	"testing"
)

func TestWarnings_NameMembersThatAVariableNeverHas(t *testing.T) {
	for _, test := range []struct{ part, by, want string }{
		{"", "", ""},
		{"state.available > 0", "state.avail > 0", `:15: aggregates.book.commands.take.require[1].that: ` +
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

func TestWarnings_NameWhatCanNeverSucceed(t *testing.T) {
	const again = `payload: {copies: 1, on: "'2026-01-31'"}`
	for _, test := range []struct{ part, by, want string }{
		// Columns.
		{"available: 1}", `available: "'one'"}`, `:26: views.books.on.book.taken.upsert.available: the values are of ` +
			`JSON type string, which never fits column "available" of type int`},
		{"available: 1}", "available: 1.0}", ""},
		{`"'taken'"`, "1 + 1", `JSON type integer, which never fits column "state"`},
		{`"'taken'"`, "event.loan", ""},
		{"available: 1}", "available: event.loan}", `JSON type string, which never fits column "available"`},
		{`data: {loan: "'l'"}`, "data: {loan: cmd.on}", ""},
		{`data: {loan: "'l'"}`, "data: {loan: cmd.copies}", `workflows.lend.when: event.loan is a number, and the other ` +
			`operand is text: write the number without quotes, or string(event.loan)`},
		{`{upsert: {state: "'taken'", available: 1}}`, "{fold: {available: {sum: event.loan}}}",
			`views.books.on.book.taken.fold.available.sum: the values are of JSON type string`},
		{"  books:\n", "  books:\n    key: meta.version\n", `:24: views.books.key: the key is text, and of book.taken ` +
			`it is of JSON type integer: write string(…)`},
		{"  books:\n", "  books:\n    key: event.loan\n", ""},
		// Times.
		{"state.available > 0", "string(meta.time + duration('1h')) > cmd.on", "write timestamp(meta.time)"},
		{"state.available > 0", "string(timestamp(meta.time) + duration('1h')) > cmd.on", ""},
		// Schemas.
		{"required: [copies, on]", "requird: [copies, on]",
			`:9: aggregates.book.commands.take.payload.requird: JSON Schema ignores the keyword "requird"`},
		{"minimum: 1", "min: 1", `payload.properties.copies.min: JSON Schema ignores the keyword "min"`},
		{"minimum: 1", "x-unit: book", ""},
		{"required: [copies, on]", "required: [copies, on, until]", `the member "until" is required, and the schema ` +
			`refuses it: it has copies, on`},
		// Workflows.
		{again, `payload: {copies: 1, on: "'2026-01-31'", until: "'never'"}`,
			`command "take" refuses the member "until" (it accepts copies, on)`},
		{again, `payload: {copies: "'one'", on: "'2026-01-31'"}`,
			`:32: workflows.lend.steps[1].submit.payload.copies: the values are of JSON type string, and command "take" ` +
				`requires integer`},
		{again, `payload: {copies: event.loan, on: event.loan}`, `payload.copies: the values are of JSON type string`},
		{again, "payload: {copies: 1.0, on: event.loan}", ""},
		{again, "payload: {copies: 1}",
			`workflows.lend.steps[1].submit.payload: command "take" requires the member "on"`},
		{again, `payload: {copies: 1, on: failure.message}`, "failure is empty here"},
		{"when: event.loan != 'again'", "when: failure.step != ''", "failure is empty here"},
		{"when: event.loan != 'again'", "on_failure: [{name: call, webhook: {url: \"'https://shop/'\", body: " +
			"{why: failure.message}}}]\n    when: 1 < 2", ""},
		{`wait: "'1s'"`, `webhook: {url: "'shop.example/' + event.loan"}`,
			`steps[0].webhook.url: the URL begins with "shop.example/": it needs a scheme, such as https://`},
		{`wait: "'1s'"`, `webhook: {url: event.loan}`, ""},
		{"when: event.loan != 'again'", "description: lend",
			`:28: workflows.lend: the workflow's commands emit the event that starts it, book.taken`},
	} {
		m, err := Parse("library.yaml", []byte(libraryWith(t, test.part, test.by)))
		if err != nil {
			t.Errorf("%s: %v", test.by, err)
			continue
		}
		warnings := ""
		for _, warning := range m.Warnings {
			warnings += warning.String() + "\n"
		}
		if test.want == "" && warnings != "" || !strings.Contains(warnings, test.want) ||
			strings.Count(warnings, "\n") > 2 {
			t.Errorf("%s: warnings:\n%swant %q", test.by, warnings, test.want)
		}
		if stored, err := ParseStored(t.Context(), "library.yaml", []byte(m.Text)); err != nil ||
			stored.Warnings != nil {
			t.Errorf("%s: a stored model: %v, %v, want no warning", test.by, stored, err)
		}
	}
}

func TestChangeWarnings_NameStoredEventsThatTheNewModelCannotRead(t *testing.T) {
	previous, err := Parse("library.yaml", []byte(library))
	if err != nil {
		t.Fatal(err)
	}
	const (
		version = "{taken: {version: 2, upcasts: [{from: 1, set: {loan: event.id}}]}}"
		next    = "{taken: {version: 3, upcasts: [{from: 1, set: {loan: event.id}}, {from: 2, set: {until: \"''\"}}]}}"
		data    = `data: {loan: "'l'"}`
		more    = `data: {loan: "'l'", until: cmd.on}`
		last    = "last: event.loan"
	)
	for name, test := range map[string]struct {
		replace []string
		want    string
	}{
		"nothing":                     {nil, ""},
		"a member that no rule reads": {[]string{data, more}, ""},
		"a member that is read": {
			[]string{data, more, last, "last: event.until"},
			`:21: aggregates.book.evolve.taken.last: events that are stored already lack the member "until": ` +
				"add an upcast of taken, or test has(event.until)",
		},
		"a member that is tested": {
			[]string{data, more, last, `last: "has(event.until) ? event.until : ''"`}, "",
		},
		"a member with an upcast": {[]string{version, next, data, more, last, "last: event.until"}, ""},
		"a member that a view reads": {
			[]string{data, more, `"'taken'"`, "event.until"}, "views.books.on.book.taken.upsert.state: events that are",
		},
		"a member that a workflow reads from now": {[]string{data, more, "id: event.loan", "id: event.until"}, ""},
		"a member that a workflow reads from the beginning": {
			[]string{data, more, "id: event.loan", "id: event.until", "  lend:\n", "  lend:\n    from: beginning\n"},
			`workflows.lend.steps[1].submit.id: events that are stored already lack the member "until"`,
		},
		"fewer upcasts": {
			[]string{version, "{}"}, "stored events have version 2, and the document has upcasts to version 1 only",
		},
		"a member that an upcast drops": {
			[]string{version, strings.Replace(next, "set: {until: \"''\"}", "drop: [loan]", 1)},
			`aggregates.book.evolve.taken.last: events that are stored already lack the member "loan"`,
		},
		"a member that an upcast reads": {
			[]string{version, strings.Replace(next, `"''"`, "event.lone", 1)},
			`aggregates.book.events.taken.upcasts[1].set.until: events that are stored already lack the member "lone" in ` +
				"version 2",
		},
		"a member that an upcast of earlier events reads": {
			[]string{version, strings.Replace(next, "event.id", "event.no", 1)}, "",
		},
		"another event": {
			[]string{
				version, "{}", "event: taken", "event: lent", "      taken:", "      lent:", "book.taken", "book.lent",
			},
			":3: aggregates.book.evolve.taken: the event is missing",
		},
		"another aggregate": {
			[]string{"  book:\n", "  tome:\n", "book.taken", "tome.taken", "aggregate: book", "aggregate: tome"},
			":1: aggregates.book: the aggregate is missing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Parse("library.yaml", []byte(strings.NewReplacer(test.replace...).Replace(library)))
			if err != nil {
				t.Fatal(err)
			}
			warnings := m.ChangeWarnings(previous)
			if test.want == "" && len(warnings) > 0 ||
				test.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].String(), test.want)) {
				t.Errorf("warnings: %v, want %q", warnings, test.want)
			}
		})
	}
}

func TestWarnings_NameOperandsOfTypesThatDoNotFit(t *testing.T) {
	const fraction = "write double(cmd.weight)"
	number := func(rule string) string {
		return strings.NewReplacer(
			"            copies:", "            weight: {type: number}\n            copies:",
			"state.available > 0", rule,
			"required: [copies, on]", "required: [copies, on, weight]",
			"payload: {copies: 1,", "payload: {copies: 1, weight: 1,",
		).Replace(library)
	}
	for _, test := range []struct{ document, want string }{
		{number("state.available + cmd.weight > 0"), fraction},
		{number("cmd.weight + 1 > 0"), fraction},
		{number("2 * (cmd.copies - cmd.weight) > 0"), fraction},
		{number("state.available + double(cmd.weight) > 0.0"), "write double(state.available)"},
		{number("cmd.copies * 1.5 > 2.0"), "write double(cmd.copies)"},
		{number("double(state.available) + double(cmd.weight) > 0.0"), ""},
		{number("cmd.weight > 0 && cmd.weight <= 1.5 && cmd.copies + 1 > state.available"), ""},
		{number(`cmd.on + ' ' + string(cmd.weight) != ''`), ""},
		{number(`cmd.on + ' ' + cmd.weight != ''`), "write string(cmd.weight)"},
		{number(`cmd.on + meta.version != ''`), "write string(meta.version)"},
		{number(`"[{'weight': 1}].all(cmd, cmd.weight + 1 > 1)"`), ""},
		{number("cmd.on > timestamp(meta.time)"), "cmd.on is text: write timestamp(cmd.on)"},
		{number("state.last < timestamp(meta.time) + duration('1h')"), "write timestamp(state.last)"},
		{number("timestamp(meta.time) - timestamp(cmd.on) < state.last"), "write duration(state.last)"},
		{number("timestamp(cmd.on) > timestamp(meta.time) + duration(state.last)"), ""},
		{
			libraryWith(t, "state.available - 1", "state.available - 0.5"),
			"evolve.taken.available: state.available is an integer where it has no fraction, and arithmetic of an " +
				"integer and a fraction fails: write double(state.available)",
		},
		{libraryWith(t, "{state: string, available: int}", "{state: string, available: double}"), ""},
		{strings.NewReplacer("available: int", "available: double", "available: 1}",
			"available: 'has(row.available) ? row.available + 1 : 1'}").
			Replace(library), ""},
	} {
		m, err := Parse("library.yaml", []byte(test.document))
		if err != nil {
			t.Errorf("%s: %v", test.want, err)
			continue
		}
		if test.want == "" && len(m.Warnings) > 0 ||
			test.want != "" && (len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].String(), test.want)) {
			t.Errorf("warnings: %v, want %q", m.Warnings, test.want)
		}
	}
}
