package model

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// shop is a model whose parts the tests replace by mistakes that first models have.
const shop = `model: shop
aggregates:
  order:
    commands:
      place:
        payload:
          type: object
          additionalProperties: false
          required: [kind, to]
          properties:
            kind: {type: string, enum: [gift, sale]}
            note: {type: string, minLength: 1, maxLength: 9}
            count: {type: integer, minimum: 1, maximum: 5}
            to:
              type: object
              additionalProperties: false
              required: [city]
              properties: {city: {type: string}, zip: {type: string, format: uuid}}
        require:
          - {that: "!has(state.kind)", else: it was placed}
          - {that: cmd.kind == 'gift', else: no gift}
        emit:
          - {event: placed, data: {kind: cmd.kind, city: cmd.to.city, by: meta.tenant}}
      change:
        require: [{that: has(state.kind), else: none}]
        emit: [{event: changed}, {event: placed, data: {kind: state.kind, city: "'x'"}}]
    evolve:
      placed: {kind: event.kind, total: 0}
      changed: {total: state.total + 1}
views:
  orders:
    columns: {kind: string, total: int}
    on:
      order.placed: {upsert: {kind: event.kind, total: 0}}
      order.changed: {patch: {total: row.total + 1}}
workflows:
  again:
    on: order.placed
    when: event.kind == 'gift'
    steps:
      - {name: think, wait: "'1s'"}
      - name: more
        submit: {aggregate: order, id: event.city, command: place, payload: {kind: "'sale'", to: "{'city': ''}"}}
`

func TestWarnings_NameTheMistakesOfFirstModels(t *testing.T) {
	const (
		gift, city, patch = "cmd.kind == 'gift'", "city: cmd.to.city", "patch: {total: row.total + 1}"
		to, when          = `"{'city': ''}"`, "when: event.kind == 'gift'"
		rule              = ":21: aggregates.order.commands.place.require[1].that: "
		data              = ":23: aggregates.order.commands.place.emit[0].data."
		payload           = ":43: workflows.again.steps[1].submit.payload."
	)
	for _, test := range []struct{ part, by, want string }{
		{gift, gift, ""},
		// Members that may be missing.
		{gift, "cmd.note != ''", rule + "the schema does not require cmd.note, and without it the expression fails: " +
			"add it to `required`, or write has(cmd.note) ? cmd.note : …"},
		{gift, "\"cmd['note'] != ''\"", rule + "the schema does not require cmd.note"},
		{gift, "size(cmd.note) > 1 || meta.version > 1", rule + "the schema does not require cmd.note"},
		{gift, "has(cmd.note) && cmd.note != ''", ""},
		{gift, "\"!has(cmd.note) || cmd.note != ''\"", ""},
		{gift, "\"has(cmd.note) ? cmd.note != '' : true\"", ""},
		{gift, "\"'note' in cmd && cmd.note != ''\"", ""},
		{gift, "\"cmd.?note.orValue('') != ''\"", ""},
		{gift, "cmd.kind == 'gift' && cmd.note != ''", ""}, // the kind may imply the note
		{gift, "\"[{'note': 'a'}].all(cmd, cmd.note != '')\"", ""},
		{city, "city: cmd.note", data + "city: the schema does not require cmd.note"},
		{city, "city: cmd.to.zip", data + "city: the schema does not require cmd.to.zip"},
		{city, "city: \"has(cmd.to.zip) ? cmd.to.zip : ''\"", ""},
		{"placed, data: {kind: cmd.kind, city: cmd.to.city", "placed, when: has(cmd.note), data: {kind: cmd.kind, " +
			"city: cmd.note",
			""},
		{"required: [kind, to]\n", "required: [kind, to]\n          anyOf: [{required: [note]}]\n", ""},
		{`"!has(state.kind)"`, "state.kind == ''", ":20: aggregates.order.commands.place.require[0].that: state is " +
			"empty before the aggregate's first event, and then the expression fails: precede it by the rule " +
			"has(state.kind)"},
		{`"!has(state.kind)"`, `"state.?kind.orValue('') == ''"`, ""},
		{"{that: has(state.kind), else: none}", "{that: meta.version > 0, else: none}",
			":26: aggregates.order.commands.change.emit[1].data.kind: state is empty before"},
		{"placed: {kind: event.kind", "placed: {by: event.by, kind: event.kind", ":28: " +
			"aggregates.order.evolve.placed.by: " +
			"command \"change\" emits order.placed without the member \"by\", and then the expression fails: write " +
			"has(event.by) ? event.by : …"},
		{"placed: {kind: event.kind", "placed: {by: \"has(event.by) ? event.by : ''\", kind: event.kind", ""},
		{"upsert: {kind: event.kind, total: 0}", "upsert: {kind: event.kind, total: row.total + 1}",
			":34: views.orders.on.order.placed.upsert.total: row is empty before the first event of its key"},
		{"upsert: {kind: event.kind, total: 0}", "upsert: {kind: event.kind, total: 'has(row.total) ? row.total : " +
			"0'}", ""},
		// Schemas.
		{"format: uuid", "format: guid", ":18: " +
			"aggregates.order.commands.place.payload.properties.to.properties.zip.format: " +
			"JSON Schema ignores the format \"guid\", which it does not know"},
		{"format: uuid", "format: int64", ""},
		{"maximum: 5", "maximum: 0", ":13: aggregates.order.commands.place.payload.properties.count.minimum: no " +
			"value is accepted: minimum is 1 and maximum is 0"},
		{"maximum: 5", "maximum: 1", ""},
		{"maximum: 5", "exclusiveMaximum: 1", "no value is accepted: minimum is 1 and exclusiveMaximum is 1"},
		{"maxLength: 9", "maxLength: 0", "note.minLength: no value is accepted"},
		{"type: integer, minimum: 1, maximum: 5", "type: array, minItems: 3, maxItems: 2", "count.minItems: no value"},
		// Literals.
		{gift, "cmd.kind == 'gifts'", rule + `cmd.kind is never "gifts": its schema's enum has gift, sale`},
		{gift, "\"!(cmd.kind in ['gift', 'sold'])\"", rule + `cmd.kind is never "sold"`},
		{gift, "\"'gift' == cmd.kind\"", ""},
		{gift, "cmd.to.town != ''", rule + `cmd.to never has the member "town" (it has city, zip)`},
		{`{kind: "'sale'"`, `{kind: "'sold'"`, payload + `kind: command "place" refuses the value "sold" of kind: ` +
			`its enum ` +
			"has gift, sale"},
		{`{kind: "'sale'"`, `{kind: "event.city == '' ? 'sold' : 'sale'"`, `refuses the value "sold" of kind`},
		{to, `"{'city': event.city, 'zap': '1'}"`, payload + `to: command "place" refuses the member "zap" of to (it ` +
			`accepts ` +
			"city, zip)"},
		{to, `"{'zip': event.city}"`, payload + `to: command "place" requires the member "city" of to`},
		{to, `"{'city': 1}"`, payload + `to: the values of to.city are of JSON type integer, and command "place" ` +
			`requires ` +
			"string"},
		{to, `"{?'zip': event.?city, 'city': ''}"`, ""},
		// Conditions.
		{gift, "cmd.kind", rule + "cmd.kind is of JSON type string, and a condition needs true or false: compare it, " +
			"such as cmd.kind == …, or write has(cmd.kind)"},
		{gift, "cmd.kind == 'gift' && cmd.count", "cmd.count is of JSON type integer, and a condition"},
		{gift, "\"!cmd.kind\"", "cmd.kind is of JSON type string, and a condition"},
		{when, "when: meta.tenant", ":39: workflows.again.when: meta.tenant is of JSON type string, and a condition"},
		// Types of values.
		{"placed: {kind: event.kind, total: 0}", "placed: {kind: event.kind, total: \"'0'\"}", ":29: " +
			"aggregates.order.evolve.changed.total: the values are of JSON type integer, and placed sets state.total " +
			"to values of type string: write values of one type"},
		{"changed: {total: state.total + 1}", "changed: {total: 1.5}", ""},
		{"changed: {total: state.total + 1}", "changed: {total: state.total, kind: \"null\"}", ""},
		{patch, "patch: {total: row.kind + 'x'}", ":35: views.orders.on.order.changed.patch.total: the values are of " +
			"JSON type string, which never fits column \"total\" of type int"},
		{patch, "patch: {total: row.total > 1}", "the values are of JSON type boolean"},
		{gift, "cmd.kind > 3", rule + "cmd.kind is text, and the operation with a number fails: if it is a number, " +
			"write int(cmd.kind)"},
		{gift, "cmd.kind == 3", "cmd.kind is text, and never equals a number"},
		{"{that: has(state.kind), else: none}", "{that: has(state.kind) && state.total == '0', else: none}",
			"state.total is a number, and the other operand is text: write the number without quotes, or " +
				"string(state.total)"},
	} {
		if !strings.Contains(shop, test.part) {
			t.Fatalf("the model has no %q", test.part)
		}
		m, err := Parse("shop.yaml", []byte(strings.Replace(shop, test.part, test.by, 1)))
		if err != nil {
			t.Errorf("%s: %v", test.by, err)
			continue
		}
		if test.want == "" && len(m.Warnings) > 0 || test.want != "" &&
			(len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0].String(), test.want)) {
			t.Errorf("%s:\n%v\nwant %q", test.by, m.Warnings, test.want)
		}
	}
}

func TestChangeWarnings_NameRenamedSteps(t *testing.T) {
	previous, err := Parse("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	migrate := func(rest string) string { return "    migrate: {from: any" + rest + "}\n    steps:\n" }
	const steps, think, idle = "    steps:\n", "name: think", "name: idle"
	for _, test := range []struct {
		replace []string
		want    string
	}{
		{nil, ""},
		{[]string{think, idle}, ":37: workflows.again: the step \"think\" is missing, and \"idle\" is new: instances " +
			"that started earlier keep the earlier steps. If it is renamed, write `migrate: {from: any, rename: " +
			"{think: " +
			"idle}}`"},
		{[]string{"      - {name: think, wait: \"'1s'\"}\n", ""}, ""}, // earlier instances wait to the end
		{[]string{think, idle, steps, migrate(", rename: {think: idle}")}, ""},
		{[]string{think, idle, steps, migrate(", drop: [think]")}, ""},
		{[]string{think, idle, steps, migrate("")}, fmt.Sprintf("instances of revision %s that have reached the step "+
			"\"think\" cannot migrate: add the step to `rename` or `drop`", previous.Revision)},
		{[]string{think, idle, "on: order.placed", "on: order.changed", when, ""}, ""}, // another workflow
	} {
		m, err := Parse("shop.yaml", []byte(strings.NewReplacer(test.replace...).Replace(shop)))
		if err != nil {
			t.Fatal(err)
		}
		warnings := m.ChangeWarnings(previous)
		if test.want == "" && len(warnings) > 0 ||
			test.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].String(), test.want)) {
			t.Errorf("%q: %v, want %q", test.replace, warnings, test.want)
		}
	}
}

const when = "    when: event.kind == 'gift'\n"

func TestEvaluation_OverloadErrorNamesTheTypesAndWhatToWrite(t *testing.T) {
	envs, err := sharedEnvironments()
	if err != nil {
		t.Fatal(err)
	}
	payload := Object{"n": int64(1), "s": "secret", "none": nil, "list": []any{"secret"}, "half": 0.5}
	for _, test := range []struct{ source, want string }{
		{"cmd.n + cmd.s", "an integer (cmd.n) + a text (cmd.s): write string(cmd.n)"},
		{"cmd.n + cmd.half", "an integer (cmd.n) + a number with a fraction (cmd.half): write double(cmd.n)"},
		{"cmd.n + 1.5", "an integer (cmd.n) + a number with a fraction: write double(cmd.n)"},
		{"cmd.n < cmd.s", "an integer (cmd.n) < a text (cmd.s): write int(cmd.s)"},
		{"cmd.s < cmd.half", "a text (cmd.s) < a number with a fraction (cmd.half): write double(cmd.s)"},
		{"cmd.s - cmd.s", "a text (cmd.s) - a text (cmd.s)"},
		{"cmd.n + cmd.none", "an integer (cmd.n) + null (cmd.none): test the value before, such as … != null"},
		{"timestamp(meta.time) < cmd.s", "a time < a text (cmd.s): write timestamp(cmd.s)"},
		{"cmd.n && true", "a condition needs true or false: compare the value"},
		{"!cmd.s", "!a text (cmd.s): a condition needs true or false"},
		{"cmd.n ? 1 : 2", "the condition an integer (cmd.n) ? … : …: a condition needs true or false"},
		{"size(cmd.n)", "size(an integer (cmd.n))"},
		{"cmd.s.replace(cmd.n, '')", "replace(a text (cmd.s), an integer (cmd.n), a text)"},
		{"cmd.n.startsWith('x')", "startsWith(an integer (cmd.n), a text)"},
		{"cmd.list.all(x, x + 1 > 0)", "a text + an integer: write string(…)"},
		{"1 + 'a'", "applied to '(int, string)': write string(…)"},
		{"1 + 1.5", "applied to '(int, double)': write double(…)"},
		{"true ? 1 : 'a'", "both values must be of the same type"},
	} {
		expr, err := compile(envs.decide, test.source, nil, &regexpBudget{})
		if err == nil {
			for range 2 { // the second evaluation uses the program of the first
				_, err = expr.value(t.Context(), &scope{
					variables: [2]variable{{stateVariable, Object{}}, {commandVariable, payload}},
					meta:      &Meta{Time: "2026-01-31T00:00:00Z"},
				})
				if !errors.Is(err, ErrEvaluation) {
					t.Errorf("%s: %v, want ErrEvaluation", test.source, err)
				}
			}
		}
		if text := fmt.Sprint(err); !strings.Contains(text, test.want) || strings.Contains(text, "secret") {
			t.Errorf("%s: %s, want %s and no values", test.source, text, test.want)
		}
	}
}
