package sqlite

import (
	"container/list"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// maxOpen bounds the files that a process has open per directory. Each has up to 12 descriptors and about 1 MiB
	// of memory.
	maxOpen = 256
	// closeAfter is the time after which an unused file is closed. SQLite then copies its log into the file and
	// removes it.
	closeAfter = 30 * time.Second
)

// errClosed is returned by a store after Close.
var errClosed = errors.New("sqlite: the store is closed")

// In returns the opener of files in dir. A file is open while it is used, and for some time afterwards; at most 256
// are open, and further ones wait until one of these is not in use. A store without events has no file before it is
// queried.
func In(dir string) store.Opener { return newPool(dir, maxOpen, closeAfter).opener }

// pool manages the open files of a directory.
type pool struct {
	files      *files
	limit      int
	closeAfter time.Duration

	mu      sync.Mutex
	open    int           // files that are open, or being opened or closed
	idle    list.List     // of *handle: open and not in use, longest idle first
	changed chan struct{} // closed and replaced when a file was closed, or is no longer in use
	timer   *time.Timer   // nil: no file is idle
}

func newPool(dir string, limit int, closeAfter time.Duration) *pool {
	return &pool{
		files:      newFiles(dir),
		limit:      limit,
		closeAfter: closeAfter,
		changed:    make(chan struct{}),
	}
}

// opener implements [store.Opener].
func (p *pool) opener(
	_ context.Context, tenant contextkit.TenantID, views []*model.View, origin string,
) (store.Store, error) {
	h := &handle{
		pool:   p,
		tenant: tenant,
		views:  views,
		origin: origin,
		path:   p.files.path(tenant, origin),
	}
	h.retained = p.files.use(h.path) // the file of a generation in use must not be removed as an old one
	return h, nil
}

// handle is a tenant's views, whose file is open only while they are used.
type handle struct {
	pool     *pool
	tenant   contextkit.TenantID
	views    []*model.View
	origin   string
	path     string
	retained func() // releases the file's generation

	// The fields below are guarded by pool.mu.

	store    *Store        // nil: the file is closed
	busy     bool          // the file is being opened or closed
	users    int           // number of users of store
	idle     *list.Element // in pool.idle
	since    time.Time     // time since which it is idle
	ended    bool
	seen     uint64 // the greatest checkpoint that was read
	replaced error  // why an earlier file was set aside
}

// acquire opens the file, unless it is open, and retains it until release.
func (h *handle) acquire(ctx context.Context) (*Store, error) {
	p := h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case h.ended:
			return nil, errClosed
		case h.busy:
		case h.store != nil:
			h.users++
			if h.idle != nil {
				p.idle.Remove(h.idle)
				h.idle = nil
			}
			return h.store, nil
		case p.open < p.limit:
			return h.openFile(ctx)
		case p.idle.Len() > 0:
			// The list holds nothing else. An error loses nothing: rows are in the file or its log.
			_ = p.close(p.idle.Front().Value.(*handle))
			continue
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			p.mu.Lock()
			return nil, ctx.Err()
		}
		p.mu.Lock()
	}
}

// openFile opens the file for one user. The caller holds pool.mu, which is released while the file is opened.
func (h *handle) openFile(ctx context.Context) (*Store, error) {
	p := h.pool
	p.open++
	h.busy = true
	seen := h.seen
	p.mu.Unlock()
	opened, err := p.files.open(ctx, h.tenant, h.views, h.origin)
	var checkpoint uint64
	if err == nil {
		var state store.State
		state, err = opened.State(ctx)
		if checkpoint = state.Sequence; err == nil && checkpoint < seen {
			err = fmt.Errorf("%w: its checkpoint went back from %d to %d", store.ErrDamaged, seen, checkpoint)
			p.files.markBroken(h.path, err)
		}
		if err != nil {
			err = errors.Join(err, opened.Close())
		}
	}
	p.mu.Lock()
	h.busy = false
	p.notify()
	if err != nil {
		p.open--
		return nil, err
	}
	h.store, h.users = opened, 1
	h.seen = max(h.seen, checkpoint)
	if opened.Replaced() != nil {
		h.replaced = opened.Replaced()
	}
	return opened, nil
}

// release undoes acquire.
func (h *handle) release(checkpoint uint64) {
	p := h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	h.seen = max(h.seen, checkpoint)
	if h.users--; h.users > 0 {
		return
	}
	h.idle, h.since = p.idle.PushBack(h), time.Now()
	if h.store.single { // the next use has more connections, if the disk has space by then
		_ = p.close(h) // an error loses nothing: rows are in the file or its log
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(p.closeAfter, p.sweep)
	}
	p.notify()
}

// notify wakes calls that wait for a file. The caller holds p.mu.
func (p *pool) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// close closes an idle file. The caller holds p.mu, which is released while the file is closed.
func (p *pool) close(h *handle) error {
	p.idle.Remove(h.idle)
	closing := h.store
	h.idle, h.store, h.busy = nil, nil, true
	p.mu.Unlock()
	err := closing.Close()
	p.mu.Lock()
	h.busy = false
	p.open--
	p.notify()
	return err
}

// sweep closes the files that have been idle for closeAfter.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.idle.Len() > 0 {
		h := p.idle.Front().Value.(*handle) //nolint:forcetypeassert // the list has no other type
		if left := p.closeAfter - time.Since(h.since); left > 0 {
			p.timer = time.AfterFunc(left, p.sweep)
			return
		}
		_ = p.close(h) // an error loses nothing: rows are in the file or its log
	}
	p.timer = nil
}

// Dialect implements [store.Store].
func (h *handle) Dialect() query.Dialect { return query.SQLite }

// State implements [store.Store]. It does not leave the file open, since a node that starts reads the state of every
// tenant.
func (h *handle) State(ctx context.Context) (store.State, error) {
	p := h.pool
	p.mu.Lock()
	closed, seen := h.store == nil && !h.busy && !h.ended, h.seen
	p.mu.Unlock()
	if closed {
		if state, ok := h.peek(ctx); ok && state.Sequence >= seen {
			p.mu.Lock()
			defer p.mu.Unlock()
			h.seen = max(h.seen, state.Sequence)
			return state, nil
		}
	}
	s, err := h.acquire(ctx)
	if err != nil {
		return store.State{}, err
	}
	state, err := s.State(ctx)
	h.release(state.Sequence)
	return state, explained(err)
}

// peek reads the state of a closed file at a fraction of the cost of opening it for its views. ok is false if the
// file must be opened instead, which detects damage and upgrades a file of an earlier layout.
func (h *handle) peek(ctx context.Context) (state store.State, ok bool) {
	if h.pool.files.isBroken(h.path) {
		return state, false
	}
	if _, err := os.Lstat(h.path); errors.Is(err, fs.ErrNotExist) {
		return state, true
	}
	if log, err := os.Lstat(h.path + "-wal"); err == nil && log.Size() > 0 {
		return state, false // of a process that was killed; SQLite would remove it with any content
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: h.path}).EscapedPath()+"?mode=rw")
	if err != nil {
		return state, false
	}
	db.SetMaxOpenConns(1)
	defer func() { _ = db.Close() }() // nothing was written
	var origin string
	if err := db.QueryRowContext(ctx, `SELECT origin FROM "_checkpoint"`).Scan(&origin); err != nil ||
		origin != h.origin {
		return state, false
	}
	state, distrusted, err := readState(ctx, db)
	return state, err == nil && len(distrusted) == 0
}

// Apply implements [store.Store].
func (h *handle) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	s, err := h.acquire(ctx)
	if err != nil {
		return err
	}
	applied := uint64(0)
	defer func() { h.release(applied) }()
	var to uint64
	err = s.Apply(ctx, func(batch *store.Batch, state store.State) error {
		err := change(batch, state)
		to = max(state.Sequence, batch.Checkpoint().Sequence)
		return err
	})
	if err != nil {
		return explained(err)
	}
	applied = to
	return nil
}

// Query implements [store.Store].
func (h *handle) Query(
	ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	s, err := h.acquire(ctx)
	if err != nil {
		return store.ViewState{}, err
	}
	state, err := s.Query(ctx, view, plan, each)
	seen := uint64(0)
	if !state.Detached {
		seen = state.Sequence
	}
	h.release(seen)
	return state, explained(err)
}

// Aggregates implements [store.Store].
func (h *handle) Aggregates(
	ctx context.Context, lookup store.Lookup, each func(store.Aggregate) error,
) (store.Indexed, error) {
	s, err := h.acquire(ctx)
	if err != nil {
		return store.Indexed{}, err
	}
	indexed, err := s.Aggregates(ctx, lookup, each)
	h.release(indexed.Applied)
	return indexed, explained(err)
}

// Replaced returns why an earlier file was set aside when the file was opened, nil if none was.
func (h *handle) Replaced() error {
	h.pool.mu.Lock()
	defer h.pool.mu.Unlock()
	return h.replaced
}

// Path returns the file's path.
func (h *handle) Path() string { return h.path }

// Close implements [store.Store]. It waits for running calls.
func (h *handle) Close() error {
	p := h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.ended {
		return nil
	}
	h.ended = true
	defer h.retained()
	for h.busy || h.users > 0 {
		changed := p.changed
		p.mu.Unlock()
		<-changed
		p.mu.Lock()
	}
	if h.store == nil {
		return nil
	}
	return p.close(h)
}
