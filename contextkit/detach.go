package contextkit

import (
	"context"
	"time"
)

// DeadlineMargin is the most by which a callee's deadline is earlier than its caller's, so
// that the callee's own verdict on a call that took too long still reaches the caller.
const DeadlineMargin = 20 * time.Millisecond

// marginShare is the part of the remaining time that a deadline margin may take.
const marginShare = 4

// CalleeTime returns the time that a callee is given of a caller's remaining time: all but
// the deadline margin, which is [DeadlineMargin], and at most a quarter of a short time. It
// is positive if remaining is.
func CalleeTime(remaining time.Duration) time.Duration {
	return remaining - min(DeadlineMargin, remaining/marginShare)
}

// Detach returns ctx without anything that it carries, for a call that begins in this
// process as if it had come from another: it ends with ctx, and at its deadline less the
// deadline margin (see [CalleeTime]). Its cause of ending is no more than
// [context.Canceled] or [context.DeadlineExceeded]. Cancel it when the call has ended.
// until, which has not begun, holds the context where ctx has a deadline.
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
