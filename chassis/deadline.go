package chassis

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
)

// maxCallTime bounds a unary call whose caller gave no deadline, such as one
// that was made by hand: nothing waits for ever.
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

// Hop returns ctx for a hop further: it ends with the call's deadline, and at most
// longest after it began, less margin, so that what is said of a call that took too long
// still reaches its client. Calls of an edge's gRPC address have come with it; of others
// until is what is returned, to be cancelled when the call has ended.
func Hop(ctx context.Context, until *contextkit.Until, began time.Time, longest, margin time.Duration) context.Context {
	if _, admitted := contextkit.Carried[admitted](ctx); admitted {
		return ctx
	}
	hop(ctx, until, began, longest, margin)
	return until
}

func hop(ctx context.Context, until *contextkit.Until, began time.Time, longest, margin time.Duration) {
	end := began.Add(longest)
	if asked, ok := ctx.Deadline(); ok && asked.Before(end) {
		end = asked // a client that asked for less gets less
	}
	until.Begin(ctx, end.Add(-margin))
}

// unaryTime is how long a call may take that comes over gRPC alone: as [Deadline]
// says, its message included.
func unaryTime(ctx context.Context, spec connect.Spec) time.Duration {
	if _, given := ctx.Deadline(); given || spec.StreamType != connect.StreamTypeUnary {
		return 0
	}
	return maxCallTime
}
