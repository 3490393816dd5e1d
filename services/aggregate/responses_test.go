package aggregate_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/services/aggregate"
)

// pile is a model whose commands emit large events and whose state grows.
func pile(context.Context) (string, []byte, error) {
	return "pile.yaml", []byte(`model: pile
aggregates:
  wallet:
    commands:
      put:
        payload: {type: object, required: [text], properties: {text: {type: string}}}
        emit:
          - {event: added, data: {text: cmd.text}}
          - {event: added, data: {text: cmd.text}}
          - {event: added, data: {text: cmd.text}}
    evolve:
      added: {texts: "has(state.texts) ? state.texts + [event.text] : [event.text]"}
`), nil
}

func TestSubmit_EventDataBeyondByteLimitIsOmitted(t *testing.T) {
	client, _ := nodeOf(t, natstest.Start(t), pile)
	text := map[string]any{"text": strings.Repeat("x", 500_000)}
	check := func(name string, answer proto.Message, events []*aggregatev1.Event) {
		t.Helper()
		if size := proto.Size(answer); size > 1<<20 {
			t.Errorf("%s has %d bytes", name, size)
		}
		omitted := 0
		for i, event := range events {
			if event.GetId() == "" || event.GetVersion() != int64(i%3+1) ||
				(event.GetData() == nil) != event.GetDataOmitted() {
				t.Errorf("%s: event %d: %v", name, i, event.GetVersion())
			}
			if event.GetDataOmitted() {
				omitted++
			}
		}
		if len(events) < 3 || omitted != len(events)-2 {
			t.Errorf("%s: data of %d of %d events omitted, want all except 2", name, omitted, len(events))
		}
	}
	first := submit(t, client, "acme", command("a", "put", "once", text))
	check("Submit", first, first.GetEvents())
	again := submit(t, client, "acme", command("a", "put", "once", text))
	if !again.GetReplayed() {
		t.Error("the command was decided again")
	}
	check("Submit, replayed", again, again.GetEvents())

	batch := &aggregatev1.SubmitBatchRequest{}
	for n := range 2 {
		c := command(fmt.Sprint("b", n), "put", "", map[string]any{"text": strings.Repeat("x", 300_000)})
		batch.Commands = append(batch.Commands, &aggregatev1.BatchCommand{
			AggregateType: c.GetAggregateType(),
			AggregateId:   c.GetAggregateId(),
			Command:       c.GetCommand(),
			Payload:       c.GetPayload(),
		})
	}
	res, err := client.SubmitBatch(as(t, "acme"), batch)
	if err != nil {
		t.Fatal(err)
	}
	if size := proto.Size(res); size > 1<<20 {
		t.Errorf("SubmitBatch has %d bytes", size)
	}
	for n, result := range res.GetResults() {
		if result.GetResponse().GetVersion() != 3 || len(result.GetResponse().GetEvents()) != 3 {
			t.Errorf("command %d: %v", n, result.GetError())
		}
	}
}

// Batches of a tenant whose clients do not read their responses are rejected at the tenant's bound, before they have an
// effect; other tenants are not affected.
func TestSubmitBatch_ResponsesAreBoundedPerTenant(t *testing.T) {
	_, service := nodeWith(t, natstest.Start(t), pile,
		aggregate.Config{Answers: response.Config{PageBytes: 256 << 10, TenantBytes: 256 << 10}})
	text := map[string]any{"text": strings.Repeat("x", 70_000)}
	reading, read := context.WithCancel(as(t, "acme"))
	defer read()
	for n := range 2 { // responses of 210 kB
		req := batch("", command(fmt.Sprint(n), "put", "", text))
		if res, err := service.SubmitBatch(reading, req); err != nil || outcomes(res) != "v3" {
			t.Fatalf("batch %d: %v, %v", n, outcomes(res), err)
		}
	}
	third := batch("", command("third", "put", "", text))
	if _, err := service.SubmitBatch(as(t, "acme"), third); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("beyond the tenant's bound: %v", err)
	}
	if res, err := service.SubmitBatch(as(t, "globex"), third); err != nil || outcomes(res) != "v3" {
		t.Errorf("another tenant: %v, %v", outcomes(res), err)
	}
	read()
	natstest.Eventually(t, "the responses are released", func() bool {
		res, err := service.SubmitBatch(as(t, "acme"), third)
		return err == nil && outcomes(res) == "v3" // and not v6: the rejected batch had no effect
	})
}

func TestGetAggregate_TooLargeStateIsRejected(t *testing.T) {
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	js := natstest.Start(t)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	client, _ := nodeOf(t, js, pile)
	var sequence uint64
	for n := range 18 { // more than a command may store now
		events := []journal.Event{{
			ID: contextkit.NewID(), Type: "added", AggregateType: "wallet", AggregateID: "a", Version: int64(n + 1),
			Time: time.Now(),
			Data: fmt.Appendf(nil, `{"text":%q}`, strings.Repeat("x", 900_000)),
		}}
		if err := eventLog.Append(as(t, "acme"), natstest.Tenant(t, "acme"), sequence, events); err != nil {
			t.Fatal(err)
		}
		sequence = events[0].Sequence
		call, end := context.WithCancel(as(t, "acme")) // every transport cancels the context
		res, err := client.GetAggregate(call,
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "a"})
		end()
		switch {
		case n < 17 && (err != nil || len(res.GetState().AsMap()["texts"].([]any)) != n+1):
			t.Fatalf("state of %d strings: %v", n+1, err)
		case n == 17 &&
			(connect.CodeOf(err) != connect.CodeResourceExhausted || !strings.Contains(err.Error(), "state")):
			t.Errorf("state of 16 MB: %v", err)
		}
	}
}
