package runner_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// withSteps is the wallet model with other steps for transfers.
func withSteps(t *testing.T, steps string) model.Source {
	t.Helper()
	return func(ctx context.Context) (string, []byte, error) {
		name, source, err := model.Wallet(ctx)
		head, _, found := strings.Cut(string(source), "\n    steps:\n")
		if !found {
			t.Error("the model has no steps")
		}
		return name, []byte(head + "\n    steps:\n" + steps), err
	}
}

const (
	debit = "      - {name: debit, submit: {aggregate: wallet, id: event.from, command: withdraw, payload: " +
		"{amount: event.amount}}, undo: {aggregate: wallet, id: event.from, command: deposit, payload: {amount: " +
		"event.amount}}}\n"
	complete = "      - {name: complete, submit: {aggregate: transfer, id: meta.aggregate_id, command: complete}}\n"
)

func TestWait_SurvivesRestart(t *testing.T) {
	t.Parallel()
	f := startWith(t, withSteps(t, debit+"      - {name: cool, wait: \"'2s'\"}\n"+complete), webhook.Config{})
	f.wallets(t, "acme")
	began := time.Now()
	f.transfer(t, "acme", "t", "b", 100)
	get := func() *adminv1.GetWorkflowResponse {
		got, err := f.admin.GetWorkflow(as(t, "acme"),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "t"})
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			t.Fatal(err)
		}
		return got
	}
	wait(t, "the debit is done", func() bool { return steps(get()) == "debit done" })
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	var correlation string
	wait(t, "the schedule is stored", func() bool {
		msg, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.transfer.*")
		if err != nil {
			return false
		}
		rc, err := contextkit.ExtractNATS(msg.Header)
		correlation = rc.CorrelationID
		return err == nil && rc.TenantID.String() == "acme" && !rc.Traceparent.IsZero()
	})
	f.stop() // no runner is running when it is due
	seen := make(chan string, 1)
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetCommand() == "complete" {
			rc, _ := contextkit.FromContext(ctx)
			select {
			case seen <- rc.CorrelationID:
			default:
			}
		}
		return nil
	})
	wait(t, "the wait does not end", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.NumSubjects == 1 && time.Since(began) > 2*time.Second
	})
	f.run(t)
	got := f.ended(t, "acme", "t")
	if steps(got) != "debit done, cool done, complete done" || time.Since(began) < 2*time.Second {
		t.Errorf("%s after %v", steps(got), time.Since(began))
	}
	if got := natstest.Await(t, seen, "the command is submitted"); got != correlation {
		t.Errorf("correlation id %q after the wait, %q before", got, correlation)
	}
	wait(t, "all work is done", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 0
	})
}

func TestMigration_MovesInstanceToModelInUse(t *testing.T) {
	t.Parallel()
	f := startWith(t, withSteps(t, "      - {name: cool, wait: \"'1s'\"}\n"+debit+complete), webhook.Config{})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the schedule is stored", func() bool {
		_, err := stream.GetLastMsgForSubject(t.Context(), "later.acme.transfer.*")
		return err == nil
	})
	f.stop()
	// Change the form of the trigger event, which the steps use.
	old := f.source
	f.source = func(ctx context.Context) (string, []byte, error) {
		name, source, err := old(ctx)
		for _, change := range [][2]string{
			{
				"    evolve:\n      requested: {state: \"'requested'\", from: event.from, to: event.to, amount: " +
					"event.amount}",
				"    events:\n      requested:\n        version: 2\n        upcasts:\n        - {from: 1, set: " +
					"{cents: event.amount}, drop: [amount]}\n" +
					"    evolve:\n      requested: {state: \"'requested'\", from: event.from, to: event.to, amount: " +
					"event.cents}",
			},
			{
				"amount: event.amount, state: \"'requested'\", reason",
				"amount: event.cents, state: \"'requested'\", reason",
			},
			{"to: cmd.to, amount: cmd.amount", "to: cmd.to, cents: cmd.amount"},
			{debit, strings.ReplaceAll(debit, "event.amount", "event.cents")},
			{"cool", "rest"},
			{
				"    on: transfer.requested\n",
				"    on: transfer.requested\n    migrate: {from: any, rename: {cool: rest}}\n",
			},
		} {
			if !strings.Contains(string(source), change[0]) {
				t.Errorf("the model has no %q", change[0])
			}
			source = []byte(strings.ReplaceAll(string(source), change[0], change[1]))
		}
		return name, source, err
	}
	f.run(t)
	if got := f.ended(t, "acme", "t"); steps(got) != "rest done, debit done, complete done" ||
		got.GetModel() != f.models.Current().Revision || got.GetTrigger().AsMap()["cents"] != 100.0 {
		t.Errorf("%s of %v", steps(got), got.GetTrigger())
	}
	if got := f.balance(t, "acme", "a"); got != 900 {
		t.Errorf("balance after the debit: %v", got)
	}
}

func TestWorkflows_FailedOneDoesNotStopRetriesOfOthers(t *testing.T) {
	missing := "      - {name: credit, submit: {aggregate: wallet, id: \"'missing'\", command: deposit, payload: " +
		"{amount: event.amount}}}\n"
	notice := "  notice:\n    on: transfer.requested\n    steps:\n      - {name: tell, submit: {aggregate: wallet, " +
		"id: \"'b'\", command: deposit, payload: {amount: \"7\"}}}\n"
	f := startWith(t, withSteps(t, debit+missing+notice), webhook.Config{})
	f.wallets(t, "acme")
	var tries atomic.Int32
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		switch {
		case strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit"):
			return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
		case strings.HasSuffix(req.GetIdempotencyKey(), ":tell") && tries.Add(1) < 3:
			return connect.NewError(connect.CodeUnavailable, "not now")
		}
		return nil
	})
	f.transfer(t, "acme", "t", "b", 100)
	if got := f.ended(t, "acme", "t"); got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_FAILED {
		t.Fatalf("status of the transfer at its end: %v", got.GetState())
	}
	wait(t, "no dead letter", func() bool {
		res, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
		return err == nil && len(res.GetLetters()) == 1 &&
			strings.Contains(res.GetLetters()[0].GetCause(), "workflow transfer")
	})
	wait(t, "the other workflow does not complete", func() bool {
		got, err := f.admin.GetWorkflow(as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: "notice", InstanceId: "t"})
		return err == nil && got.GetState() == adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED && tries.Load() == 3
	})
}

func TestWebhook_HasOneEffectAndIsCompensated(t *testing.T) {
	var (
		mu   sync.Mutex
		keys []string
		fail = 2
		code = http.StatusOK
		body string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		text, _ := io.ReadAll(r.Body)
		body = string(text)
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if fail > 0 {
			fail--
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(code)
	}))
	defer server.Close()
	hook := fmt.Sprintf(
		"      - {name: tell, webhook: {url: \"'%s/paid/' + event.to\", body: {amount: event.amount, to: event.to}}}\n",
		server.URL,
	)
	f := startWith(t, withSteps(t, debit+hook+complete),
		webhook.Config{Allow: []string{"127.0.0.1"}, Private: true, Plain: true})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "good", "b", 100)
	if got := f.ended(t, "acme", "good"); steps(got) != "debit done, tell done, complete done" {
		t.Errorf("%s", steps(got))
	}
	mu.Lock()
	if len(keys) != 3 || keys[0] != keys[2] || keys[0] == "" || body != `{"amount":100,"to":"b"}` {
		t.Errorf("called under the keys %q with %s, want two failures and a success under one key", keys, body)
	}
	code = http.StatusGone
	mu.Unlock()
	f.transfer(t, "acme", "bad", "b", 100)
	if got := f.ended(t, "acme", "bad"); steps(got) != "debit done, tell refused, undo debit done" ||
		!strings.Contains(got.GetSteps()[1].GetMessage(), "410") {
		t.Errorf("%s: %v", steps(got), got.GetSteps())
	}
}

func TestParallelSteps_AllCompleteOrAllAreCompensated(t *testing.T) {
	pay := func(name, wallet string) string {
		return fmt.Sprintf(
			"          - {name: %s, submit: {aggregate: wallet, id: %s, command: deposit, payload: {amount: 10}}, "+
				"undo: {aggregate: wallet, id: %s, command: withdraw, payload: {amount: 10}}}\n",
			name, wallet, wallet,
		)
	}
	f := startWith(
		t,
		withSteps(t, "      - name: pay\n        parallel:\n"+pay("one", "event.from")+pay("two", "event.to")+complete),
		webhook.Config{},
	)
	f.wallets(t, "acme")
	// They run concurrently: each is held until both have begun.
	var begun sync.WaitGroup
	begun.Add(2)
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		if req.GetCommand() != "deposit" {
			return nil
		}
		begun.Done()
		both := make(chan struct{})
		go func() { begun.Wait(); close(both) }()
		select {
		case <-both:
			return nil
		case <-ctx.Done():
			return errors.New("the other workflow has not started")
		}
	})
	f.transfer(t, "acme", "both", "b", 1)
	got := f.ended(t, "acme", "both")
	if steps(got) != "one done, two done, complete done" {
		t.Errorf("%s", steps(got))
	}
	f.gate.set(nil)
	f.transfer(t, "acme", "half", "missing", 1)
	if got := f.ended(t, "acme", "half"); steps(got) != "one done, two refused, undo one done" ||
		got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED {
		t.Errorf("%s", steps(got))
	}
}
