package contextkit

import "context"

// Detach returns ctx without anything that it carries, for a call that begins in this
// process as if it had come from another: it ends with ctx and has its deadline, and
// its cause of ending is no more than [context.Canceled] or
// [context.DeadlineExceeded]. Cancel it when the call has ended.
func Detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(detached{ctx})
}

type detached struct{ context.Context } //nolint:containedctx // it is one, but for the values

// Value implements [context.Context]: there is none.
func (detached) Value(any) any { return nil }

// AfterFunc lets those derived from it wait for its end without a goroutine.
func (d detached) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(d.Context, f) }
