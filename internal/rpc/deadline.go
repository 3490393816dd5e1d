package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/lazydeadline"
)

// maxCallTime bounds a unary call without a deadline, such as one that a person makes with curl.
const maxCallTime = 30 * time.Second

// Deadline is an interceptor that sets the deadline maxCallTime for unary calls without one.
func Deadline(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if _, given := ctx.Deadline(); given || spec.StreamType != connect.StreamTypeUnary {
			return next(ctx, spec, stream)
		}
		ctx, cancel := context.WithTimeout(ctx, maxCallTime)
		defer cancel()
		return next(ctx, spec, stream)
	}
}

// HandlerContext returns the context for the handler of a call. It ends margin before the call's
// deadline, and at most longest minus margin after began, so that the error of a call that took too
// long still reaches its client. chosen reports whether the client's deadline is earlier
// than longest. Calls of an edge's gRPC address already have such a context; for others
// HandlerContext begins and returns until, which the caller must cancel when the call has ended.
func HandlerContext(
	ctx context.Context, until *lazydeadline.Context, began time.Time, longest, margin time.Duration,
) (handler context.Context, chosen bool) {
	if call, ok := contextkit.Carried[admitted](ctx); ok {
		return ctx, call.chosen
	}
	return until, beginHandler(ctx, until, began, longest, margin)
}

// beginHandler begins until, the context of [HandlerContext], and reports whether the client chose the
// deadline.
func beginHandler(
	ctx context.Context, until *lazydeadline.Context, began time.Time, longest, margin time.Duration,
) (chosen bool) {
	end := began.Add(longest)
	if asked, ok := ctx.Deadline(); ok && asked.Before(end) {
		end, chosen = asked, true
	}
	until.Begin(ctx, end.Add(-margin))
	return chosen
}

// beforeReset begins until as ctx with an earlier deadline: grpc-go resets a stream at its
// deadline, and the handler's response must be sent before that.
func beforeReset(ctx context.Context, until *lazydeadline.Context, deadline time.Time) {
	now := time.Now()
	until.Begin(ctx, now.Add(contextkit.CalleeTime(deadline.Sub(now))))
}

// unaryTime returns the time limit of a call at the port for gRPC alone, including the transfer of its
// message, as [Deadline] sets it; 0: the call has a deadline, or is a stream.
func unaryTime(ctx context.Context, spec connect.Spec) time.Duration {
	if _, given := ctx.Deadline(); given || spec.StreamType != connect.StreamTypeUnary {
		return 0
	}
	return maxCallTime
}
