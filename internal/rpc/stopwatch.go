package rpc

import (
	"sync"
	"time"
)

// watched is an operation that must make progress. Its methods are called with the stopwatch's
// mu held, and return the time until the next call of check; 0: none.
type watched interface {
	start(now time.Time) time.Duration
	check(now time.Time) time.Duration
}

// stopwatch is a reusable timer. Its owner returns it to stopwatches after it has stopped.
type stopwatch struct {
	mu    sync.Mutex
	timer *time.Timer
	of    watched // nil: nothing is watched
	over  bool    // begin does nothing any more
}

var stopwatches = sync.Pool{New: func() any {
	w := &stopwatch{}
	w.timer = time.AfterFunc(time.Hour, w.fire)
	w.timer.Stop()
	return w
}}

// begin starts to watch of, unless another operation is watched.
func (w *stopwatch) begin(of watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil && !w.over {
		w.of = of
		if first := of.start(time.Now()); first > 0 {
			w.timer.Reset(first)
		}
	}
}

// stop ends the watch.
func (w *stopwatch) stop() { w.stopFor(false) }

// stopFor is stop; if good is set, later calls of begin have no effect.
func (w *stopwatch) stopFor(good bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = w.over || good
	if w.of != nil {
		w.of = nil
		w.timer.Stop()
	}
}

// received counts bytes of a.
func (w *stopwatch) received(a *arrival, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a.received += n
}

// fire checks what is watched. A timer that fires late may find another operation watched,
// which is then checked early.
func (w *stopwatch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		return
	}
	if again := w.of.check(time.Now()); again > 0 {
		w.timer.Reset(again)
	}
}
