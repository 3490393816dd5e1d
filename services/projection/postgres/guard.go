package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/services/projection/store"
)

const (
	// readTimeout bounds how long a read waits for the database, and applyTimeout a batch of events,
	// which may wait for another node's. They matter where one connection alone hangs:
	// [Database.Watch] notices within three seconds that the database does not answer.
	readTimeout, applyTimeout = 30 * time.Second, time.Minute
	// pingTimeout bounds the check of a connection that was idle for a second, before its use.
	pingTimeout = 2 * time.Second
)

// Causes of contexts of guarded transactions.
var (
	errSilent = errors.New("the database does not answer")
	errSlow   = errors.New("the database has not answered in time")
)

// guarded are the transactions that are under way. They end when the database is found not to answer:
// a server that stands still, or a network that drops packets, ends no connection.
type guarded struct {
	mu      sync.Mutex
	silent  bool
	running map[*transaction]struct{}
}

func newGuarded() *guarded { return &guarded{running: map[*transaction]struct{}{}} }

// set ends the transactions under way, and those that begin until it is called with nil.
func (g *guarded) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silent = err != nil; g.silent {
		for t := range g.running {
			t.cancel(errSilent)
		}
	}
}

// transaction is a transaction that is guarded.
type transaction struct {
	guarded *guarded
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	over  bool
	// busy says that rows are being used, and used counts that: the database is not waited for.
	busy atomic.Bool
	used atomic.Int64
	seen int64 // of used, at the last check
}

// begin returns a context for a transaction, which ends when the transaction has waited for the
// database for a time, or the database does not answer. end must be called when it has ended.
func (g *guarded) begin(ctx context.Context, most time.Duration) (context.Context, *transaction) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := &transaction{guarded: g, cancel: cancel}
	t.again(most)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[t] = struct{}{}; g.silent {
		cancel(errSilent)
	}
	return ctx, t
}

// again has the transaction checked after a time.
func (t *transaction) again(most time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.timer = time.AfterFunc(most, func() { t.check(most) })
	}
}

// check ends the transaction unless rows were used since the last check.
func (t *transaction) check(most time.Duration) {
	used := t.used.Load()
	if used == t.seen && !t.busy.Load() {
		t.cancel(errSlow)
		return
	}
	t.seen = used
	t.again(most)
}

// end releases what the transaction holds.
func (t *transaction) end() {
	t.guarded.mu.Lock()
	delete(t.guarded.running, t)
	t.guarded.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.timer.Stop()
	t.cancel(nil)
}

// using has the time of a row's use not count as waiting for the database.
func (t *transaction) using(each func(values, terms []any) error) func(values, terms []any) error {
	return func(values, terms []any) error {
		t.busy.Store(true)
		t.used.Add(1)
		defer t.busy.Store(false)
		return each(values, terms)
	}
}

// ended returns why the context of a guarded transaction has ended, as a [store.ErrUnavailable];
// nil: it has not, or its caller's context has.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errSlow) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	}
	return nil
}
