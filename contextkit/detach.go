package contextkit

import (
	"context"
	"time"
)

// DeadlineMargin is the most by which a callee's deadline is earlier than its caller's, so
// that the callee's own verdict on a call that took too long still reaches the caller.
const DeadlineMargin = 20 * time.Millisecond

// marginShare is the divisor of the remaining time that yields the largest deadline margin.
const marginShare = 4

// CalleeTime returns the callee's part of a caller's remaining time: all but the deadline
// margin, which is [DeadlineMargin] but at most a quarter of the remaining time. It is
// positive if remaining is.
func CalleeTime(remaining time.Duration) time.Duration {
	return remaining - min(DeadlineMargin, remaining/marginShare)
}

// Detach returns ctx without anything that it carries, for a call that begins in this process
// as if it had come from another: it ends with ctx, and at its deadline less the deadline
// margin (see [CalleeTime]). Its cause is [context.Canceled] or [context.DeadlineExceeded]
// alone. Cancel it when the call has ended. until, which has not begun, is the returned
// context if ctx has a deadline.
func Detach(ctx context.Context, until *Until) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(detached{ctx})
	}
	now := time.Now()
	until.Begin(detached{ctx}, now.Add(CalleeTime(deadline.Sub(now))))
	return until, until.Cancel
}

type detached struct{ context.Context } //nolint:containedctx // it is one, but for the values

// Value implements [context.Context]: there is none.
func (detached) Value(any) any { return nil }

// AfterFunc lets those derived from it wait for its end without a goroutine.
func (d detached) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(d.Context, f) }
