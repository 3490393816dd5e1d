package chassis

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
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

// unaryTime is how long a call may take that comes over gRPC alone: as [Deadline]
// says, its message included.
func unaryTime(ctx context.Context, spec connect.Spec) time.Duration {
	if _, given := ctx.Deadline(); given || spec.StreamType != connect.StreamTypeUnary {
		return 0
	}
	return maxCallTime
}
