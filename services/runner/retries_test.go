package runner_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/workqueue"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

var localHooks = webhook.Config{Allow: []string{"127.0.0.1"}, Private: true, Plain: true}

// withHook is the wallet model with another workflow, started by the event that opens a wallet, which calls a
// webhook.
func withHook(hook string) model.Source {
	return func(ctx context.Context) (string, []byte, error) {
		name, source, err := model.Wallet(ctx)
		return name, append(
			source,
			[]byte(
				"\n  tell:\n    on: wallet.opened\n    steps:\n      - {name: tell, webhook: {url: \""+hook+
					"\", body: {owner: event.owner}}}\n",
			)...,
		), err
	}
}

// retries returns the number of the tenant's instances whose next attempt is scheduled.
func (f *fixture) retries(t *testing.T, tenant string) int64 {
	t.Helper()
	count, err := workqueue.CountRetries(t.Context(), f.js, natstest.Tenant(t, tenant))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// Instances whose webhook fails leave the window, so that the tenant's other workflows do not wait for them.
func TestRetries_FailingWebhooksDelayNoOtherWorkflow(t *testing.T) {
	many := 1_000
	if testing.Short() {
		many = 100
	}
	var calls atomic.Int64
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // the server now detects that the client has disconnected
		if r.URL.Path == "/silent" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer server.Close()
	for _, path := range []string{"/e500", "/silent"} {
		t.Run(path[1:], func(t *testing.T) {
			calls.Store(0)
			f := startWith(t, withHook("'"+server.URL+path+"'"), localHooks)
			f.wallets(t, "acme")
			for n := range many {
				f.submit(t, "acme", "wallet", fmt.Sprint("w", n), "open", map[string]any{"owner": "x"})
			}
			f.transfer(t, "acme", "t", "b", 100)
			if got := f.ended(t, "acme", "t"); got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED {
				t.Fatalf("status of the transfer at its end: %v", got.GetState())
			}
			wait(t, "most instances are not scheduled for their next attempt",
				func() bool { return f.retries(t, "acme") >= int64(many)/2 })
			if n := calls.Load(); n > int64(many)/2 {
				t.Errorf("a failing receiver was called %d times for %d instances: its breaker did not open", n,
					many)
			}
			if path == "/silent" {
				close(release)
			}
		})
	}
}

// The same holds for steps whose command fails; when it succeeds again, each instance ends.
func TestRetries_FailingCommandsDelayNoOtherWorkflow(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var fails atomic.Bool
	fails.Store(true)
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if fails.Load() && strings.HasSuffix(req.GetIdempotencyKey(), ":debit") &&
			req.GetPayload().AsMap()["amount"] == 1.0 {
			return connect.NewError(connect.CodeUnavailable, "not now")
		}
		return nil
	})
	const many = 100
	for n := range many {
		f.transfer(t, "acme", fmt.Sprint("t", n), "b", 1)
	}
	f.transfer(t, "acme", "good", "b", 100)
	f.ended(t, "acme", "good")
	if n := f.retries(t, "acme"); n == 0 {
		t.Error("no instance waits for its next attempt")
	}
	fails.Store(false)
	for n := range many {
		f.ended(t, "acme", fmt.Sprint("t", n))
	}
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 900-many || b != 100+many {
		t.Errorf("balances %v and %v, want %d and %d", a, b, 900-many, 100+many)
	}
}

// Workflows of one event end independently: one that fails permanently becomes a dead letter while another one is
// retried.
func TestRetries_FinalFailureIsNotHiddenByAnotherRetry(t *testing.T) {
	server := httptest.NewServer(
		http.HandlerFunc(
			func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		),
	)
	defer server.Close()
	source := func(ctx context.Context) (string, []byte, error) {
		name, text, err := withHook("'" + server.URL + "'")(ctx)
		return name, append(text, []byte(`
  badwhen:
    on: wallet.opened
    when: event.nope == 1
    steps: [{name: a, submit: {aggregate: wallet, id: meta.aggregate_id, command: deposit, payload: {amount: "1"}}}]
`)...), err
	}
	f := startWith(t, source, localHooks)
	f.submit(t, "acme", "wallet", "a", "open", map[string]any{"owner": "x"})
	wait(t, "no dead letter", func() bool {
		res, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
		return err == nil && len(res.GetLetters()) == 1 &&
			strings.Contains(res.GetLetters()[0].GetCause(), "workflow badwhen")
	})
	wait(t, "the webhook is not scheduled again", func() bool { return f.retries(t, "acme") == 1 })
}

// A step is retried across restarts until its retries are exhausted; then the instance is a dead letter, which can be
// replayed.
func TestRetries_ExhaustedStepIsDeadLetter(t *testing.T) {
	var (
		mu   sync.Mutex
		keys = map[string]int{}
		code = http.StatusInternalServerError
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		keys[r.Header.Get("Idempotency-Key")]++
		w.WriteHeader(code)
	}))
	defer server.Close()
	f := startWith(
		t,
		withSteps(
			t,
			debit+
				fmt.Sprintf(
					"      - {name: tell, retry: {for: 1d, attempts: 4}, webhook: {url: \"'%s'\", body: {to: "+
						"event.to}}}\n",
					server.URL,
				)+complete,
		),
		localHooks,
	)
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 100)
	wait(t, "the retry is not scheduled", func() bool { return f.retries(t, "acme") == 1 })
	f.stop()
	f.run(t)
	var letters []*adminv1.DeadLetter
	wait(t, "no dead letter", func() bool {
		res, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
		letters = res.GetLetters()
		return err == nil && len(letters) > 0
	})
	mu.Lock()
	if len(keys) != 1 || len(letters) != 1 || !strings.Contains(letters[0].GetCause(), "500") {
		t.Errorf("calls by key: %v; letters: %v", keys, letters)
	}
	for _, n := range keys {
		if n != 4 {
			t.Errorf("the receiver was called %d times, want the 4 attempts of the step", n)
		}
	}
	code = http.StatusOK
	mu.Unlock()
	stuck, err := f.admin.GetWorkflow(as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "t"})
	if err != nil {
		t.Fatal(err)
	}
	if latest := stuck.GetAttempts().GetLatest(); len(latest) == 0 || len(latest) > 4 {
		t.Errorf("the latest attempts are %v", latest)
	}
	for _, one := range stuck.GetAttempts().GetLatest() {
		if one.GetStarted().AsTime().After(one.GetEnded().AsTime()) || !strings.Contains(one.GetError(), "500") {
			t.Errorf("an attempt is %v", one)
		}
	}
	if res, err := f.admin.ReplayDeadLetters(as(t, "acme"), &adminv1.ReplayDeadLettersRequest{}); err != nil ||
		res.GetReplayed() != 1 {
		t.Fatalf("%v, %v", res, err)
	}
	got := f.ended(t, "acme", "t")
	if steps(got) != "debit done, tell done, complete done" || f.balance(t, "acme", "a") != 900 {
		t.Errorf("%s, balance of a is %v", steps(got), f.balance(t, "acme", "a"))
	}
	for _, done := range got.GetSteps() {
		if done.GetStarted() == nil || done.GetStarted().AsTime().After(done.GetTime().AsTime()) {
			t.Errorf("the times of a step are %v", done)
		}
	}
}

// Attempts are counted per step: failures of another step, or of the trigger, do not count.
func TestRetries_AttemptsAreCountedPerStep(t *testing.T) {
	var calls atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	f := startWith(
		t,
		withSteps(
			t,
			debit+
				fmt.Sprintf(
					"      - {name: tell, retry: {attempts: 2}, webhook: {url: \"'%s'\", body: {to: event.to}}}\n",
					server.URL,
				)+complete,
		),
		localHooks,
	)
	f.wallets(t, "acme")
	var failed atomic.Bool
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":debit") && !failed.Swap(true) {
			return connect.NewError(connect.CodeUnavailable, "not now")
		}
		return nil
	})
	f.transfer(t, "acme", "t", "b", 100)
	if got := f.ended(t, "acme", "t"); steps(got) != "debit done, tell done, complete done" || calls.Load() != 2 {
		t.Errorf("%s after %d calls", steps(got), calls.Load())
	}
}

// A workflow that starts itself is stopped with a dead letter that gives the reason.
func TestDepth_BoundsWorkflowThatStartsItself(t *testing.T) {
	source := func(ctx context.Context) (string, []byte, error) {
		name, text, err := model.Wallet(ctx)
		return name, append(text, []byte(`
  interest:
    on: wallet.deposited
    when: event.amount < 1000
    steps: [{name: pay, submit: {aggregate: wallet, id: meta.aggregate_id, command: deposit, payload: {amount: "1"}}}]
`)...), err
	}
	f := startOn(t, natstest.Start(t), source, webhook.Config{}, []string{"acme"}, func(*fixture) {})
	f.config.MaxDepth = 5
	f.run(t)
	f.submit(t, "acme", "wallet", "a", "open", map[string]any{"owner": "x"})
	f.submit(t, "acme", "wallet", "a", "deposit", map[string]any{"amount": 10})
	var letters []*adminv1.DeadLetter
	wait(t, "no dead letter", func() bool {
		res, err := f.admin.ListDeadLetters(as(t, "acme"), &adminv1.ListDeadLettersRequest{})
		letters = res.GetLetters()
		return err == nil && len(letters) > 0
	})
	if balance := f.balance(t, "acme", "a"); balance != 15 || len(letters) != 1 ||
		!strings.Contains(letters[0].GetCause(), `caused by a chain of 5 workflows, and does not start "interest"`) {
		t.Errorf("balance %v; letters %v; want five workflows and one letter", balance, letters)
	}
	if res, err := f.admin.ReplayDeadLetters(as(t, "acme"), &adminv1.ReplayDeadLettersRequest{}); err != nil ||
		res.GetReplayed() != 0 {
		t.Errorf("replay: %v, %v", res, err)
	}
	if balance := f.balance(t, "acme", "a"); balance != 15 {
		t.Errorf("balance after the replay: %v", balance)
	}
}
