package runner_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/gen/runner/admin/v1/adminv1connect"
	"github.com/headgate/headgate/internal/lease"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
	"github.com/headgate/headgate/services/runner"
	"github.com/headgate/headgate/services/runner/webhook"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// gate sends commands to the real aggregate service and lets a test hold or fail them.
type gate struct {
	next   gatewayv1connect.CommandServiceClient
	mu     sync.Mutex
	before func(ctx context.Context, req *aggregatev1.SubmitRequest) error
}

func (g *gate) Submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error) {
	g.mu.Lock()
	before := g.before
	g.mu.Unlock()
	if before != nil {
		if err := before(ctx, req); err != nil {
			return nil, err
		}
	}
	return g.next.Submit(ctx, req)
}

func (g *gate) set(before func(ctx context.Context, req *aggregatev1.SubmitRequest) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before = before
}

// fixture is a runner node with the real services that it uses.
type fixture struct {
	js     jetstream.JetStream
	served []string
	gate   *gate
	source model.Source
	hooks  webhook.Config
	config runner.Config
	admin  adminv1connect.RunnerAdminClient
	node   *runner.Service
	models *model.Registry
	stop   func()
	// nodeID is the runner's node, and lost the time without a heartbeat after which other runners consider it dead;
	// the zero values are for tests with one runner.
	nodeID string
	lost   time.Duration
	// text is the model of fromText.
	text *string
	// before is called with the runner before it runs.
	before func(*runner.Service)
	// log receives the runner's log; the zero value discards it.
	log zerolog.Logger
}

// fromText is a source with the fixture's text, which a test may change.
func (f *fixture) fromText(context.Context) (string, []byte, error) {
	return "text", []byte(*f.text), nil
}

func registry(t *testing.T, source model.Source) *model.Registry {
	t.Helper()
	models, err := model.Open(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	return models
}

func start(t *testing.T) *fixture { return startWith(t, model.Wallet, webhook.Config{}) }

// startWith is start with a model, a configuration of webhooks, and further tenants.
func startWith(t *testing.T, source model.Source, hooks webhook.Config, further ...string) *fixture {
	t.Helper()
	return startOn(t, natstest.Start(t), source, hooks, append([]string{"acme", "globex"}, further...))
}

// asRunner states the rights of the runner's credential, as a gateway does.
func asRunner(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		info, _ := connect.CallInfoForClientContext(ctx)
		info.RequestHeader().Set(contextkit.HeaderRights, contextkit.EncodeRights("command.internal"))
		return next(ctx, spec)
	}
}

// startOn is startWith over a JetStream, for the given tenants. If prepare is given, it is called instead of starting
// a runner.
func startOn(
	t *testing.T, js jetstream.JetStream, source model.Source, hooks webhook.Config, served []string,
	prepare ...func(*fixture),
) *fixture {
	t.Helper()
	tenants, err := rpc.ParseTenants(served)
	if err != nil {
		t.Fatal(err)
	}
	service, err := aggregate.New(t.Context(), aggregate.Config{}, js, registry(t, source), tenants, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := connect.NewServer(contextkit.ServerInterceptor)
	service.Register(server)
	f := &fixture{
		source: source,
		hooks:  hooks,
		served: served,
		js:     js,
		gate: &gate{
			next: gatewayv1connect.NewCommandServiceClient(
				contextkit.NewClient(connectinprocess.New(server), asRunner),
			),
		},
	}
	for _, f2 := range prepare {
		f2(f)
		return f
	}
	f.run(t)
	return f
}

// run starts a runner node, as after a restart.
func (f *fixture) run(t *testing.T) {
	t.Helper()
	tenants, err := rpc.ParseTenants(f.served)
	if err != nil {
		t.Fatal(err)
	}
	f.models = registry(t, f.source)
	f.config.Node, f.config.Lease = f.nodeID, lease.Config{Lost: f.lost, Every: f.lost / 10}
	if f.node, err = runner.New(
		t.Context(), f.config, f.js, f.models, tenants, f.gate, f.hooks, nil, f.log,
	); err != nil {
		t.Fatal(err)
	}
	if f.before != nil {
		f.before(f.node)
	}
	server := connect.NewServer(contextkit.ServerInterceptor)
	f.node.Register(server)
	f.admin = adminv1connect.NewRunnerAdminClient(contextkit.NewClient(connectinprocess.New(server)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.node.Run(ctx) }()
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	stop := f.stop
	t.Cleanup(func() {
		f.gate.set(nil) // release calls that a test holds
		stop()
	})
}

func as(t *testing.T, tenant string) context.Context {
	return contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant))
}

func platform(t *testing.T) context.Context { return contextkit.PlatformContext(t.Context()) }

func (f *fixture) submit(t *testing.T, tenant, aggregateType, id, command string, payload map[string]any) {
	t.Helper()
	object, err := structpb.NewStruct(payload)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.gate.next.Submit(as(t, tenant), &aggregatev1.SubmitRequest{
		AggregateType: aggregateType,
		AggregateId:   id,
		Command:       command,
		Payload:       object,
	}); err != nil {
		t.Fatalf("%s %s: %v", command, id, err)
	}
}

// wallets opens a and b, a with a balance of 1000.
func (f *fixture) wallets(t *testing.T, tenant string) {
	f.submit(t, tenant, "wallet", "a", "open", map[string]any{"owner": "ada"})
	f.submit(t, tenant, "wallet", "b", "open", map[string]any{"owner": "bob"})
	f.submit(t, tenant, "wallet", "a", "deposit", map[string]any{"amount": 1000})
}

func (f *fixture) transfer(t *testing.T, tenant, id, to string, amount int) {
	t.Helper()
	f.submit(t, tenant, "transfer", id, "request", map[string]any{"from": "a", "to": to, "amount": amount})
}

func (f *fixture) balance(t *testing.T, tenant, wallet string) float64 {
	t.Helper()
	res, err := f.gate.next.GetAggregate(as(t, tenant),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: wallet})
	if err != nil {
		t.Fatal(err)
	}
	return res.GetState().AsMap()["balance"].(float64)
}

// ended waits until an instance has ended and returns it.
func (f *fixture) ended(t *testing.T, tenant, id string) *adminv1.GetWorkflowResponse {
	t.Helper()
	var last *adminv1.GetWorkflowResponse
	wait(t, "workflow "+id+" does not end", func() bool {
		res, err := f.admin.GetWorkflow(as(t, tenant),
			&adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: id})
		if err != nil && connect.CodeOf(err) != connect.CodeNotFound {
			t.Fatal(err)
		}
		last = res
		return res.GetState() > adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATING
	})
	return last
}

// wait polls a condition until it holds.
func wait(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatal(what)
		case <-tick.C:
		}
	}
}

func steps(res *adminv1.GetWorkflowResponse) string {
	var list []string
	for _, s := range res.GetSteps() {
		list = append(list, s.GetName()+" "+s.GetOutcome())
	}
	return strings.Join(list, ", ")
}

func TestWorkflow_CompletesOrIsCompensated(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.transfer(t, "acme", "good", "b", 300)
	f.transfer(t, "acme", "nowhere", "missing", 100)
	f.transfer(t, "acme", "poor", "b", 5000)
	cases := map[string]struct {
		state adminv1.WorkflowState
		steps string
	}{
		"good": {adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED, "debit done, credit done, complete done"},
		"nowhere": {
			adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED, "debit done, credit refused, undo debit done, fail done",
		},
		"poor": {adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED, "debit refused, fail done"},
	}
	for id, want := range cases {
		if got := f.ended(t, "acme", id); got.GetState() != want.state || steps(got) != want.steps {
			t.Errorf("%s: %v with %s; want %v with %s", id, got.GetState(), steps(got), want.state, want.steps)
		}
	}
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 700 || b != 300 {
		t.Errorf("balances %v and %v, want 700 and 300", a, b)
	}
	if _, err := f.admin.GetWorkflow(
		as(t, "globex"), &adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "good"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("instance of another tenant: %v", err)
	}
}

func TestCommand_CarriesContextOfTrigger(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var (
		mu   sync.Mutex
		seen []contextkit.RequestContext
	)
	f.gate.set(func(ctx context.Context, _ *aggregatev1.SubmitRequest) error {
		rc, _ := contextkit.FromContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, rc)
		return nil
	})
	trigger := contextkit.RequestContext{
		TenantID:      natstest.Tenant(t, "acme"),
		CorrelationID: "corr-1",
		RequestID:     "req-1",
		Traceparent:   contextkit.NewTraceparent(),
	}
	payload, err := structpb.NewStruct(map[string]any{"from": "a", "to": "b", "amount": 1})
	if err != nil {
		t.Fatal(err)
	}
	res, err := f.gate.next.Submit(contextkit.NewContext(t.Context(), trigger), &aggregatev1.SubmitRequest{
		AggregateType: "transfer",
		AggregateId:   "t",
		Command:       "request",
		Payload:       payload,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.ended(t, "acme", "t")
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 3 {
		t.Fatalf("%d commands, want three", len(seen))
	}
	for _, rc := range seen {
		if rc.TenantID.String() != "acme" || rc.CorrelationID != "corr-1" ||
			rc.CausationID != res.GetEvents()[0].GetId() ||
			rc.Traceparent.TraceID != trigger.Traceparent.TraceID || rc.RequestID == "req-1" || rc.RequestID == "" {
			t.Errorf(
				"context of a command: %+v; want the trigger's correlation and trace, its event as the causation, "+
					"and a new "+
					"request id",
				rc,
			)
		}
	}
}

func TestStep_TransientFailureIsRetried(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var mu sync.Mutex
	failures := map[string]int{}
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		mu.Lock()
		defer mu.Unlock()
		if failures[req.GetCommand()]++; req.GetCommand() != "complete" && failures[req.GetCommand()] <= 1 {
			return connect.NewError(connect.CodeUnavailable, "for a moment")
		}
		return nil
	})
	f.transfer(t, "acme", "t", "b", 300)
	if got := f.ended(t, "acme", "t"); steps(got) != "debit done, credit done, complete done" {
		t.Fatalf("steps: %s", steps(got))
	}
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 700 || b != 300 {
		t.Errorf("balances %v and %v, want 700 and 300", a, b)
	}
}

func TestStep_LostResponseHasOneEffect(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	var once sync.Once
	f.gate.set(func(ctx context.Context, req *aggregatev1.SubmitRequest) error {
		var lost error
		once.Do(func() {
			// The command takes effect, but the runner does not receive the response.
			_, err := f.gate.next.Submit(ctx, req)
			lost = errors.Join(connect.NewError(connect.CodeUnavailable, "the answer is lost"), err)
		})
		return lost
	})
	f.transfer(t, "acme", "t", "b", 300)
	f.ended(t, "acme", "t")
	if a, b := f.balance(t, "acme", "a"), f.balance(t, "acme", "b"); a != 700 || b != 300 {
		t.Errorf("balances %v and %v, want 700 and 300", a, b)
	}
}

func TestDrain_FinishesWorkInFlightAndStartsNone(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.gate.set(func(ctx context.Context, _ *aggregatev1.SubmitRequest) error {
		once.Do(func() { close(held) })
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	f.transfer(t, "acme", "in-flight", "b", 100)
	natstest.Await(t, held, "a command is held")

	short, cancel := context.WithTimeout(platform(t), 300*time.Millisecond)
	defer cancel()
	res, err := f.admin.Drain(short, &adminv1.DrainRequest{})
	if err != nil || res.GetStatus().GetState() != adminv1.NodeState_NODE_STATE_DRAINING ||
		res.GetStatus().GetInFlight() != 1 {
		t.Fatalf("at the deadline with work in flight: %v, %v; want draining with 1 in flight", res, err)
	}
	if f.node.Ready(t.Context(), contextkit.TenantID{}) == nil {
		t.Error("a draining node reports ready")
	}
	f.transfer(t, "acme", "later", "b", 100)
	close(release)
	f.ended(t, "acme", "in-flight")
	for range 2 { // asking twice does no more than asking once
		if res, err = f.admin.Drain(platform(t), &adminv1.DrainRequest{}); err != nil ||
			res.GetStatus().GetState() != adminv1.NodeState_NODE_STATE_DRAINED || res.GetStatus().GetInFlight() != 0 {
			t.Fatalf("drained: %v, %v", res, err)
		}
	}
	if _, err := f.admin.GetWorkflow(
		as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "later"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatalf("a drained node started work: %v", err)
	}
	for range 2 {
		if resumed, err := f.admin.Resume(platform(t), &adminv1.ResumeRequest{}); err != nil ||
			resumed.GetStatus().GetState() != adminv1.NodeState_NODE_STATE_RUNNING {
			t.Fatalf("resumed: %v, %v", resumed, err)
		}
	}
	f.ended(t, "acme", "later")
	if err := f.node.Ready(t.Context(), contextkit.TenantID{}); err != nil {
		t.Errorf("after resume: %v", err)
	}
}

func TestDrain_HandsBackQueuedWork(t *testing.T) {
	// Each tenant may have 16 running, and the node 64.
	f := startWith(t, model.Wallet, webhook.Config{}, "hooli", "initech", "umbrella")
	var began atomic.Int64
	release := make(chan struct{})
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":debit") {
			began.Add(1)
			<-release
		}
		return nil
	})
	for _, tenant := range f.served {
		f.wallets(t, tenant)
		for n := range 16 {
			f.transfer(t, tenant, fmt.Sprintf("t%d", n), "b", 1)
		}
	}
	wait(t, "the node's concurrency limit is not reached", func() bool { return began.Load() == 64 })
	drained := make(chan error, 1)
	go func() {
		_, err := f.admin.Drain(platform(t), &adminv1.DrainRequest{})
		drained <- err
	}()
	wait(t, "the node does not drain", func() bool { return f.node.Ready(t.Context(), contextkit.TenantID{}) != nil })
	close(release)
	if err := natstest.Await(t, drained, "the node drains"); err != nil {
		t.Fatal(err)
	}
	if n := began.Load(); n != 64 {
		t.Errorf("%d transfers started, want the 64 of the first round", n)
	}
	if _, err := f.admin.Resume(platform(t), &adminv1.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
	for _, tenant := range f.served {
		for n := range 16 {
			f.ended(t, tenant, fmt.Sprintf("t%d", n))
		}
		if balance := f.balance(t, tenant, "b"); balance != 16 {
			t.Errorf("%s: %v of 16 moved", tenant, balance)
		}
	}
}

func TestPauseTenant_SurvivesRestartAndAffectsOnlyTenant(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.wallets(t, "globex")
	for range 2 {
		if res, err := f.admin.PauseTenant(as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "acme"}); err != nil ||
			!res.GetTenant().GetPaused() {
			t.Fatalf("%v, %v", res, err)
		}
	}
	if _, err := f.admin.PauseTenant(
		as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "globex"},
	); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Fatalf("pause of a tenant other than the call's: %v", err)
	}
	wait(t, "the pause does not take effect", func() bool {
		status, err := f.admin.Status(platform(t), &adminv1.StatusRequest{})
		return err == nil && status.GetStatus().GetTenants()[0].GetPaused() &&
			f.node.Ready(t.Context(), natstest.Tenant(t, "acme")) != nil
	})
	f.stop()
	f.transfer(t, "acme", "t", "b", 100)
	f.transfer(t, "globex", "t", "b", 100)
	f.run(t)
	f.ended(t, "globex", "t")
	status, err := f.admin.Status(platform(t), &adminv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range status.GetStatus().GetTenants() {
		if paused := tenant.GetTenantId() == "acme"; tenant.GetPaused() != paused ||
			(tenant.GetPending() == 1) != paused {
			t.Errorf("got %v, want acme paused with one event waiting, and globex neither", tenant)
		}
	}
	if _, err := f.admin.GetWorkflow(
		as(t, "acme"), &adminv1.GetWorkflowRequest{Workflow: "transfer", InstanceId: "t"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatalf("work of a paused tenant started: %v", err)
	}
	for range 2 {
		if res, err := f.admin.ResumeTenant(
			as(t, "acme"), &adminv1.ResumeTenantRequest{TenantId: "acme"},
		); err != nil || res.GetTenant().GetPaused() {
			t.Fatalf("%v, %v", res, err)
		}
	}
	f.ended(t, "acme", "t")
}

func TestPauseTenant_ReachesEveryRunner(t *testing.T) {
	one := start(t)
	two := &fixture{
		served: one.served,
		js:     one.js,
		gate:   one.gate,
		source: one.source,
	}
	two.run(t)
	for _, paused := range []bool{true, false, true, false} {
		var err error
		if paused {
			_, err = one.admin.PauseTenant(as(t, "acme"), &adminv1.PauseTenantRequest{TenantId: "acme"})
		} else {
			_, err = one.admin.ResumeTenant(as(t, "acme"), &adminv1.ResumeTenantRequest{TenantId: "acme"})
		}
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "the other runner receives the pause", func() bool {
			status, err := two.admin.Status(platform(t), &adminv1.StatusRequest{})
			return err == nil && status.GetStatus().GetTenants()[0].GetPaused() == paused
		})
	}
}

func TestWorkflow_FailedCompensationIsDeadLetter(t *testing.T) {
	f := start(t)
	f.wallets(t, "acme")
	f.gate.set(func(_ context.Context, req *aggregatev1.SubmitRequest) error {
		if strings.HasSuffix(req.GetIdempotencyKey(), ":undo-debit") {
			return connect.NewError(connect.CodeFailedPrecondition, "the wallet is frozen")
		}
		return nil
	})
	f.transfer(t, "acme", "t", "missing", 100)
	got := f.ended(t, "acme", "t")
	if got.GetState() != adminv1.WorkflowState_WORKFLOW_STATE_FAILED ||
		steps(got) != "debit done, credit refused, undo debit refused, fail done" {
		t.Fatalf("%v with %s", got.GetState(), steps(got))
	}
	stream, err := f.js.Stream(t.Context(), streams.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "no dead letter is stored", func() bool {
		letter, err := stream.GetLastMsgForSubject(t.Context(), streams.DeadLetterSubject(natstest.Tenant(t, "acme")))
		return err == nil && strings.Contains(fmt.Sprint(letter.Header), "could not be compensated") &&
			strings.Contains(string(letter.Data), "missing") &&
			letter.Header.Get(
				"tenant-id",
			) == "acme" && letter.Header.Get("x-correlation-id") != "" && len(letter.Header.Get("traceparent")) == 55
	})
}
