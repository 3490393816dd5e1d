package runner_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// TestForeignMessages_NonEventsTriggerNothing publishes triggers of another producer: each valid event starts a
// workflow, with separate effects; the other messages start none, and leave no dead letter. The first runner reads
// triggers from a durable consumer, as earlier versions do.
func TestForeignMessages_NonEventsTriggerNothing(t *testing.T) {
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme", "globex"}, func(*fixture) {})
	f.wallets(t, "acme")
	var begun, passed []string
	for _, prefix := range []string{"a-", "b-"} {
		for _, strange := range natstest.StrangeMessages() {
			id := prefix + strange.Name
			natstest.PublishStrange(t, f.js, strange, "acme", "transfer", id, "requested", 1,
				`{"from":"a","to":"b","amount":10,"more":{}}`)
			if strange.Fault == "" {
				begun = append(begun, id)
			} else {
				passed = append(passed, id)
			}
		}
	}
	f.run(t)
	f.transfer(t, "acme", "last", "b", 1)
	for _, id := range append(begun, "last") {
		if res := f.ended(t, "acme", id); res.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED {
			t.Errorf("%s: %v, %s", id, res.GetState(), steps(res))
		}
	}
	for _, id := range passed {
		if res, err := f.admin.GetWorkflow(
			as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: id},
		); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s started: %v, %v", id, res, err)
		}
	}
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 1000-1-float64(10*len(begun)) || a+b != 1000 {
		t.Errorf("balances %v and %v after %d transfers of 10 and one of 1", a, b, len(begun))
	}
	letters, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
	if err != nil || len(letters.GetLetters()) != 0 {
		t.Errorf("dead letters %v, %v", letters, err)
	}
}

// TestForeignMessages_LettersOfSharedIDsAreDistinct stores letters of events that share an id.
func TestForeignMessages_LettersOfSharedIDsAreDistinct(t *testing.T) {
	f := startOn(t, natstest.Start(t), model.Wallet, webhook.Config{}, []string{"acme"}, func(*fixture) {})
	journal, err := journal.Open(t.Context(), f.js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	want := 0
	for _, strange := range natstest.StrangeMessages() {
		if strange.Fault != "" {
			continue
		}
		sequence := natstest.PublishStrange(t, f.js, strange, "acme", "transfer", strange.Name, "requested", 1,
			`{"from":"a","to":"b","amount":10}`)
		event, found, err := journal.Event(t.Context(), acme, sequence)
		if err != nil || !found {
			t.Fatal(found, err)
		}
		for range 2 { // the second does nothing
			if err := deadletter.Store(
				as(t, "acme"), f.js, acme, event, deadletter.Origin{Work: "runner-acme"}, errors.New("a test"),
			); err != nil {
				t.Fatal(err)
			}
		}
		want++
		err = deadletter.Read(t.Context(), f.js, acme, 1, func(letter deadletter.Letter) (bool, error) {
			if letter.Event.AggregateID == strange.Name && (letter.Event.ID != event.ID || letter.Unreadable != nil) {
				t.Errorf("%s: event of the letter is %s, %v; want %s", strange.Name, letter.Event.ID, letter.Unreadable,
					event.ID)
			}
			return true, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	if err := deadletter.Read(
		t.Context(), f.js, acme, 1, func(deadletter.Letter) (bool, error) { count++; return true, nil },
	); err != nil || count != want {
		t.Errorf("%d letters, %v; want %d", count, err, want)
	}
}

// TestForeignMessages_LetterWithoutObjectHidesNoOthers stores a letter as an earlier version did for a message that
// is not an event.
func TestForeignMessages_LetterWithoutObjectHidesNoOthers(t *testing.T) {
	f := start(t)
	acme := natstest.Tenant(t, "acme")
	cause := errors.New("a test \xff" + strings.Repeat("\u00e9", 1000)) // which is truncated
	for id, data := range map[string]string{"array": "[1]", "bytes": "\xff\x00", "object": `{"a":1}`} {
		event := journal.Event{
			ID:            id,
			Type:          "requested",
			AggregateType: "transfer",
			AggregateID:   id,
			Version:       1,
			Time:          time.Now(),
			Data:          []byte(data),
			DataVersion:   1,
		}
		if err := deadletter.Store(
			as(t, "acme"), f.js, acme, event, deadletter.Origin{Work: "runner-acme"}, cause,
		); err != nil {
			t.Fatal(err)
		}
	}
	list, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
	if err != nil || len(list.GetLetters()) != 3 {
		t.Fatalf("%v, %v; want three letters", list, err)
	}
	var ids []int64
	for _, letter := range list.GetLetters() {
		if got, want := letter.GetData() != nil, letter.GetAggregateId() == "object"; got != want ||
			!strings.HasPrefix(letter.GetCause(), "a test \ufffd\u00e9") {
			t.Errorf("%v", letter)
		}
		ids = append(ids, letter.GetId())
	}
	if res, err := f.admin.DiscardDeadLetters(
		as(t, "acme"), &adminv1.DiscardDeadLettersRequest{Ids: ids, Reason: "a test"},
	); err != nil || res.GetDiscarded() != 3 {
		t.Errorf("%v, %v", res, err)
	}
}
