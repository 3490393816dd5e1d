package projection

import (
	"errors"
	"sync"
)

const (
	// maxWatchers bounds a tenant's watchers on a node.
	maxWatchers = 10_000
	// maxBacklog bounds the rows that wait for a watcher. Each waits once, however
	// often it changes meanwhile.
	maxBacklog = 10_000
)

// Errors of watching.
var (
	errTooManyWatchers = errors.New("the tenant has too many watchers on this node")
	errSlow            = errors.New("the watcher does not keep up with the view's changes")
)

// touchedRows are the keys of rows that events concern, by view.
type touchedRows map[string]map[string]struct{}

func (t touchedRows) add(view, key string) {
	if t[view] == nil {
		t[view] = map[string]struct{}{}
	}
	t[view][key] = struct{}{}
}

// hub tells a tenant's watchers which rows have changed. It never waits for one.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	closed   bool
}

func newHub() *hub { return &hub{watchers: map[*watcher]struct{}{}} }

// watcher collects the rows of a view that have changed since it last looked.
type watcher struct {
	view  string
	ready chan struct{} // holds one value while there is something to take

	mu   sync.Mutex
	keys map[string]uint64 // with the journal sequence of their last change, or a later one
	upTo uint64            // the journal sequence up to which keys are complete
	err  error             // why there is nothing more to take
}

// join adds a watcher of a view; leave takes it out.
func (h *hub) join(view string) (w *watcher, leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, errMoved
	}
	if len(h.watchers) >= maxWatchers {
		return nil, nil, errTooManyWatchers
	}
	w = &watcher{view: view, ready: make(chan struct{}, 1), keys: map[string]uint64{}}
	h.watchers[w] = struct{}{}
	return w, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, w)
	}, nil
}

// publish gives the watchers their views' rows that have changed up to a journal
// sequence. It is called in the journal's order.
func (h *hub) publish(touched touchedRows, upTo uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.add(touched[w.view], upTo)
	}
}

func (w *watcher) add(keys map[string]struct{}, upTo uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.upTo = upTo
	if len(keys) == 0 {
		return
	}
	if w.err == nil {
		for key := range keys {
			w.keys[key] = upTo
		}
		if len(w.keys) > maxBacklog {
			w.err, w.keys = errSlow, nil
		}
	}
	w.wake()
}

// wake has the watcher look. w.mu is held.
func (w *watcher) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// close ends all watchers, which may come back to whoever has the views now.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		w.mu.Lock()
		w.err, w.keys = errMoved, nil
		w.wake()
		w.mu.Unlock()
	}
}

// take returns the rows that have changed, each with the journal sequence of its last
// change or a later one, and up to which that is all of them; or [errSlow] or
// [errMoved].
func (w *watcher) take() (changed map[string]uint64, upTo uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, 0, w.err
	}
	changed, w.keys = w.keys, map[string]uint64{}
	return changed, w.upTo, nil
}
