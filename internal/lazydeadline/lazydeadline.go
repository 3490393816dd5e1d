// Package lazydeadline has contexts with a deadline that allocate no timer and no channel until
// something waits for them with Done.
package lazydeadline

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Context is a context with a deadline, for a call that usually ends without a wait for its
// context, or with [Await] alone. It is one object, or part of another, where
// [context.WithDeadline] makes six and a timer. Otherwise it behaves like any context.
type Context struct {
	context.Context //nolint:containedctx // its parent

	deadline time.Time

	watched atomic.Pointer[watched] // nil until Done is asked for; set under mu

	mu     sync.Mutex
	waiter *waiter // in Await; nil: there is none
	ended  bool    // by Cancel

	// Plain is set before Begin to take the timer and the channel from the start, as [context.WithDeadline] does.
	Plain bool
}

// watched is the equivalent context of package context.
type watched struct {
	context.Context //nolint:containedctx // it is one

	end context.CancelFunc
}

// Begin makes u a context of parent with a deadline, or parent's if that is earlier. It ends at the
// deadline, with parent, or by [Context.Cancel]. It is called once, before all other methods.
func (u *Context) Begin(parent context.Context, deadline time.Time) {
	if sooner, ok := parent.Deadline(); ok && sooner.Before(deadline) {
		deadline = sooner
	}
	u.Context, u.deadline = parent, deadline
	if u.Plain {
		u.Done()
	}
}

// contextKey finds a Context below contexts that carry values.
type contextKey struct{}

// Deadline implements [context.Context].
func (u *Context) Deadline() (time.Time, bool) { return u.deadline, true }

// Done implements [context.Context].
func (u *Context) Done() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.watched.Load()
	if w == nil {
		w = &watched{}
		w.Context, w.end = context.WithDeadline(u.Context, u.deadline)
		if u.ended {
			w.end()
		}
		u.watched.Store(w)
	}
	return w.Done()
}

// Err implements [context.Context].
func (u *Context) Err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.watched.Load(); w != nil {
		return w.Err()
	}
	if err := u.Context.Err(); err != nil {
		return err
	}
	if u.ended {
		return context.Canceled
	}
	if !time.Now().Before(u.deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// Value implements [context.Context]. A derived context, which has called Done, finds the context
// of package context that ends it.
func (u *Context) Value(key any) any {
	if key == (contextKey{}) {
		return u
	}
	if w := u.watched.Load(); w != nil {
		return w.Value(key)
	}
	return u.Context.Value(key)
}

// Cancel ends the context. Before Begin it has no effect.
func (u *Context) Cancel() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return
	}
	u.ended = true
	if w := u.watched.Load(); w != nil {
		w.end()
	}
	if u.waiter != nil {
		u.waiter.end()
	}
}

// Await waits for ready, or for the end of ctx, whose error it returns then.
func Await(ctx context.Context, ready <-chan struct{}) error {
	u, _ := ctx.Value(contextKey{}).(*Context)
	if u == nil {
		return await(ctx, ready)
	}
	// A derived context that ends earlier than u has another deadline, or has called Done of u.
	if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(u.deadline) {
		return await(ctx, ready)
	}
	w, _ := waiters.Get().(*waiter)
	if !u.enter(w) {
		waiters.Put(w)
		return await(ctx, ready)
	}
	defer u.leave(w)
	w.timer.Reset(time.Until(u.deadline))
	select {
	case <-ready:
		return nil
	case <-u.Context.Done():
		return u.Context.Err()
	case <-w.over:
		return cmp.Or(u.Err(), context.DeadlineExceeded)
	}
}

func await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waiter is the pooled timer and channel of Await. Because of the pool, Await does not work in the
// bubbles of testing/synctest, which own their timers.
type waiter struct {
	timer *time.Timer
	over  chan struct{} // has one value once Cancel or the timer has ended the wait
}

// end notifies the waiting goroutine, once.
func (w *waiter) end() {
	select {
	case w.over <- struct{}{}:
	default:
	}
}

var waiters = sync.Pool{New: func() any {
	w := &waiter{over: make(chan struct{}, 1)}
	w.timer = time.AfterFunc(time.Hour, w.end)
	w.timer.Stop()
	return w
}}

// enter registers w as the waiter, if there is none and only Cancel, the deadline and the parent can end
// the context.
func (u *Context) enter(w *waiter) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.watched.Load() != nil || u.waiter != nil || u.ended {
		return false
	}
	u.waiter = w
	return true
}

// leave unregisters w, and returns it to the pool if it receives no further notification.
func (u *Context) leave(w *waiter) {
	u.mu.Lock()
	u.waiter = nil
	notified := u.ended
	u.mu.Unlock()
	if w.timer.Stop() && !notified {
		waiters.Put(w)
	}
}
