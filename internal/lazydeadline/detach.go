package lazydeadline

import (
	"context"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// Detach returns ctx without anything that it carries, for a call that begins in this process
// as if it had come from another: it ends with ctx, and at its deadline less the deadline
// margin (see [contextkit.CalleeTime]). Its cause is [context.Canceled] or [context.DeadlineExceeded]
// alone. Cancel it when the call has ended. until, which has not begun, is the returned
// context if ctx has a deadline.
func Detach(ctx context.Context, until *Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(detached{ctx})
	}
	now := time.Now()
	until.Begin(detached{ctx}, now.Add(contextkit.CalleeTime(deadline.Sub(now))))
	return until, until.Cancel
}

type detached struct{ context.Context } //nolint:containedctx // it is a context without values

// Value implements [context.Context]: there is none.
func (detached) Value(any) any { return nil }

// AfterFunc lets derived contexts wait for its end without a goroutine.
func (d detached) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(d.Context, f) }
