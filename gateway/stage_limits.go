package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/limit"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

// limits keeps the tenant within its rate and its calls in flight.
func (g *Gateway) limits(ctx context.Context, call *Call) (context.Context, error) {
	call.entered = time.Now()
	if call.Tenant.IsZero() {
		return ctx, nil // platform calls are few, and come from operators
	}
	use, wait, err := g.tenants.Enter(call.Tenant, call.entered, call.Method.Spec.StreamType&connect.StreamTypeServer != 0)
	if err != nil {
		reason := "CONCURRENCY_LIMIT"
		switch {
		case errors.Is(err, limit.ErrRate):
			reason = "RATE_LIMIT"
		case errors.Is(err, limit.ErrStreams):
			reason = "STREAM_LIMIT"
		}
		g.counters.limited.WithLabelValues(reason).Inc()
		if g.tenants.HoldBack(ctx, call.Tenant) {
			g.counters.held.Inc()
		}
		return ctx, exhausted(err.Error(), reason, wait)
	}
	call.use = use
	return ctx, nil
}

// exhausted says that there is no room now, and when to come back.
func exhausted(message, reason string, wait time.Duration) error {
	return chassis.WithDetails(connect.NewError(connect.CodeResourceExhausted, message+": try again in a moment"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(max(wait, minRetryDelay))}, chassis.Reason(reason))
}

// minRetryDelay is the least that a client is told to wait.
const minRetryDelay = 50 * time.Millisecond
