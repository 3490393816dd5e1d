package aggregate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
)

// meter returns a model in which reading a meter emits the given number of events.
func meter(emissions int) model.Source {
	emit := strings.Repeat("          - {event: read, data: {value: cmd.value}}\n", emissions)
	document := []byte(`model: meter
aggregates:
  wallet:
    commands:
      read:
        payload: {type: object}
        emit:
` + emit + `    evolve:
      read: {half: event.value * 0.5, last: event.value}
`)
	return func(context.Context) (string, []byte, error) { return "meter.yaml", document, nil }
}

func TestSubmit_AcceptedNumberFoldsEquallyOnEveryNode(t *testing.T) {
	js := natstest.Start(t)
	first, _ := nodeOf(t, js, meter(1))
	for n, value := range []any{
		0.5, 1e16, float64(1<<53) + 2, 1e18, -1e18, float64(1 << 60), float64(1 << 63), 1e19, 1e20, 1e21, 1.5e300,
		-0.25, 3.0,
	} {
		id := fmt.Sprintf("m%d", n)
		res, err := first.Submit(as(t, "acme"), command(id, "read", "", map[string]any{"value": value}))
		second, _ := nodeOf(t, js, meter(1)) // has nothing cached
		got, readErr := second.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id})
		if err != nil { // an integer type in the model accepts no half: rejected before anything is stored
			refused(t, readErr, connect.CodeNotFound, "no events")
			continue
		}
		if readErr != nil {
			t.Errorf("%v was accepted, another node returned %v", value, readErr)
			continue
		}
		here, err := first.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.GetState().AsMap(), here.GetState().AsMap()); diff != "" || res.GetVersion() != 1 {
			t.Errorf("%v (-another node +this node): %s", value, diff)
		}
	}
}

func TestSubmitBatch_TooManyEventsIsInvalidArgument(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeOf(t, js, meter(11))
	many := func(commands int) *aggregatev1.SubmitBatchRequest {
		var all []*aggregatev1.SubmitRequest
		for range commands {
			all = append(all, command("m", "read", "", map[string]any{"value": 0.5}))
		}
		return batch("", all...)
	}
	for range 2 { // every attempt returns the same answer
		res, err := client.SubmitBatch(as(t, "acme"), many(91)) // 1,001 events
		if err != nil {
			t.Fatal(err)
		}
		for n, result := range res.GetResults() {
			if code := connect.Code(result.GetError().GetCode()); code != connect.CodeInvalidArgument ||
				!strings.Contains(result.GetError().GetMessage(), "split the batch") {
				t.Fatalf("command %d: %v", n, result)
			}
		}
	}
	if res, err := client.SubmitBatch(as(t, "acme"), many(90)); err != nil ||
		res.GetResults()[89].GetResponse().GetVersion() != 990 {
		t.Errorf("batch of 990 events: %v, %v", outcomes(res), err)
	}
}
