package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/lazydeadline"
)

// maxCallTime bounds a unary call whose caller gave no deadline, such as one
// that was made by hand: no call waits forever.
const maxCallTime = 30 * time.Second

// Deadline gives every unary call one.
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

// Hop returns ctx for the handler of an edge's call: it ends with the call's deadline, and at
// most longest after it began, less margin, so that the verdict on a call that took too long
// still reaches its client. chosen reports whether the client has chosen a deadline sooner
// than longest. Calls of an edge's gRPC address already have such a context; for others Hop
// returns until, which the caller cancels when the call has ended.
func Hop(ctx context.Context, until *lazydeadline.Context, began time.Time, longest, margin time.Duration) (handler context.Context, chosen bool) {
	if call, ok := contextkit.Carried[admitted](ctx); ok {
		return ctx, call.chosen
	}
	return until, hop(ctx, until, began, longest, margin)
}

func hop(ctx context.Context, until *lazydeadline.Context, began time.Time, longest, margin time.Duration) (chosen bool) {
	end := began.Add(longest)
	if asked, ok := ctx.Deadline(); ok && asked.Before(end) {
		end, chosen = asked, true
	}
	until.Begin(ctx, end.Add(-margin))
	return chosen
}

// beforeReset begins until as ctx with an earlier deadline: grpc-go resets a stream at its
// deadline, and the handler's verdict must be sent before that.
func beforeReset(ctx context.Context, until *lazydeadline.Context, deadline time.Time) {
	now := time.Now()
	until.Begin(ctx, now.Add(contextkit.CalleeTime(deadline.Sub(now))))
}

// unaryTime is how long a call may take that comes over gRPC alone: as [Deadline]
// says, its message included.
func unaryTime(ctx context.Context, spec connect.Spec) time.Duration {
	if _, given := ctx.Deadline(); given || spec.StreamType != connect.StreamTypeUnary {
		return 0
	}
	return maxCallTime
}
