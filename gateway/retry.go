package gateway

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/backoff"
)

const (
	// maxAttempts bounds the upstream calls of one call.
	maxAttempts = 3
	// firstBackoff bounds the wait before the second attempt; each further attempt doubles it.
	// Waits have full jitter.
	firstBackoff = 20 * time.Millisecond
	// maxPushback is the longest retry delay, requested by a node, for which the gateway itself
	// waits. Longer delays are left to the client: a waiting call occupies its tenant's share.
	maxPushback = time.Second
	// retryNoNode is the retry delay sent to a client when no node is ready, and retryRefused when
	// the nodes report a reason.
	retryNoNode, retryRefused = 500 * time.Millisecond, 5 * time.Second
)

// retryDelays are the upper bounds of the waits before further attempts.
var retryDelays = backoff.Delays{First: firstBackoff, Longest: firstBackoff << (maxAttempts - 1)}

// retry reports whether the call must be attempted again, after the backoff, at another node if
// there is one. The call must be safe to repeat, or the node must not have processed it.
func (g *Gateway) retry(ctx context.Context, call *Call, err error) bool {
	if connect.CodeOf(err) != connect.CodeUnavailable || call.Attempts >= maxAttempts ||
		!call.Method.Retriable(call.HasKey) || ctx.Err() != nil {
		return false
	}
	wait, asked, again := upstream.Pushback(&call.upstream, err)
	if !again {
		g.counters.retried.WithLabelValues(string(retryRefusedByNode)).Inc()
		return false
	}
	if !asked {
		wait = backoff.Full(retryDelays.After(call.Attempts))
	}
	if deadline, ok := ctx.Deadline(); wait > maxPushback || ok && time.Until(deadline) < wait+minUpstreamTime {
		return false
	}
	if !call.Tenant.IsZero() && !g.tenants.Of(call.Tenant).Retry() {
		g.counters.retried.WithLabelValues(string(retryOverBudget)).Inc()
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		call.Waited += wait
	case <-ctx.Done():
		return false
	}
	failed := call.Node
	if !call.BypassBreaker {
		// The tenant may have moved during the wait.
		if node, ok := g.routes.Lookup(call.Method.Upstream, call.Tenant); ok && node.ID != call.Node.ID {
			call.Node = node
		} else {
			g.divert(call)
		}
	}
	// The retry budget of the next node decides, so that failures of other nodes do not overload
	// it.
	if !g.retries.Retry(call.Node.Endpoint) {
		call.Node = failed
		g.counters.retried.WithLabelValues(string(retryOverBudget)).Inc()
		return false
	}
	g.counters.retried.WithLabelValues(string(retrySent)).Inc()
	return true
}
