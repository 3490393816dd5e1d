package runner_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/streams"
)

// inState waits until an instance of the workflow transfer is in a state, and returns it.
func (f *fixture) inState(t *testing.T, id string, want adminv1.WorkflowState) *adminv1.GetWorkflowResponse {
	t.Helper()
	var last *adminv1.GetWorkflowResponse
	wait(t, fmt.Sprintf("instance %s: want status %v", id, want), func() bool {
		res, err := f.admin.GetWorkflow(as(t, "acme"),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: id})
		last = res
		return err == nil && res.GetState() == want
	})
	return last
}

func TestOperations_RetrySkipCancelOrCompensateStuckInstances(t *testing.T) {
	var healthy atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !healthy.Load() || strings.HasPrefix(r.URL.Path, "/never") {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	hook := fmt.Sprintf(
		"      - {name: tell, retry: {attempts: 1}, webhook: {url: \"'%s/' + event.to\", body: {to: event.to}}}\n",
		server.URL,
	)
	f := startWith(t, withSteps(t, debit+hook+complete), localHooks)
	f.wallets(t, "acme")
	names := []string{"retried", "skipped", "cancelled", "undone", "discarded"}
	for _, id := range names {
		f.transfer(t, "acme", id, "b", 10)
		f.inState(t, id, adminv1.WorkflowState_WORKFLOW_STATE_STUCK)
	}
	wait(t, "each instance has a dead letter", func() bool { return len(f.letters(t)) == len(names) })
	for _, letter := range f.letters(t) {
		if letter.GetWorkflow() != "transfer" || letter.GetInstanceId() == "" ||
			!strings.Contains(letter.GetCause(), "503") {
			t.Errorf("letter without its instance or cause: %v", letter)
		}
	}

	// Only the failed step can be skipped, and only a failed instance can be retried.
	if _, err := f.admin.SkipStep(as(t, "acme"), &adminv1.SkipStepRequest{
		Workflow:   "transfer",
		InstanceId: "skipped",
		Step:       "complete",
		Reason:     "r",
	}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("skip of a later step: %v", err)
	}
	if _, err := f.admin.CancelWorkflow(
		as(t, "globex"), &adminv1.CancelWorkflowRequest{Workflow: "transfer", InstanceId: "cancelled", Reason: "r"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("instance of another tenant: %v", err)
	}

	if _, err := f.admin.CancelWorkflow(
		as(t, "acme"),
		&adminv1.CancelWorkflowRequest{Workflow: "transfer", InstanceId: "cancelled", Reason: "a mistake"},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.SkipStep(as(t, "acme"), &adminv1.SkipStepRequest{
		Workflow:   "transfer",
		InstanceId: "skipped",
		Step:       "tell",
		Reason:     "settled by phone",
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.admin.CompensateWorkflow(
		as(t, "acme"),
		&adminv1.CompensateWorkflowRequest{Workflow: "transfer", InstanceId: "undone", Reason: "the customer left"},
	); err != nil {
		t.Fatal(err)
	}
	var discard []int64
	for _, letter := range f.letters(t) {
		if letter.GetAggregateId() == "discarded" {
			discard = append(discard, letter.GetId())
		}
	}
	if res, err := f.admin.DiscardDeadLetters(
		as(t, "acme"), &adminv1.DiscardDeadLettersRequest{Ids: discard, Reason: "of no use"},
	); err != nil || res.GetDiscarded() != 1 {
		t.Fatalf("%v, %v", res, err)
	}
	healthy.Store(true)
	if _, err := f.admin.RetryWorkflow(
		as(t, "acme"),
		&adminv1.RetryWorkflowRequest{Workflow: "transfer", InstanceId: "retried", Reason: "the receiver works again"},
	); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		state adminv1.WorkflowState
		steps string
	}{
		"retried":   {adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED, "debit done, tell done, complete done"},
		"skipped":   {adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED, "debit done, tell skipped, complete done"},
		"cancelled": {adminv1.WorkflowState_WORKFLOW_STATE_CANCELLED, "debit done"},
		"undone":    {adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED, "debit done, undo debit done"},
		"discarded": {adminv1.WorkflowState_WORKFLOW_STATE_CANCELLED, "debit done"},
	} {
		if got := f.inState(t, id, want.state); steps(got) != want.steps {
			t.Errorf("%s: %s, want %s", id, steps(got), want.steps)
		}
	}
	if got := f.balance(t, "acme", "a"); got != 960 {
		t.Errorf("balance of a is %v, want 960: four debits, one compensated", got)
	}
	if left := f.letters(t); len(left) != 0 {
		t.Errorf("letters of resolved instances remain: %v", left)
	}
	f.repeatOperations(t)
}

// repeatOperations: a repeated operation succeeds without a further effect, also once the instance has ended; another
// operation on it is rejected.
func (f *fixture) repeatOperations(t *testing.T) {
	t.Helper()
	operate := func(operation, id string) (adminv1.WorkflowState, error) {
		switch operation {
		case "retry":
			res, err := f.admin.RetryWorkflow(as(t, "acme"),
				&adminv1.RetryWorkflowRequest{Workflow: "transfer", InstanceId: id, Reason: "r"})
			return res.GetState(), err
		case "skip":
			res, err := f.admin.SkipStep(as(t, "acme"),
				&adminv1.SkipStepRequest{
					Workflow:   "transfer",
					InstanceId: id,
					Step:       "tell",
					Reason:     "r",
				})
			return res.GetState(), err
		case "cancel":
			res, err := f.admin.CancelWorkflow(as(t, "acme"),
				&adminv1.CancelWorkflowRequest{Workflow: "transfer", InstanceId: id, Reason: "r"})
			return res.GetState(), err
		default:
			res, err := f.admin.CompensateWorkflow(as(t, "acme"),
				&adminv1.CompensateWorkflowRequest{Workflow: "transfer", InstanceId: id, Reason: "r"})
			return res.GetState(), err
		}
	}
	for id, repeated := range map[string]struct {
		operation string
		state     adminv1.WorkflowState
	}{
		"retried":   {"retry", adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED},
		"skipped":   {"skip", adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED},
		"cancelled": {"cancel", adminv1.WorkflowState_WORKFLOW_STATE_CANCELLED},
		"undone":    {"compensate", adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED},
	} {
		before := steps(f.inState(t, id, repeated.state))
		for _, operation := range []string{"retry", "skip", "cancel", "compensate"} {
			state, err := operate(operation, id)
			if done := operation == repeated.operation ||
				operation == "retry"; done && (err != nil || state != repeated.state) {
				t.Errorf("repeated %s of %s: %v, %v", operation, id, state, err)
			} else if !done && connect.CodeOf(err) != connect.CodeFailedPrecondition {
				t.Errorf("%s of the completed %s: %v", operation, id, err)
			}
		}
		if after := steps(f.inState(t, id, repeated.state)); after != before {
			t.Errorf("steps of %s: got %s, want %s", id, after, before)
		}
	}
}

// An operator's retry is an immediate attempt: it does not wait for the receiver's breaker, which other instances
// have opened. If it fails again there is a new letter, however soon.
func TestOperations_RetryBypassesOpenBreaker(t *testing.T) {
	var healthy atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	f := startWith(
		t,
		withSteps(
			t,
			debit+
				fmt.Sprintf(
					"      - {name: tell, retry: {attempts: 1}, webhook: {url: \"'%s'\", body: {to: event.to}}}\n",
					server.URL,
				)+complete,
		),
		localHooks,
	)
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 10)
	f.transfer(t, "acme", "replayed", "b", 10)
	retry := func() {
		t.Helper()
		if _, err := f.admin.RetryWorkflow(
			as(t, "acme"),
			&adminv1.RetryWorkflowRequest{
				Workflow:   "transfer",
				InstanceId: "t",
				Reason:     "the receiver should work again",
			},
		); err != nil {
			t.Fatal(err)
		}
	}
	letters := func() (of []int64) {
		for _, letter := range f.letters(t) {
			if letter.GetAggregateId() == "t" {
				of = append(of, letter.GetId())
			}
		}
		return of
	}
	wait(t, "the instances are not stuck", func() bool { return len(f.letters(t)) == 2 })
	for range 6 { // the breaker opens after five failures in a row
		before := letters()
		retry()
		wait(t, "no dead letter of the new failure", func() bool {
			now := letters()
			return len(now) == 1 && now[0] != before[0]
		})
	}
	healthy.Store(true)
	retry()
	f.inState(t, "t", adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED)
	if res, err := f.admin.ReplayDeadLetters(as(t, "acme"), &adminv1.ReplayDeadLettersRequest{}); err != nil ||
		res.GetReplayed() != 1 {
		t.Errorf("%v, %v", res, err)
	}
	if held := f.node.HeldCalls(); held != 0 {
		t.Errorf("%d calls requested by an operator were held by the breaker", held)
	}
}

// A wait can be skipped, and so can the refused compensation of a failed instance.
func TestOperations_SkipWaitsAndRefusedCompensations(t *testing.T) {
	missing := "      - {name: credit, submit: {aggregate: wallet, id: \"'missing'\", command: deposit, payload: " +
		"{amount: event.amount}}}\n"
	f := startWith(t, withSteps(t, debit+"      - {name: cool, wait: \"'24h'\"}\n"+missing), localHooks)
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit") {
			return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
		}
		return nil
	})
	f.wallets(t, "acme")
	f.transfer(t, "acme", "t", "b", 10)
	stream, err := f.js.Stream(t.Context(), streams.Work)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the instance does not wait", func() bool {
		got, err := f.admin.GetWorkflow(as(t, "acme"),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "t"})
		info, err2 := stream.Info(t.Context())
		return err == nil && err2 == nil && got.GetWaiting() != nil && info.State.Msgs == 1
	})
	if _, err := f.admin.SkipStep(as(t, "acme"), &adminv1.SkipStepRequest{
		Workflow:   "transfer",
		InstanceId: "t",
		Step:       "cool",
		Reason:     "urgent",
	}); err != nil {
		t.Fatal(err)
	}
	f.inState(t, "t", adminv1.WorkflowState_WORKFLOW_STATE_FAILED)
	wait(t, "no dead letter", func() bool { return len(f.letters(t)) == 1 })
	if _, err := f.admin.SkipStep(as(t, "acme"), &adminv1.SkipStepRequest{
		Workflow:   "transfer",
		InstanceId: "t",
		Step:       "undo debit",
		Reason:     "refunded by hand",
	}); err != nil {
		t.Fatal(err)
	}
	if got := f.inState(
		t, "t", adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED,
	); steps(got) != "debit done, cool skipped, credit refused, undo debit skipped" {
		t.Errorf("%s", steps(got))
	}
	wait(t, "work or letters remain", func() bool {
		info, err := stream.Info(t.Context())
		return err == nil && info.State.Msgs == 0 && len(f.letters(t)) == 0
	})
}

// A letter that fails again does not prevent the replay of later ones.
func TestReplay_PoisonLetterDoesNotBlockOthers(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var frozen atomic.Bool
	frozen.Store(true)
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit") &&
			(frozen.Load() || req.GetPayload().AsMap()["amount"] == 1.0) {
			return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
		}
		return nil
	})
	for n := range 3 {
		f.transfer(t, "acme", fmt.Sprint("t", n), "missing", n+1)
		wait(t, "no dead letter", func() bool { return len(f.letters(t)) == n+1 })
	}
	first := f.letters(t)[0].GetId()
	frozen.Store(false)
	res, err := f.admin.ReplayDeadLetters(as(t, "acme"), &adminv1.ReplayDeadLettersRequest{Reason: "thawed"})
	if err != nil || res.GetReplayed() != 2 || res.GetFailedId() != first || len(res.GetFailures()) != 1 ||
		!strings.Contains(res.GetFailures()[0].GetFailure(), "could not be compensated") {
		t.Errorf("%v, %v: want two replayed after the failing first", res, err)
	}
	if left := f.letters(t); len(left) != 1 || left[0].GetId() != first {
		t.Errorf("remaining letters: %v", left)
	}
	if got := f.balance(t, "acme", "a"); got != 999 {
		t.Errorf("balance of a is %v", got)
	}
}
