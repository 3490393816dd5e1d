package model

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// library is a model whose parts the tests replace by mistakes.
const library = `model: library
aggregates:
  book:
    commands:
      take:
        payload:
          type: object
          additionalProperties: false
          required: [copies, on]
          properties:
            copies: {type: integer, minimum: 1}
            on: {type: string, format: date}
        require:
          - {that: has(state.last), else: there is no such book}
          - that: state.available > 0
            else: no copy is available
        emit:
          - {event: taken, data: {loan: "'l'"}}
    events: {taken: {version: 2, upcasts: [{from: 1, set: {loan: event.id}}]}}
    evolve:
      taken: {available: state.available - 1, last: event.loan}
views:
  books:
    columns: {state: string, available: int}
    on:
      book.taken: {upsert: {state: "'taken'", available: 1}}
workflows:
  lend:
    on: book.taken
    steps:
      - {name: think, wait: "'1s'"}
      - {name: again, submit: {aggregate: book, id: event.loan, command: take, payload: {copies: 1, on: "'2026-01-31'"}}}
    when: event.loan != 'again'
`

// libraryWith returns the model with a part replaced.
func libraryWith(t *testing.T, part, by string) string {
	t.Helper()
	if !strings.Contains(library, part) {
		t.Fatalf("the model has no %q", part)
	}
	return strings.Replace(library, part, by, 1)
}

func TestParse_EachMistakeIsReportedOnceWithItsLineAndCorrection(t *testing.T) {
	for _, test := range []struct {
		part, by string
		line     int
		want     string
	}{
		{"state.available > 0", "state.available >", 15, "it ends where a value is expected"},
		{"state.available > 0", "!has(state.gone)", 15, "is a tag in YAML: quote the expression"},
		{"state.available > 0", "state.available = 0", 15, "(== compares)"},
		{"state.available > 0", "state.available + 1", 15, "the expression yields int, want bool"},
		{
			`"'taken'"`, "taken", 26,
			`(variables: event, meta, row; quote a text within the expression: "'text'")`,
		},
		{"type: integer", "type: int", 11, "payload.properties.copies.type: not a JSON Schema: value must be one of"},
		{
			"minimum: 1", "minimum: one", 11,
			"payload.properties.copies.minimum: not a JSON Schema: got string, want number",
		},
		{"state: string", "state: text", 24, "write string, int, double, bool, timestamp or json"},
		{"on: book.taken", "on: book.token", 29, `aggregate "book" has no event "token"`},
		{
			`wait: "'1s'"`, `wait: "'1s'", undo: {aggregate: book, id: "'x'", command: take}`, 31,
			"a wait has nothing to undo",
		},
		{`{upsert: {state: "'taken'", available: 1}}`, "{delete: false}", 26, "book.taken.delete: expected true"},
		{
			`"'1s'"`, "timestamp(meta.time)", 31,
			"the expression yields google.protobuf.Timestamp, want string: write string(…)",
		},
	} {
		_, err := Parse("library.yaml", []byte(libraryWith(t, test.part, test.by)))
		var mistakes *Error
		if !errors.As(err, &mistakes) || len(mistakes.Issues) != 1 {
			t.Errorf("%s: %v, want one mistake", test.by, err)
			continue
		}
		text := mistakes.Issues[0].String()
		if !strings.HasPrefix(text, fmt.Sprintf("library.yaml:%d: ", test.line)) || !strings.Contains(text, test.want) {
			t.Errorf("%s: %s, want line %d: %s", test.by, text, test.line, test.want)
		}
	}
}

func TestPayloadError_HasPlainNumbersAndTimes(t *testing.T) {
	m, err := Parse("library.yaml", []byte(libraryWith(t, "minimum: 1", "exclusiveMinimum: -1, minimum: 1")))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := m.Aggregate("book")
	take, _ := a.Command("take")
	for _, test := range []struct {
		copies any
		on     string
		want   string
	}{
		{int64(0), "2026-01-31", "payload.copies: minimum: got 0, want 1"},
		{int64(1 << 53), "2026-01-31", "payload.copies: maximum: got 9007199254740992, want 9007199254740991"},
		{int64(-1), "2026-01-31", "payload.copies: exclusiveMinimum: got -1, want more than -1"},
		{int64(1), "31.1.2026", "payload.on: '31.1.2026' is not a valid date, such as 2026-01-31"},
	} {
		err := validate(take.schema, Object{"copies": test.copies, "on": test.on})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("copies %v on %s: %v, want %s", test.copies, test.on, err, test.want)
		}
	}
}

func TestParse_QuotedLimitOfIntegersIsRejectedUnlessStored(t *testing.T) {
	document := []byte(libraryWith(t, "minimum: 1", `maximum: "100"`))
	if _, err := Parse("library.yaml", document); err == nil {
		t.Error("a limit that is no number was accepted, and would not apply")
	}
	if _, err := ParseStored(t.Context(), "library.yaml", document); err != nil {
		t.Errorf("a document that was in use is rejected: %v", err)
	}
}

func TestUpcast_FailureNamesItsPlace(t *testing.T) {
	m, err := Parse("library.yaml", []byte(library))
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Event(t.Context(), EventRef{"book", "taken"}, 1, []byte(`{"number": 1}`))
	var failed *EvaluationError
	if !errors.As(err, &failed) || failed.ID != "aggregates.book.events.taken.upcasts[0]" {
		t.Fatalf("%v, want an error at the upcast", err)
	}
}
