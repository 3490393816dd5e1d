package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/limit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

// patient keeps breakers closed in tests of other subjects.
func patient(config *gateway.Config) { config.Breakers.Failures = 1000 }

func TestRetry_OnlySafeCallsAreRetried(t *testing.T) {
	everyUpstream(t, testRetries)
}

func testRetries(t *testing.T, start starter) {
	e := start(patient, nil)
	token := e.token(t, "acme", "query.read", "command.submit")
	commands := commandsconnect.NewCommandServiceClient(e.client("grpc"))
	submit := func(key string) error {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", token)
		_, err := commands.Submit(ctx, &aggregatev1.SubmitRequest{
			AggregateType:  "wallet",
			AggregateId:    "w",
			Command:        "open",
			IdempotencyKey: key,
		})
		return err
	}
	unavailable := func(times int) func(context.Context, int) error {
		return func(_ context.Context, call int) error {
			if call <= times {
				return connect.NewError(connect.CodeUnavailable, "in a moment")
			}
			return nil
		}
	}
	query := func() error {
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			return got.err
		}
		return nil
	}
	cases := []struct {
		name   string
		times  int
		call   func() error
		calls  int
		failed bool
	}{
		{"query, transient failure", 2, query, 3, false},
		{"query, permanent failure", 9, query, 3, true},
		{"command without a key", 1, func() error { return submit("") }, 1, true},
		{"command with a key", 1, func() error { return submit("key") }, 2, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			e.node.set(unavailable(tc.times))
			err := tc.call()
			if calls, _, _, _, _ := e.node.seen(); calls != tc.calls || (err != nil) != tc.failed {
				t.Fatalf("%d calls, err = %v; want %d, failed %v", calls, err, tc.calls, tc.failed)
			}
		})
	}
	t.Run("non-retryable error", func(t *testing.T) {
		e.node.set(func(context.Context, int) error { return connect.NewError(connect.CodeInternal, "broken") })
		err := query()
		if calls, _, _, _, _ := e.node.seen(); err == nil || calls != 1 {
			t.Fatalf("%d calls, err = %v", calls, err)
		}
	})
}

func TestDeadline_ReachesNodeAndEndsItsWork(t *testing.T) {
	t.Parallel()
	everyUpstream(t, testDeadlines)
}

func testDeadlines(t *testing.T, start starter) {
	e := start(nil, nil)
	token := e.token(t, "acme", "query.read")
	for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb"} {
		t.Run(protocol, func(t *testing.T) {
			ended := make(chan error, 1)
			e.node.set(func(ctx context.Context, _ int) error {
				<-ctx.Done()
				ended <- ctx.Err()
				return ctx.Err()
			})
			// On a busy machine a call may reach its deadline before it reaches the node: a longer one follows.
			timeout, calls := 250*time.Millisecond/4, 0
			for calls == 0 && timeout < 10*time.Second {
				timeout *= 4
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				ctx, info := connect.NewClientContext(ctx)
				info.RequestHeader().Set("Authorization", token)
				_, err := queriesconnect.NewQueryServiceClient(e.client(protocol)).Query(ctx,
					&projectionv1.QueryRequest{View: "wallets"})
				cancel()
				if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
					t.Fatalf("err = %v", err)
				}
				calls, _, _, _, _ = e.node.seen()
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Fatal("the node's call was not canceled")
			}
			if _, _, _, left, _ := e.node.seen(); left <= 0 || left > timeout-10*time.Millisecond {
				t.Errorf("the node's timeout is %v, want the client's %v minus the gateway's margin", left, timeout)
			}
		})
	}
}

func TestForward_LostNodeIsUnavailableWithoutItsAddress(t *testing.T) {
	e := start(t, nil)
	status, text := e.http(t, http.MethodGet, "/admin/runner/status", "", "Authorization",
		e.token(t, "*", "runner.admin"))
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "the upstream cannot be reached") ||
		strings.Contains(text, "127.0.0.1") {
		t.Fatalf("%d %s", status, text)
	}
}

func TestAdmission_CallsBeyondBoundAreRejectedImmediately(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.MaxConcurrent = 1 })
	token := e.token(t, "acme", "query.read")
	entered, release := make(chan struct{}), make(chan struct{})
	e.node.set(func(context.Context, int) error {
		close(entered)
		<-release
		return nil
	})
	first := make(chan result, 1)
	go func() {
		first <- e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}()
	<-entered
	if got := e.query(
		t, "connect+json", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
	); got.code != connect.CodeResourceExhausted {
		t.Errorf("over the limit: %v", got.err)
	}
	close(release)
	if got := <-first; got.err != nil {
		t.Errorf("within the limit: %v", got.err)
	}
}

func TestQuota_NoisyTenantDoesNotAffectOthers(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Concurrent: 1} })
	noisy, quiet := e.token(t, "acme", "query.read"), e.token(t, "globex", "query.read")
	entered, release := make(chan struct{}), make(chan struct{})
	e.node.set(func(_ context.Context, call int) error {
		if call == 1 {
			close(entered)
			<-release
		}
		return nil
	})
	first := make(chan result, 1)
	go func() {
		first <- e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", noisy)
	}()
	<-entered
	got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", noisy)
	if got.code != connect.CodeResourceExhausted || len(got.err.Details()) != 2 {
		t.Errorf("over the tenant's limit: %v", got.err)
	}
	if got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", quiet); got.err != nil {
		t.Errorf("call of another tenant: %v", got.err)
	}
	close(release)
	if got := <-first; got.err != nil {
		t.Errorf("within the limit: %v", got.err)
	}
}

func TestRejections_ImpatientClientIsDelayed(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Rate: 0.1, Burst: 1} })
	token := e.token(t, "acme", "query.read")
	if got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token); got.err != nil {
		t.Fatal(got.err)
	}
	for n := range 3 {
		if got := e.query(
			t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.code != connect.CodeResourceExhausted || len(got.err.Details()) != 2 {
			t.Errorf("rejection %d: %v", n, got.err)
		}
		if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
			text, fmt.Sprintf(`headgate_rejections_delayed_total{process="gateway"} %d`, n),
		) {
			t.Errorf("%d refusals are not held back of %d:\n%s", n, n+1, text)
		}
	}
}

func TestBreaker_SilentNodeIsNotCalled(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "workflow.read")
	text := ""
	for range 4 { // each is tried up to three times
		var status int
		if status, text = e.http(
			t, http.MethodGet, "/admin/runner/tenants/acme/workflows/transfer/t", "", "Authorization", token,
		); status != http.StatusServiceUnavailable {
			t.Fatalf("status %d: %s", status, text)
		}
	}
	if !strings.Contains(text, "CIRCUIT_BREAKER_OPEN") || !strings.Contains(text, "RetryInfo") {
		t.Errorf("the node is still called: %s", text)
	}
	query := func() *connect.Error {
		return e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
			e.token(t, "acme", "query.read")).err
	}
	refusal := connect.NewError(connect.CodeUnavailable, "rejected by the node")
	e.node.set(func(context.Context, int) error {
		return rpc.WithDetails(refusal, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
	})
	for range 10 {
		if err := query(); err == nil || err.Message() != "rejected by the node" {
			t.Fatalf("a node that sent RetryInfo is not called: %v", err)
		}
	}
	e.node.set(func(context.Context, int) error { return refusal })
	for range 10 {
		_ = query()
	}
	if calls, _, _, _, _ := e.node.seen(); calls > 7 {
		t.Errorf("a node that rejects all calls is called %d times", calls)
	}
	if err := query(); err == nil || !strings.Contains(err.Message(), "does not answer") {
		t.Errorf("a node that rejects all calls is called: %v", err)
	}
}

func TestRetry_StaysWithinBudget(t *testing.T) {
	e := start(t, patient)
	token := e.token(t, "acme", "query.read")
	e.node.set(func(context.Context, int) error { return connect.NewError(connect.CodeUnavailable, "in trouble") })
	const requests = 150
	for range requests {
		e.query(t, "connect+proto", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}
	if calls, _, _, _, _ := e.node.seen(); calls > requests+requests/10+10 {
		t.Errorf("%d calls reach a failing node for %d requests, want a tenth more and the initial 10", calls,
			requests)
	}
}
