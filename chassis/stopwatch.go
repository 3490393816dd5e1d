package chassis

import (
	"sync"
	"time"
)

// watched is something that must make progress. Its methods are called with the watch's mu
// held, and return how long until check is called (again); 0: never.
type watched interface {
	start(now time.Time) time.Duration
	check(now time.Time) time.Duration
}

// stopwatch is a timer that is used again and again. Its owner gives it back to stopwatches after
// it has stopped.
type stopwatch struct {
	mu    sync.Mutex
	timer *time.Timer
	of    watched // nil: nothing is watched
	over  bool    // and nothing will be
}

var stopwatches = sync.Pool{New: func() any {
	w := &stopwatch{}
	w.timer = time.AfterFunc(time.Hour, w.fire)
	w.timer.Stop()
	return w
}}

// begin watches of, unless it does so already.
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

// stop ends what begin began.
func (w *stopwatch) stop() { w.stopFor(false) }

// stopFor is stop; with good, begin does nothing from then on.
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

// fire may be late, when another is watched already: it is that one's check then.
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
