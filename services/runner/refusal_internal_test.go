package runner

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
)

// Only an answer that no other model and no later time can change ends a step.
func TestRefusals_OthersAreRetried(t *testing.T) {
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{models: models}
	mismatch := func() error {
		return connect.NewError(connect.CodeInvalidArgument, "mismatch").
			WithDetail(&connect.ErrorDetail{Type: badRequest})
	}
	fits := &request{Aggregate: "wallet", Command: "open", Payload: model.Object{"owner": "ada"}}
	for name, c := range map[string]struct {
		request *request
		answer  error
		refused bool
		unknown bool // an operator must find out whether the command has taken effect
	}{
		"a failed connection":       {fits, errors.New("reset"), false, false},
		"a node with another model": {fits, connect.NewError(connect.CodeNotFound, "no command"), false, false},
		"an unavailable node":       {fits, connect.NewError(connect.CodeUnavailable, "down"), false, false},
		"a concurrent change":       {fits, connect.NewError(connect.CodeAborted, "changed"), false, false},
		"a missing right": {
			fits, connect.NewError(connect.CodePermissionDenied, "right"), false, false,
		},
		"a rule": {
			fits, connect.NewError(connect.CodeFailedPrecondition, "closed"), true, false,
		},
		"a number out of range":           {fits, connect.NewError(connect.CodeOutOfRange, "range"), true, false},
		"the key of another command":      {fits, connect.NewError(connect.CodeAlreadyExists, "used"), false, true},
		"an invalid argument":             {fits, connect.NewError(connect.CodeInvalidArgument, "large"), true, false},
		"a payload of this model":         {fits, mismatch(), false, false},
		"a command without this model":    {&request{Aggregate: "wallet", Command: "close"}, mismatch(), false, false},
		"an aggregate without this model": {&request{Aggregate: "account", Command: "open"}, mismatch(), false, false},
		"a payload of no model": {
			&request{Aggregate: "wallet", Command: "open", Payload: model.Object{"owner": int64(1)}},
			mismatch(), true, false,
		},
	} {
		got := e.refusal(c.request, c.answer)
		_, refused := errors.AsType[*refusedError](got)
		_, unknown := errors.AsType[*undrivableError](got)
		if got == nil || refused != c.refused || unknown != c.unknown {
			t.Errorf("%s: %v, want refused %v, unknown %v", name, got, c.refused, c.unknown)
		}
		if !refused && !unknown && !errors.Is(got, c.answer) {
			t.Errorf("%s: %v, want the answer", name, got)
		}
	}
	if err := e.refusal(fits, nil); err != nil {
		t.Errorf("a command that has taken effect: %v", err)
	}
}

// A tenant's scheduled retries are counted between two counts of the stream, and bounded.
func TestBounds_ScheduledRetriesOfATenant(t *testing.T) {
	p := &postponed{at: time.Now(), count: maxPostponed - 1, held: new(atomic.Int64)}
	tenant := natstest.Tenant(t, "acme")
	if err := p.admit(t.Context(), nil, tenant); err != nil {
		t.Fatalf("the last within the bound: %v", err)
	}
	if err := p.admit(t.Context(), nil, tenant); !errors.Is(err, errManyPostponed) || p.held.Load() != 1 {
		t.Fatalf("beyond the bound: %v, %d attempts were held", err, p.held.Load())
	}
	e := &engine{postponed: p} // without a store: nothing is stored beyond the bound
	i := &instance{tenant: tenant}
	if err := e.postpone(t.Context(), i, &stepError{name: "a", err: errors.New("500")}, 0); !errors.Is(
		err, errManyPostponed,
	) {
		t.Errorf("an instance beyond the bound: %v", err)
	}
}

// A step whose command or webhook the model cannot build is refused, since a retry would fail too; a request is the
// same in every attempt.
func TestRequest_UnbuildableStepIsRefused(t *testing.T) {
	m, err := model.Parse("m", []byte("model: m\naggregates: {a: {commands: {x: {emit: [{event: e}]}}, "+
		"evolve: {e: {}}}}\nworkflows: {w: {on: a.e, steps: [{name: s, submit: {aggregate: a, "+
		"id: \"string(10 / event.by)\", command: x}}, {name: h, webhook: {url: \"'http://127.0.0.1/'\", "+
		"body: {n: \"10 / event.by\"}}}]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	e := &engine{}
	for _, step := range m.Workflows()[0].Steps {
		by := func(n int64) *instance {
			return &instance{Workflow: "w", ID: "i", Trigger: model.Trigger{Data: model.Object{"by": n}}}
		}
		if _, err := e.build(t.Context(), by(0), step.Name, step); err == nil {
			t.Errorf("%s: a request that the model cannot build", step.Name)
		} else if _, refused := errors.AsType[*refusedError](err); !refused {
			t.Errorf("%s: %v, want a refusal", step.Name, err)
		}
		first, err := e.build(t.Context(), by(5), step.Name, step)
		if err != nil {
			t.Fatal(err)
		}
		again, err := e.build(t.Context(), by(5), step.Name, step)
		other, failed := e.build(t.Context(), by(2), step.Name, step)
		if err != nil || failed != nil || string(first.digest()) != string(again.digest()) || first.Key != again.Key ||
			string(first.digest()) == string(other.digest()) {
			t.Errorf("%s: %+v, then %+v, and %+v for another event", step.Name, first, again, other)
		}
	}
}
