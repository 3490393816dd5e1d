package gateway

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
)

const (
	// deadlineMargin is subtracted from the remaining time of an upstream call, so that the node's
	// own verdict on a call that takes too long still reaches the client.
	deadlineMargin = contextkit.DeadlineMargin
	// minUpstreamTime is the shortest remaining time for which an upstream call is made: a call
	// with less could not finish, and would only cost the node work.
	minUpstreamTime = 5 * time.Millisecond
)

// deadline rejects a call that cannot finish in the time that its method's policy and its client
// allow.
func (g *Gateway) deadline(ctx context.Context, call *Call) (context.Context, error) {
	if until, ok := ctx.Deadline(); ok && until.Sub(call.end.Started) < minUpstreamTime {
		return ctx, connect.Errorf(connect.CodeDeadlineExceeded,
			"the call's deadline leaves less than %v: allow it more time", minUpstreamTime+deadlineMargin)
	}
	return ctx, nil
}
