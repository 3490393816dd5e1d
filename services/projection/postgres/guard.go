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
	// readTimeout bounds the time that a read waits for the database, and applyTimeout that of a batch of events,
	// which may wait for another node's batch. They matter if a single connection hangs; [Database.Watch] detects
	// within three seconds that the whole database does not respond.
	readTimeout, applyTimeout = 30 * time.Second, time.Minute
	// pingTimeout bounds the check of a connection that was idle for a second, before its use.
	pingTimeout = 2 * time.Second
)

// Causes of contexts of guarded transactions.
var (
	errSilent = errors.New("the database does not respond")
	errSlow   = errors.New("the database has not responded in time")
)

// guarded tracks the running transactions and ends them when the database is found not to respond, since a hanging
// server, or a network that drops packets, does not close connections.
type guarded struct {
	mu      sync.Mutex
	silent  bool
	running map[*transaction]struct{}
}

func newGuarded() *guarded { return &guarded{running: map[*transaction]struct{}{}} }

// set ends the running transactions, and new ones until it is called with nil.
func (g *guarded) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.silent = err != nil; g.silent {
		for t := range g.running {
			t.cancel(errSilent)
		}
	}
}

// transaction is a guarded transaction.
type transaction struct {
	guarded *guarded
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	over  bool
	// busy is set while the caller uses a row, and used counts such uses: this time is not spent waiting for the
	// database.
	busy atomic.Bool
	used atomic.Int64
	seen int64 // value of used at the last check
}

// begin returns a context for a transaction. The context ends when the transaction has waited for the database for
// limit, or the database does not respond. The caller calls end after the transaction.
func (g *guarded) begin(ctx context.Context, limit time.Duration) (context.Context, *transaction) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := &transaction{guarded: g, cancel: cancel}
	t.again(limit)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running[t] = struct{}{}; g.silent {
		cancel(errSilent)
	}
	return ctx, t
}

// again schedules the next check of the transaction.
func (t *transaction) again(limit time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.timer = time.AfterFunc(limit, func() { t.check(limit) })
	}
}

// check ends the transaction unless rows were used since the last check.
func (t *transaction) check(limit time.Duration) {
	used := t.used.Load()
	if used == t.seen && !t.busy.Load() {
		t.cancel(errSlow)
		return
	}
	t.seen = used
	t.again(limit)
}

// end releases the transaction.
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

// using wraps each so that the time of a row's use does not count as waiting for the database.
func (t *transaction) using(each func(values, terms []any) error) func(values, terms []any) error {
	return func(values, terms []any) error {
		t.busy.Store(true)
		t.used.Add(1)
		defer t.busy.Store(false)
		return each(values, terms)
	}
}

// ended returns why the context of a guarded transaction has ended, as a [store.ErrUnavailable]; nil if it has not
// ended, or the caller's context has.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) || errors.Is(cause, errSlow) {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, cause)
	}
	return nil
}
