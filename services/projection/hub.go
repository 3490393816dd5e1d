package projection

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// maxWatchers bounds a tenant's watchers on a node.
	maxWatchers = 10_000
	// maxBacklog bounds the pending rows of a watcher, and maxBacklogBytes the memory of their keys. A row is pending
	// once, however often it changes.
	maxBacklog      = 10_000
	maxBacklogBytes = 2 << 20
	// maxHubBytes bounds the pending keys of all of a tenant's watchers, including keys that are being sent. Beyond
	// it, the watchers with the most bytes are ended.
	maxHubBytes = 64 << 20
	// maxNodeBytes bounds the pending keys of all tenants' watchers on a node. Beyond it, each tenant with pending keys
	// has an equal share of it.
	maxNodeBytes = 256 << 20
	// keyBytes estimates the memory of a pending key without its text.
	keyBytes = 64
)

// Errors of watching.
var (
	errTooManyWatchers = errors.New("the tenant has too many watchers on this node")
	errSlow            = errors.New("the watcher does not keep up with the view's changes")
	errLeft            = errors.New("the watcher has left")
)

// touchedRows are the keys of affected rows, by view.
type touchedRows map[string]map[string]struct{}

func (t touchedRows) add(view, key string) {
	if t[view] == nil {
		t[view] = map[string]struct{}{}
	}
	t[view][key] = struct{}{}
}

// pendingKeys counts the bytes of the pending keys of all tenants' watchers. It may be used concurrently.
type pendingKeys struct {
	bytes atomic.Int64
	hubs  atomic.Int64 // with pending keys
}

// hub notifies a tenant's watchers which rows have changed. It never blocks on a watcher. A value with a node has no
// watchers.
type hub struct {
	node  *pendingKeys
	bytes atomic.Int64 // of the pending keys of the watchers

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	closed   bool
}

// count adds bytes, which are negative when they are released.
func (h *hub) count(bytes int) {
	if bytes == 0 {
		return
	}
	h.node.bytes.Add(int64(bytes))
	switch now := h.bytes.Add(int64(bytes)); now {
	case 0:
		h.node.hubs.Add(-1)
	case int64(bytes):
		h.node.hubs.Add(1)
	}
}

// bound returns the bytes that the watchers may hold at the moment.
func (h *hub) bound() int64 {
	if h.node.bytes.Load() <= maxNodeBytes {
		return maxHubBytes
	}
	return min(maxHubBytes, maxNodeBytes/max(h.node.hubs.Load(), 1))
}

// watcher collects the rows of a view that have changed since its last call of take.
type watcher struct {
	hub   *hub
	view  string
	ready chan struct{} // holds one value while there are pending rows

	mu    sync.Mutex
	keys  map[string]uint64 // with the journal sequence of their last change, or a later one
	bytes int               // of keys
	taken int               // bytes of the keys that were taken and not sent yet
	upTo  uint64            // the journal sequence up to which keys are complete
	err   error             // why the watcher has ended
}

// join adds a watcher of a view; leave removes it.
func (h *hub) join(view string) (w *watcher, leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil, errMoved
	}
	if len(h.watchers) >= maxWatchers {
		return nil, nil, errTooManyWatchers
	}
	w = &watcher{
		hub:   h,
		view:  view,
		ready: make(chan struct{}, 1),
		keys:  map[string]uint64{},
	}
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	return w, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, w)
		w.fail(errLeft)
		w.sent()
	}, nil
}

// publish adds changed rows, complete up to a journal sequence, to the watchers of their views, except for views that
// are left out. It is called in the journal's order.
func (h *hub) publish(touched touchedRows, upTo uint64, leftOut func(view string) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	added := 0
	for w := range h.watchers {
		if !leftOut(w.view) {
			added += w.add(touched[w.view], upTo)
		}
	}
	h.count(added)
	if h.bytes.Load() > h.bound() {
		h.shed()
	}
}

// end ends a view's watchers with an error.
func (h *hub) end(view string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		if w.view == view {
			w.fail(err)
		}
	}
}

// endAll ends all watchers with an error.
func (h *hub) endAll(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.fail(err)
	}
}

// shed ends the watchers with the most pending bytes until the rest is within the bound. The caller holds h.mu.
func (h *hub) shed() {
	waiting := make(map[*watcher]int, len(h.watchers))
	for w := range h.watchers {
		waiting[w] = w.waiting()
	}
	order := slices.SortedFunc(maps.Keys(waiting),
		func(a, b *watcher) int { return cmp.Compare(waiting[b], waiting[a]) })
	for _, w := range order {
		if h.bytes.Load() <= h.bound() {
			return
		}
		w.fail(errSlow)
	}
}

// add adds keys, and returns by how much the pending bytes have grown; they shrink if the watcher has too many. The
// caller counts them.
func (w *watcher) add(keys map[string]struct{}, upTo uint64) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.upTo = upTo
	if len(keys) == 0 {
		return 0
	}
	before := w.bytes
	if w.err == nil {
		for key := range keys {
			if _, waits := w.keys[key]; !waits {
				w.bytes += len(key) + keyBytes
			}
			w.keys[key] = upTo
		}
		if len(w.keys) > maxBacklog || w.bytes > maxBacklogBytes {
			w.err, w.keys, w.bytes = errSlow, nil, 0
		}
	}
	w.wake()
	return w.bytes - before
}

// waiting returns the pending bytes.
func (w *watcher) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// fail ends the watcher and releases its pending keys, except keys that are being sent.
func (w *watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hub.count(-w.bytes)
	w.err, w.keys, w.bytes = err, nil, 0
	w.wake()
}

// wake notifies the watcher. The caller holds w.mu.
func (w *watcher) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// close ends all watchers. Their clients may reconnect to the node that has the views now.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		w.fail(errMoved)
	}
}

// take returns the rows that have changed, each with the journal sequence of its last change or a later one, and the
// sequence up to which they are complete. Errors: [errSlow], [errMoved].
func (w *watcher) take() (changed map[string]uint64, upTo uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, 0, w.err
	}
	changed, w.keys = w.keys, map[string]uint64{}
	w.taken, w.bytes = w.taken+w.bytes, 0
	return changed, w.upTo, nil
}

// sent records that the taken keys have been sent.
func (w *watcher) sent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hub.count(-w.taken)
	w.taken = 0
}
