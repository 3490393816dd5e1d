package runner_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

const (
	cool    = "      - {name: cool, wait: \"'1s'\"}\n"
	nowhere = "      - {name: nowhere, submit: {aggregate: wallet, id: \"'missing'\", command: deposit, payload: " +
		"{amount: event.amount}}}\n"
	credit = "      - {name: credit, submit: {aggregate: wallet, id: event.to, command: deposit, payload: {amount: " +
		"event.amount}}}\n"
)

// scheduled waits until an instance's message is scheduled.
func (f *fixture) scheduled(t *testing.T) {
	t.Helper()
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the schedule is stored", func() bool {
		_, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.transfer.*")
		return err == nil
	})
}

// get returns an instance of a workflow.
func (f *fixture) get(t *testing.T, workflow, id string) *adminv1.GetWorkflowResponse {
	t.Helper()
	res, err := f.admin.GetWorkflow(as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: workflow, InstanceId: id})
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatal(err)
	}
	return res
}

func (f *fixture) letters(t *testing.T) []*adminv1.DeadLetter {
	t.Helper()
	res, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetLetters()
}

// edited is a source whose document is changed.
func edited(t *testing.T, source model.Source, change func(text string) string) model.Source {
	return func(ctx context.Context) (string, []byte, error) {
		name, document, err := source(ctx)
		text := change(string(document))
		if text == string(document) {
			t.Error("the model is the same")
		}
		return name, []byte(text), err
	}
}

// TestInstance_ContinuesWithPinnedModel changes the model in every way that matters to an instance while it waits.
func TestInstance_ContinuesWithPinnedModel(t *testing.T) {
	for name, of := range map[string]struct {
		steps  string
		change func(text string) string
		ends   string
		a, b   float64
	}{
		"completed step is renamed": {
			debit + cool + credit,
			func(text string) string { return strings.Replace(text, "name: debit", "name: withdraw", 1) },
			"debit done, cool done, credit done", 900, 100,
		},
		"completed step is removed, later step is rejected": {
			debit + cool + nowhere, func(text string) string { return strings.Replace(text, debit, "", 1) },
			"debit done, cool done, nowhere refused, undo debit done", 1000, 0,
		},
		"workflow is removed": {
			debit + cool + credit, func(text string) string {
				text, _, _ = strings.Cut(text, "\nworkflows:\n")
				return text
			},
			"debit done, cool done, credit done", 900, 100,
		},
		"workflow has another trigger": {
			debit + cool + credit, func(text string) string {
				return strings.Replace(text, "on: transfer.requested", "on: wallet.opened", 1)
			},
			"debit done, cool done, credit done", 900, 100,
		},
		"migration omits a completed step": {
			debit + cool + credit, func(text string) string {
				text = strings.Replace(text, "name: debit", "name: withdraw", 1)
				return strings.Replace(text, "    on: transfer.requested\n",
					"    on: transfer.requested\n    migrate: {from: any}\n", 1)
			},
			"debit done, cool done, credit done", 900, 100,
		},
		"migration renames a completed step and changes its undo": {
			debit + cool + nowhere, func(text string) string {
				text = strings.Replace(
					text, debit,
					strings.Replace(strings.ReplaceAll(debit, "name: debit", "name: withdraw"),
						"deposit, payload: {amount: event.amount}", "deposit, payload: {amount: 50}", 1),
					1,
				)
				return strings.Replace(text, "    on: transfer.requested\n",
					"    on: transfer.requested\n    migrate: {from: any, rename: {debit: withdraw}}\n", 1)
			},
			"withdraw done, cool done, nowhere refused, undo withdraw done", 950, 0,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startWith(t, withSteps(t, of.steps), webhook.Config{})
			f.wallets(t, "acme")
			f.transfer(t, "acme", "t", "b", 100)
			f.scheduled(t)
			id := f.get(t, "transfer", "t").GetInstanceId()
			f.stop()
			f.source = edited(t, f.source, of.change)
			f.run(t)
			var got *adminv1.GetWorkflowResponse
			wait(t, "the instance does not end", func() bool {
				got = f.get(t, "transfer", id)
				return got.GetState() > adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATING
			})
			if steps(got) != of.ends {
				t.Errorf("%v: got %s, want %s", got.GetState(), steps(got), of.ends)
			}
			if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != of.a || b != of.b {
				t.Errorf("balances %v and %v, want %v and %v", a, b, of.a, of.b)
			}
		})
	}
}

// TestRequest_IsIdenticalInEveryAttempt loses the response of a step, and changes the model of its request before the
// retry.
func TestRequest_IsIdenticalInEveryAttempt(t *testing.T) {
	f := startWith(t, withSteps(t, debit+credit), webhook.Config{})
	f.wallets(t, "acme")
	var lost atomic.Bool
	done := make(chan struct{})
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":debit") && lost.CompareAndSwap(false, true) {
			_, err := f.gate.next.Submit(ctx, req)
			close(done)
			return connect.NewError(connect.CodeUnavailable, "the answer is lost").WithCause(err)
		}
		return nil
	})
	f.transfer(t, "acme", "t", "b", 100)
	<-done
	f.stop()
	f.source = edited(t, f.source, func(text string) string {
		text = strings.Replace(text, "    on: transfer.requested\n",
			"    on: transfer.requested\n    migrate: {from: any, rename: {debit: withdraw}}\n", 1)
		return strings.Replace(
			text, debit,
			strings.Replace(strings.ReplaceAll(debit, "name: debit", "name: withdraw"),
				"withdraw, payload: {amount: event.amount}", "withdraw, payload: {amount: 7}", 1),
			1,
		)
	})
	f.run(t)
	if got := f.ended(t, "acme", "t"); steps(got) != "withdraw done, credit done" {
		t.Errorf("%v: %s", got.GetState(), steps(got))
	}
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 900 || b != 100 {
		t.Errorf("balances %v and %v, want 900 and 100", a, b)
	}
}

func TestRefusals_AreClassified(t *testing.T) {
	for name, of := range map[string]struct {
		answer error
		state  adminv1.WorkflowState
	}{
		"idempotency key of another command": {
			connect.NewError(connect.CodeAlreadyExists, "the idempotency key was used for another command"),
			adminv1.WorkflowState_WORKFLOW_STATE_STUCK,
		},
		"unknown command": {
			connect.NewError(connect.CodeNotFound, "aggregate has no command"),
			adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
		},
		"missing right": {
			connect.NewError(connect.CodePermissionDenied, "right command.internal"),
			adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
		},
		"rejected by a rule": {
			connect.NewError(connect.CodeFailedPrecondition, "closed"),
			adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED,
		},
		"invalid payload under every model": {
			connect.NewError(connect.CodeInvalidArgument, "too large"),
			adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED,
		},
		"invalid payload under another model": {
			connect.NewError(
				connect.CodeInvalidArgument, "unknown field",
			).WithDetail(
				&connect.ErrorDetail{Type: "google.rpc.BadRequest"},
			), adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startWith(t, withSteps(t, debit+credit+complete), webhook.Config{})
			f.wallets(t, "acme")
			var answered atomic.Bool
			f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
				if strings.HasSuffix(req.GetIdempotencyKey(), ":credit") && answered.CompareAndSwap(false, true) {
					return of.answer
				}
				return nil
			})
			f.transfer(t, "acme", "t", "b", 100)
			got := f.ended(t, "acme", "t")
			if got.GetState() != of.state {
				t.Fatalf("%v: %s, want status %v", got.GetState(), steps(got), of.state)
			}
			if of.state == adminv1.WorkflowState_WORKFLOW_STATE_STUCK {
				if attempts := got.GetAttempts(); attempts.GetStep() != "credit" || attempts.GetFailed() != 1 ||
					!strings.Contains(attempts.GetLastError(), "idempotency key") || attempts.GetNext() != nil {
					t.Errorf("attempts: %v", attempts)
				}
				list, err := f.admin.ListWorkflows(as(t, "acme"),
					&adminv1.ListWorkflowsRequest{State: adminv1.WorkflowState_WORKFLOW_STATE_STUCK})
				if err != nil || len(list.GetInstances()) != 1 ||
					list.GetInstances()[0].GetSubject().GetAggregateId() != "t" ||
					list.GetInstances()[0].GetAttempts().GetStep() != "credit" {
					t.Errorf("stuck instances: %v, %v", list, err)
				}
				wait(t, "no dead letter", func() bool { return len(f.letters(t)) == 1 })
			}
		})
	}
}

// TestWorkflows_OfOneEventEndIndependently has one event start a workflow whose condition fails, one whose wait is
// invalid, and one whose receiver fails.
func TestWorkflows_OfOneEventEndIndependently(t *testing.T) {
	receiver := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		),
	)
	defer receiver.Close()
	flows := fmt.Sprintf(
		`  badwhen: {on: transfer.requested, when: event.nope == 1, steps: [{name: a, submit: {aggregate: wallet, id: "'b'", command: deposit, payload: {amount: "1"}}}]}
  badwait: {on: transfer.requested, steps: [{name: a, submit: {aggregate: wallet, id: "'b'", command: deposit, payload: {amount: "1"}}, undo: {aggregate: wallet, id: "'b'", command: withdraw, payload: {amount: "1"}}}, {name: w, wait: "'15 minutes'"}]}
  hook5: {on: transfer.requested, steps: [{name: a, webhook: {url: "'%s'", body: {x: "1"}}}]}
`, receiver.URL,
	)
	f := startWith(t, edited(t, model.Wallet, func(text string) string { return text + "\n" + flows }),
		webhook.Config{Allow: []string{"127.0.0.1"}, Private: true, Plain: true})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	for workflow, want := range map[string]adminv1.WorkflowState{
		"transfer": adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
		"badwhen":  adminv1.WorkflowState_WORKFLOW_STATE_STUCK,
		"badwait":  adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED,
	} {
		var got *adminv1.GetWorkflowResponse
		wait(t, workflow+" does not end", func() bool {
			got = f.get(t, workflow, "t")
			return got.GetState() > adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATING
		})
		if got.GetState() != want {
			t.Errorf("%s: status %v: %s", workflow, got.GetState(), steps(got))
		}
	}
	wait(t, "the failing attempt is not listed", func() bool {
		got := f.get(t, "hook5", "t")
		return got.GetState() == adminv1.WorkflowState_WORKFLOW_STATE_RUNNING && got.GetAttempts().GetStep() == "a" &&
			got.GetAttempts().GetFailed() > 0 && got.GetAttempts().GetNext() != nil
	})
	if got := f.get(t, "badwhen", "t"); got.GetAttempts().GetStep() != "when" ||
		!strings.Contains(got.GetAttempts().GetLastError(), "nope") {
		t.Errorf("attempts of badwhen: %v", got.GetAttempts())
	}
	wait(t, "no dead letter of badwhen", func() bool {
		letters := f.letters(t)
		return len(letters) == 1 && strings.Contains(letters[0].GetCause(), "badwhen")
	})
	// With a model that can evaluate the condition, a replay starts the instance.
	f.stop()
	f.source = edited(t, f.source,
		func(text string) string { return strings.Replace(text, "event.nope == 1", "event.amount == 100", 1) })
	f.run(t)
	if _, err := f.admin.ReplayDeadLetters(
		as(t, "acme"), &adminv1.ReplayDeadLettersRequest{Cause: "badwhen"},
	); err != nil {
		t.Fatal(err)
	}
	if got := f.get(t, "badwhen", "t"); got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED ||
		steps(got) != "a done" {
		t.Errorf("badwhen: status %v: %s", got.GetState(), steps(got))
	}
}

func TestInstances_AreNamedByEvents(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.transfer(t, "acme", "same", "b", 100)
	f.ended(t, "acme", "same")
	f.stop()
	f.source = edited(t, f.source, func(text string) string {
		head, _, _ := strings.Cut(text, "\nworkflows:\n")
		return head +
			"\nworkflows:\n  transfer:\n    on: wallet.opened\n    steps:\n      - {name: bonus, submit: {aggregate: " +
			"wallet, id: meta.aggregate_id, command: deposit, payload: {amount: \"5\"}}}\n"
	})
	f.run(t)
	f.submit(t, "acme", "wallet", "same", "open", map[string]any{"owner": "x"})
	wait(t, "the workflow does not run under a name that had another trigger",
		func() bool { return f.balance(t, "acme", "same") == 5 })
}

// earlierRecord stores a record as earlier versions do.
func earlierRecord(t *testing.T, f *fixture, key string, record map[string]any) {
	t.Helper()
	data, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(as(t, "acme"), f.js, streams.BucketWorkflows, key, data); err != nil {
		t.Fatal(err)
	}
}

// TestInstances_OfEarlierVersionsContinue has records of an earlier version: one of an instance that has debited,
// whose trigger is delivered again; and one of an instance that waits.
func TestInstances_OfEarlierVersionsContinue(t *testing.T) {
	f := startOn(t, natstest.Start(t), withSteps(t, debit+cool+credit), webhook.Config{}, []string{"acme"},
		func(*fixture) {})
	f.wallets(t, "acme")
	ids := map[string]string{}
	for _, id := range []string{"done", "begun", "waits"} {
		f.transfer(t, "acme", id, "b", 100)
		events, err := f.js.Stream(t.Context(), streams.Events)
		if err != nil {
			t.Fatal(err)
		}
		msg, err := events.GetLastMsgForSubject(t.Context(), "events.acme.transfer."+id)
		if err != nil {
			t.Fatal(err)
		}
		event, err := journal.ReadEvent(journal.RawMessage(msg))
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = event.ID
		record := map[string]any{
			"workflow": "transfer", "id": id, "state": "running", "failure": map[string]any{}, "started": time.Now(),
			"updated": time.Now(),
			"steps":   []any{map[string]any{"name": "debit", "outcome": "done", "time": time.Now()}},
			"trigger": map[string]any{
				"Data": map[string]any{"from": "a", "to": "b", "amount": 100}, "Meta": map[string]any{
					"Tenant": "acme", "AggregateType": "transfer", "AggregateID": id, "Version": 1,
					"Time": event.Time.Format(time.RFC3339Nano), "EventID": event.ID,
				},
			},
		}
		switch id {
		case "done":
			record["state"] = "completed"
		case "waits":
			record["waiting"] = map[string]any{"step": "cool", "until": time.Now()}
		}
		earlierRecord(t, f, "acme.transfer."+id, record)
	}
	// The trigger of "waits" and its due work may drive it concurrently: the requests of both have one key.
	var sent sync.Map
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":debit") {
			return connect.NewError(connect.CodeFailedPrecondition, "completed by an earlier version")
		}
		sent.Store(req.GetIdempotencyKey(), true)
		return nil
	})
	due := &nats.Msg{Subject: "work.acme.transfer.waits", Header: nats.Header{}} // a wait that has ended
	if err := contextkit.InjectNATS(as(t, "acme"), due.Header); err != nil {
		t.Fatal(err)
	}
	if _, err := f.js.PublishMsg(t.Context(), due); err != nil {
		t.Fatal(err)
	}
	f.before = func(node *runner.Service) { node.SetSettled(0) }
	f.run(t)
	for _, id := range []string{"begun", "waits"} {
		if got := f.ended(t, "acme", id); steps(got) != "debit done, cool done, credit done" ||
			got.GetInstanceId() != ids[id] || got.GetModel() == "" {
			t.Errorf("%s: status %v: %s, revision %s", id, got.GetState(), steps(got), got.GetInstanceId())
		}
		if kept, err := kv.Read(t.Context(), f.js, streams.BucketWorkflows, "acme.transfer."+id); err != nil ||
			!strings.Contains(string(kept.Value), `"state":"moved"`) {
			t.Errorf("earlier record of %s: %s, %v", id, kept.Value, err)
		}
	}
	keys := 0
	sent.Range(func(any, any) bool { keys++; return true })
	if got := f.ended(t, "acme", "done"); steps(got) != "debit done" || keys != 2 || f.balance(t, "acme", "b") != 200 {
		t.Errorf(
			"completed instance: %s; %d different commands were sent, want 2; balance of b is %v, want 200", steps(got),
			keys, f.balance(t, "acme", "b"),
		)
	}
	list, err := f.admin.ListWorkflows(as(t, "acme"), &adminv1.ListWorkflowsRequest{})
	if err != nil || len(list.GetInstances()) != 3 {
		t.Errorf("instances: %v, %v", list, err)
	}
	var all []string
	for token := "-"; token != ""; {
		res, err := f.admin.ListWorkflows(as(t, "acme"),
			&adminv1.ListWorkflowsRequest{PageSize: 1, PageToken: strings.TrimPrefix(token, "-")})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range res.GetInstances() {
			all = append(all, one.GetInstanceId())
		}
		token = res.GetNextPageToken()
	}
	if len(all) != 3 || all[2] != "done" {
		t.Errorf("instances of all pages: %v", all)
	}
}

// TestDueWork_WithoutRecordIsDeadLetter removes the record of a waiting instance, which nothing in the platform does.
func TestDueWork_WithoutRecordIsDeadLetter(t *testing.T) {
	f := startWith(t, withSteps(t, debit+cool+complete), webhook.Config{})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	f.scheduled(t)
	id := f.get(t, "transfer", "t").GetInstanceId()
	f.stop()
	for bucket, config := range map[string]bool{streams.BucketInstances: false, streams.BucketRevisions: true} {
		stream, err := f.js.Stream(t.Context(), streams.BucketStream(bucket))
		if err != nil {
			t.Fatal(err)
		}
		if age := stream.CachedInfo().Config.MaxAge; age != 0 {
			t.Errorf("entries of %s expire after %v", bucket, age)
		}
		if !config {
			if err := stream.Purge(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.run(t)
	wait(t, "no dead letter", func() bool {
		letters := f.letters(t)
		return len(letters) == 1 && strings.Contains(letters[0].GetCause(), "no record") &&
			strings.Contains(letters[0].GetCause(), id)
	})
}

// TestRecord_ExpiresAfterInstanceEnds checks the TTLs of records.
func TestRecord_ExpiresAfterInstanceEnds(t *testing.T) {
	f := startWith(t, withSteps(t, debit+nowhere+complete), webhook.Config{})
	f.wallets(t, "acme")
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit") {
			payload := req.GetPayload().AsMap()
			if payload["amount"] == 13.0 {
				return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
			}
		}
		return nil
	})
	f.transfer(t, "acme", "undone", "b", 1)
	f.transfer(t, "acme", "failed", "b", 13)
	for id, want := range map[string]string{"undone": "720h0m0s", "failed": ""} {
		got := f.ended(t, "acme", id)
		stream, err := f.js.Stream(t.Context(), streams.BucketStream(streams.BucketInstances))
		if err != nil {
			t.Fatal(err)
		}
		msg, err := stream.GetLastMsgForSubject(t.Context(), "$KV.instances.acme.transfer."+got.GetInstanceId())
		if err != nil || msg.Header.Get("Nats-TTL") != want {
			t.Errorf("%s, %v: record expires after %q, %v; want %q", id, got.GetState(), msg.Header.Get("Nats-TTL"),
				err, want)
		}
	}
}
