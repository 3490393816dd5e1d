package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/descriptors"
	"github.com/headgate/headgate/internal/rpc"
)

// enter acquires a pass from the circuit breakers of call.Node. If they refuse the call, it tries
// those of another node, see divert.
func (g *Gateway) enter(call *Call, began time.Time) (pass breaker.Pass, wait time.Duration, ok bool) {
	asked := breaker.Call{
		Kind:      call.Method.Upstream,
		Endpoint:  call.Node.Endpoint,
		Procedure: call.Method.Spec.Procedure,
		Tenant:    call.Tenant,
		Stream:    call.Method.Spec.StreamType != connect.StreamTypeUnary,
	}
	if pass, wait, ok = g.breakers.Enter(&asked, began, call.BypassBreaker); ok || call.BypassBreaker {
		return pass, wait, ok
	}
	if g.divert(call); !call.BypassBreaker && call.Node.Endpoint == asked.Endpoint {
		return pass, wait, false
	}
	asked.Endpoint = call.Node.Endpoint
	return g.breakers.Enter(&asked, began, call.BypassBreaker)
}

// breakerOpenError returns the error of a call that an open breaker refuses.
func breakerOpenError(call *Call, wait time.Duration) error {
	return rpc.WithDetails(
		connect.Errorf(connect.CodeUnavailable,
			"the %s node does not answer, or refuses all calls: try again in a moment", call.Method.Upstream),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(max(wait, minRetryDelay))},
		rpc.Reason(rpc.ReasonCircuitBreakerOpen),
	)
}

// outcome returns the breaker's outcome of an upstream call that began at a time. UNAVAILABLE
// without a retry delay counts as refused. The outcome is Unknown for a deadline that the client
// chose, and for a reset stream, which a message of the client may have caused.
func outcome(ctx context.Context, call *Call, began time.Time, err error) breaker.Outcome {
	if err == nil {
		return breaker.Answered
	}
	verdict, _ := errors.AsType[*connect.Error](err)
	switch {
	case verdict == nil:
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return call.timeout(ctx, began)
		}
		return breaker.Unknown
	case !verdict.IsRemote() && verdict.Code() == connect.CodeUnavailable:
		if descriptors.Exhausted(err) {
			return breaker.Unknown // the gateway has run out of file descriptors: the node is not the cause
		}
		if upstream.Unreached(err) {
			return breaker.Unreached
		}
		return breaker.Refused
	case !verdict.IsRemote() && verdict.Code() != connect.CodeUnimplemented:
		return breaker.Unknown
	case verdict.Code() != connect.CodeUnavailable && verdict.Code() != connect.CodeDeadlineExceeded:
		return breaker.Answered
	}
	if _, asked, _ := upstream.Pushback(&call.upstream, err); asked {
		return breaker.Answered
	}
	if verdict.Code() == connect.CodeDeadlineExceeded {
		return call.timeout(ctx, began)
	}
	return breaker.Refused
}

// policyShare divides the policy's timeout: a timeout counts against a node only if the node had at
// least this part of it. The client's request and other nodes may have used the rest.
const policyShare = 2

// timeout returns the outcome of an upstream call that began at a time and exceeded its deadline.
// It is Unknown for streams, which may be idle until their deadline.
func (c *Call) timeout(ctx context.Context, began time.Time) breaker.Outcome {
	until, bounded := ctx.Deadline()
	if c.clientDeadline || !bounded || c.Method.Spec.StreamType != connect.StreamTypeUnary ||
		time.Since(began) < until.Sub(c.end.Started)/policyShare {
		return breaker.Unknown
	}
	return breaker.TimedOut
}

// OpenBreakers returns the open breakers that divert the calls of all tenants, sorted: "endpoint"
// for a node, and "endpoint /service/Method" for one method of a node.
func (g *Gateway) OpenBreakers() []string {
	var open []string
	for _, state := range g.breakerStates() {
		if state.Open && !state.Single {
			open = append(open, breakerName(state))
		}
	}
	slices.Sort(open)
	return open
}

// breakerStates returns the states of the breakers of the nodes in the routing table. It first
// drops the breakers of nodes that have left the table.
func (g *Gateway) breakerStates() []breaker.State {
	used := map[string]bool{}
	for _, node := range g.routes.Nodes() {
		used[node.Endpoint] = true
	}
	g.breakers.Retain(func(endpoint string) bool { return used[endpoint] })
	return g.breakers.States()
}

func breakerName(state breaker.State) string {
	if state.Procedure == "" {
		return state.Endpoint
	}
	return state.Endpoint + " " + state.Procedure
}
