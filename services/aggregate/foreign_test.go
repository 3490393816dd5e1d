package aggregate_test

import (
	"errors"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/model"
)

// reference returns the message reference in a DATA_LOSS error.
func reference(t *testing.T, err error) string {
	t.Helper()
	known, ok := errors.AsType[*connect.Error](err)
	if !ok || known.Code() != connect.CodeDataLoss {
		t.Fatalf("got %v, want DATA_LOSS", err)
	}
	for _, detail := range known.Details() {
		value, err := connectproto.UnmarshalErrorDetail(detail)
		if err != nil {
			t.Fatal(err)
		}
		if info, ok := value.(*errdetails.ErrorInfo); ok && info.GetReason() == "MESSAGE_UNREADABLE" {
			return info.GetMetadata()["reference"]
		}
	}
	t.Fatalf("%v has no reference", err)
	return ""
}

// TestForeignMessages_AreEventsOrDataLoss publishes messages of another producer after an aggregate's events: valid
// events are folded, the others are DATA_LOSS until an operator declares them non-events.
func TestForeignMessages_AreEventsOrDataLoss(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeOf(t, js, model.Wallet)
	other, _ := nodeOf(t, js, model.Wallet)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := kv.SharedSecret(t.Context(), js, "tokens")
	if err != nil {
		t.Fatal(err)
	}
	acme, positions := natstest.Tenant(t, "acme"), position.NewCodec(secret, eventLog.Epoch, nil)
	operator := contextkit.PlatformContext(t.Context())
	for _, strange := range natstest.StrangeMessages() {
		t.Run(strange.Name, func(t *testing.T) {
			id := strange.Name
			submit(t, client, "acme", command(id, "open", id+"-open", map[string]any{"owner": "ada"}))
			sequence := natstest.PublishStrange(t, js, strange, "acme", "wallet", id, "deposited", 2,
				`{"amount":5,"unknown":{"a":[1]}}`)
			if strange.Fault == "" {
				whole(t, client, id, 2)
				whole(t, other, id, 3)
				return
			}
			refusedAll(t, client, id, "is not an event")
			refusedAll(t, other, id, "is not an event")
			_, err := get(t, client, id)
			named := reference(t, err)
			if at, err := positions.Parse(acme, named); err != nil || at != sequence {
				t.Errorf("sequence of the reference is %d, %v; want %d", at, err, sequence)
			}
			if early, err := client.GetAggregate(
				as(t, "acme"), &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id, Version: 1},
			); err != nil || early.GetVersion() != 1 {
				t.Errorf("version 1: %v, %v", early, err)
			}
			declared, err := eventLog.DeclareNonEvent(operator, acme, sequence, "ada", "a test")
			if err != nil || declared.Fault != strange.Fault {
				t.Fatalf("%+v, %v", declared, err)
			}
			whole(t, client, id, 1)
			whole(t, other, id, 2)
			whole(t, client, id, 3)
			if _, err := eventLog.RevokeNonEvent(operator, acme, sequence); err != nil {
				t.Fatal(err)
			}
			refusedAll(t, client, id, "is not an event")
			refusedAll(t, other, id, "is not an event")
			if _, err := eventLog.DeclareNonEvent(operator, acme, sequence, "ada", "a test"); err != nil {
				t.Fatal(err)
			}
			whole(t, other, id, 4)
		})
	}
	report, err := journal.Verify(operator, js)
	if err != nil || len(report.Faults) > 0 || report.NonEvents == 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestForeignMessages_AggregateContinuesAfterNonEvent puts a non-event first, one whose producer counted it as a
// version between events, and one after a snapshot.
func TestForeignMessages_AggregateContinuesAfterNonEvent(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeOf(t, js, model.Wallet)
	journal, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme, operator := natstest.Tenant(t, "acme"), contextkit.PlatformContext(t.Context())
	event, text := natstest.Strange{}, natstest.StrangeMessages()
	junk := text[len(text)-1]
	declare := func(sequence uint64) {
		t.Helper()
		if _, err := journal.DeclareNonEvent(operator, acme, sequence, "ada", "a test"); err != nil {
			t.Fatal(err)
		}
	}

	first := natstest.PublishStrange(t, js, junk, "acme", "wallet", "first", "opened", 1, "")
	refusedAll(t, client, "first", "is not an event")
	declare(first)
	_, err = get(t, client, "first")
	refused(t, err, connect.CodeNotFound, "has no events")
	submit(t, client, "acme", command("first", "open", "first-open", map[string]any{"owner": "ada"}))
	whole(t, client, "first", 1)

	submit(t, client, "acme", command("counted", "open", "counted-open", map[string]any{"owner": "ada"}))
	declare(natstest.PublishStrange(t, js, junk, "acme", "wallet", "counted", "deposited", 2, ""))
	natstest.PublishStrange(t, js, event, "acme", "wallet", "counted", "deposited", 3, `{"amount":5}`)
	whole(t, client, "counted", 3)
	fresh, _ := nodeOf(t, js, model.Wallet)
	whole(t, fresh, "counted", 4)
	for version, want := range map[int64]int64{1: 1, 2: 2, 3: 3, 4: 4} {
		if res, err := fresh.GetAggregate(
			as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "counted", Version: version},
		); err != nil || res.GetVersion() != want {
			t.Errorf("version %d: %v, %v", version, res, err)
		}
	}

	submit(t, client, "acme", command("many", "open", "many-open", map[string]any{"owner": "ada"}))
	sequence := natstest.PublishStrange(t, js, junk, "acme", "wallet", "many", "deposited", 2, "")
	declare(sequence)
	for n := range 3 {
		deposits := make([]*aggregatev1.SubmitRequest, 100)
		for m := range deposits {
			deposits[m] = deposit("many", "", n+1)
		}
		res, err := client.SubmitBatch(as(t, "acme"), batch("", deposits...))
		if err != nil || res.GetResults()[0].GetError() != nil {
			t.Fatalf("%v, %v", res, err)
		}
	}
	fresh, _ = nodeOf(t, js, model.Wallet)
	whole(t, fresh, "many", 301)
	if _, err := journal.RevokeNonEvent(operator, acme, sequence); err != nil {
		t.Fatal(err)
	}
	refusedAll(t, fresh, "many", "is not an event")
	fresh, _ = nodeOf(t, js, model.Wallet)
	refusedAll(t, fresh, "many", "is not an event")
}
