package aggregate_test

import (
	"context"
	"errors"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
)

// ledger is a model whose rules fail for some payloads and states.
func ledger(context.Context) (string, []byte, error) {
	return "ledger.yaml", []byte(`model: ledger
aggregates:
  wallet:
    commands:
      book:
        payload:
          type: object
          properties:
            amount: {type: integer}
            rate: {type: number}
            const: {type: [integer, "null"], minimum: 0}
            note: {type: string}
            lines: {type: array, items: {$ref: "#/$defs/line"}}
          $defs: {line: {type: object, properties: {count: {type: integer}}}}
        emit:
          - {event: booked, data: {amount: "has(cmd.amount) ? cmd.amount : 0"}}
      note:
        payload: {type: object, properties: {note: {type: string}}}
        require: [{that: "cmd.note != ''", else: a note is wanted}]
        emit: [{event: noted, data: {note: cmd.note}}]
      tell:
        payload: {type: object, properties: {note: {type: string}}}
        emit: [{event: noted, data: {note: cmd.note}}]
      add:
        payload: {type: object}
        emit: [{event: added, data: {value: cmd.value}}]
      double:
        emit: [{event: added, data: {value: state.total}}]
      divide:
        payload: {type: object}
        emit: [{event: noted, data: {note: "string(10 / cmd.by)"}}]
      ship:
        payload: {type: object}
        emit: [{event: shipped, data: {address: cmd.address}}]
    evolve:
      shipped: {}
      booked: {booked: event.amount}
      noted: {note: event.note}
      added: {total: "(has(state.total) ? state.total : 0) + event.value"}
views:
  cities: {columns: {city: string}, on: {wallet.shipped: {upsert: {city: event.address.city}}}}
`), nil
}

// reasonOf returns an error's reason and the rule that it names.
func reasonOf(err error) (reason, rule string) {
	known, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return "", ""
	}
	for _, detail := range known.Details() {
		value, err := connectproto.UnmarshalErrorDetail(detail)
		if info, ok := value.(*errdetails.ErrorInfo); ok && err == nil {
			reason, rule = info.GetReason(), info.GetMetadata()["rule"]
		}
	}
	return reason, rule
}

// fieldsOf returns the fields of the request that an error names.
func fieldsOf(err error) (fields []string) {
	if known, ok := errors.AsType[*connect.Error](err); ok {
		for _, detail := range known.Details() {
			value, err := connectproto.UnmarshalErrorDetail(detail)
			if bad, ok := value.(*errdetails.BadRequest); ok && err == nil {
				for _, violation := range bad.GetFieldViolations() {
					fields = append(fields, violation.GetField())
				}
			}
		}
	}
	return fields
}

// TestSubmit_InvalidPayloadIsNeverInternal checks that a failure caused by a client's payload is INVALID_ARGUMENT or
// FAILED_PRECONDITION, never INTERNAL, and names the rule that could not be evaluated.
func TestSubmit_InvalidPayloadIsNeverInternal(t *testing.T) {
	client, _ := nodeOf(t, natstest.Start(t), ledger)
	for id, value := range map[string]float64{"big": 1 << 62, "odd": 1 << 53} { // initial states
		if _, err := client.Submit(as(t, "acme"), command(id, "add", "", map[string]any{"value": value})); err != nil {
			t.Fatal(err)
		}
	}
	const in = "aggregates.wallet.commands."
	for _, tc := range []struct {
		name, id, command string
		payload           map[string]any
		code              connect.Code
		text, rule        string
	}{
		{
			"integer over 64 bits", "w", "book", map[string]any{"amount": 1e20},
			connect.CodeInvalidArgument, "payload.amount: maximum", "",
		},
		{
			"negative integer", "w", "book", map[string]any{"amount": -1e20}, connect.CodeInvalidArgument,
			"payload.amount: minimum", "",
		},
		{
			"rounded integer", "w", "book", map[string]any{"amount": float64(1<<53 + 1)},
			connect.CodeInvalidArgument, "payload.amount: maximum", "",
		},
		{
			"nullable integer", "w", "book", map[string]any{"const": 1e17}, connect.CodeInvalidArgument,
			"payload.const: maximum", "",
		},
		{
			"integer behind a reference", "w", "book", map[string]any{"lines": []any{map[string]any{"count": 1e17}}},
			connect.CodeInvalidArgument, "count: maximum", "",
		},
		{
			"optional member in a rule", "w", "note", map[string]any{}, connect.CodeFailedPrecondition, "note",
			in + "note.require[0]",
		},
		{
			"optional member in an event", "w", "tell", map[string]any{}, connect.CodeFailedPrecondition, "note",
			in + "tell.emit[0]",
		},
		{
			"sum over 2^63", "big", "double", nil, connect.CodeFailedPrecondition, "overflow",
			"aggregates.wallet.evolve.added",
		},
		{
			"sum rounded by JSON", "odd", "add", map[string]any{"value": 1}, connect.CodeFailedPrecondition,
			"state.total to an integer that JSON", "",
		},
		{
			"division by zero", "w", "divide", map[string]any{"by": 0}, connect.CodeFailedPrecondition, "zero",
			in + "divide.emit[0]",
		},
		{
			"mismatched types", "big", "add", map[string]any{"value": "x"}, connect.CodeFailedPrecondition,
			"no such overload", "aggregates.wallet.evolve.added",
		},
		{
			"member required by a view", "w", "ship", map[string]any{"address": map[string]any{}},
			connect.CodeFailedPrecondition, "event.address.city", "views.cities.on.wallet.shipped",
		},
		{
			"type other than the view's column", "w", "ship", map[string]any{"address": map[string]any{"city": 7}},
			connect.CodeFailedPrecondition, "is of type string", "views.cities.on.wallet.shipped",
		},
		{
			"unmet rule", "w", "note", map[string]any{"note": ""}, connect.CodeFailedPrecondition,
			"a note is wanted", in + "note.require[0]",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, _ := client.GetAggregate(as(t, "acme"),
				&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: tc.id})
			_, err := client.Submit(as(t, "acme"), command(tc.id, tc.command, "", tc.payload))
			refused(t, err, tc.code, tc.text)
			if fields := fieldsOf(err); (tc.code == connect.CodeInvalidArgument) != (len(fields) == 1) {
				t.Errorf("the error names the fields %q", fields)
			}
			if _, rule := reasonOf(err); rule != tc.rule {
				t.Errorf("rule of the error is %q, want %q", rule, tc.rule)
			}
			after, _ := client.GetAggregate(as(t, "acme"),
				&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: tc.id})
			if after.GetVersion() != before.GetVersion() {
				t.Errorf("version changed from %d to %d", before.GetVersion(), after.GetVersion())
			}
		})
	}
	for _, payload := range []map[string]any{
		{"amount": float64(1<<53 - 1)},
		{"amount": -float64(1<<53 - 1)},
		{"rate": 1e20},
		{"const": nil},
	} {
		if _, err := client.Submit(as(t, "acme"), command("fine", "book", "", payload)); err != nil {
			t.Errorf("%v: %v", payload, err)
		}
	}
}
