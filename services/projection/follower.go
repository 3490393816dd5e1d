package projection

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// maxResumes bounds a tenant's watchers that concurrently read the events that they have missed.
const maxResumes = 4

// follower applies new events to one generation of a tenant's views. It is the handler of a subscription of the node's
// [tail.Tail]. A tenant without events and calls costs only its memory.
type follower struct {
	tenant     contextkit.TenantID
	tail       *tail.Tail
	model      *model.Model
	rows       store.Store
	origin     string          // of the rows: see [store.Opener]
	epoch      int64           // of the journal that the rows are made from
	positions  *position.Codec // of positions of that epoch
	journalEnd uint64          // the end of the journal when the follower was created
	// appliedBefore is the sequence up to which an earlier generation has applied the events; only the handler's
	// methods access it
	appliedBefore uint64
	// added is the last event that was added to a batch, or the checkpoint; only the handler's methods access it
	added store.Checkpoint
	final bool // target is final; only the handler's methods access it
	log   zerolog.Logger

	hub     hub
	shared  sharedRows    // between watchers
	resumes chan struct{} // holds one value per watcher that reads missed events

	skips    *skipRecords // nil: there are none
	parts    []*part      // the views, in the model's order
	applying sync.Mutex   // held while the views or their states change
	recorded bool         // some view has a record; guarded by applying

	timeline   *timeline.Recorder
	onReplaced func(error)         // called when damaged rows were set aside
	onRestored func()              // called when the rows are at an earlier checkpoint than before
	onBeyond   func(uint64, error) // called with a checkpoint that the journal no longer has, and the reason
	onChange   func(*follower)     // called when the follower may have to be shown or replaced
	hidden     atomic.Bool         // it is not shown yet

	damaged atomic.Bool // the rows' store is damaged: Run replaces the follower
	rebuilt atomic.Bool // the rows are being rebuilt because they were damaged

	subscription atomic.Pointer[tail.Subscription] // nil: Run has not started it
	ended        chan struct{}                     // closed by end, so that no call waits for a position any longer
	left         sync.Once
	use          sync.RWMutex // held to read while rows are read, to write to close them
	closed       bool

	mu         sync.Mutex
	started    bool          // checkpoint and target are known
	checkpoint uint64        // the last sequence that was applied
	target     uint64        // the tenant's last sequence when the follower was created
	guessed    bool          // target is an upper bound, until the first event after the checkpoint is delivered
	changed    chan struct{} // closed and replaced when one of the above, or failure, changes; nil: no call waits
	lost       sequenceRange // lost checkpoints of the rows
	failure    error         // why the follower does not advance
	halted     bool          // nothing is applied any longer
	filling    bool          // the index of aggregates is queued to be filled
	retired    []*catcher    // catchers of views that are in step again, to be stopped
}

func newFollower(
	tenant contextkit.TenantID, journal *tail.Tail, m *model.Model, rows store.Store, origin string, epoch int64,
	log zerolog.Logger,
) *follower {
	return &follower{
		tenant:     tenant,
		tail:       journal,
		model:      m,
		rows:       rows,
		origin:     origin,
		epoch:      epoch,
		log:        log,
		parts:      newParts(m),
		ended:      make(chan struct{}),
		resumes:    make(chan struct{}, maxResumes),
		onChange:   func(*follower) {},
		onReplaced: func(error) {},
		onRestored: func() {},
		onBeyond:   func(uint64, error) {},
	}
}

// logger returns the log with the tenant's name.
func (f *follower) logger() *zerolog.Logger {
	log := f.log.With().Str("tenant", f.tenant.String()).Logger()
	return &log
}

// Cursor implements [tail.Handler].
func (f *follower) Cursor(ctx context.Context) (uint64, error) {
	f.applying.Lock()
	defer f.applying.Unlock()
	state, err := f.aligned(ctx)
	if err != nil {
		return 0, err
	}
	checkpoint := state.Sequence
	if r, ok := f.rows.(replacing); ok && r.Replaced() != nil && !f.rebuilt.Swap(true) {
		f.onReplaced(r.Replaced())
	}
	f.wentBack(checkpoint)
	f.adopt(state)
	f.added = state.Checkpoint
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appliedBefore = max(f.appliedBefore, f.lost.to)
	f.checkpoint = checkpoint
	f.notify()
	return checkpoint, nil
}

// CursorEvent implements [tail.Prover].
func (f *follower) CursorEvent() string { return f.added.EventID }

// Start implements [tail.Starter].
func (f *follower) Start(newest uint64) {
	f.mu.Lock()
	if !f.started {
		// Calls that need later events wait for them. If newest is after journalEnd, the last event at or before
		// journalEnd is not known yet: see aim.
		f.started, f.target = true, min(newest, f.journalEnd)
		f.final = newest <= f.journalEnd || f.checkpoint >= f.journalEnd
		f.guessed = !f.final
		if f.checkpoint == 0 {
			f.appliedBefore = f.journalEnd
		}
		f.notify()
	}
	f.mu.Unlock()
	f.onChange(f)
}

// aim lowers the target to the last event at or before journalEnd, once the first event after it is delivered.
// sequence is the sequence of the next event.
func (f *follower) aim(sequence uint64) {
	f.mu.Lock()
	f.guessed = false
	f.final = sequence > f.journalEnd
	if f.final {
		f.target = min(f.target, f.added.Sequence)
	}
	f.notify()
	f.mu.Unlock()
	if f.final && f.hidden.Load() {
		f.onChange(f)
	}
}

// Report implements [tail.Handler]. A failure is stored for readiness; no event is skipped.
func (f *follower) Report(err error) {
	if errors.Is(err, errWentBack) {
		return // wentBack has recorded it
	}
	f.mu.Lock()
	before := f.failure
	f.failure = err
	checkpoint, lost := f.checkpoint, journalLost(err)
	if lost && !f.started { // the views contain everything that the journal has, and are shown
		f.started, f.target, f.final = true, checkpoint, true
		f.notify()
	}
	f.mu.Unlock()
	if lost {
		f.onBeyond(checkpoint, err)
	}
	if err != nil && (before == nil || before.Error() != err.Error()) { // one log line per change
		f.logger().Error().Err(err).Uint64("checkpoint", f.lastApplied()).Msg("projection does not advance, retrying")
	}
}

func (f *follower) lastApplied() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkpoint
}

func (f *follower) advance(sequence uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checkpoint, f.failure = sequence, nil
	f.notify()
}

// notify wakes the calls that wait for a change. The caller holds f.mu.
func (f *follower) notify() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// wait returns once condition holds; condition is called with f.mu held. Errors: [errMoved], and ctx's.
func (f *follower) wait(ctx context.Context, condition func() bool) error {
	for {
		f.mu.Lock()
		if condition() {
			f.mu.Unlock()
			return nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
		case <-f.ended:
			return errMoved
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitReached waits until the view's checkpoint has reached the sequence of a min_position (read-your-writes), or the
// view cannot be read. Errors: see wait.
func (f *follower) waitReached(ctx context.Context, view string, sequence uint64) error {
	p := f.part(view)
	return f.wait(ctx, func() bool { return f.checkpoint >= sequence || p != nil && f.readable(p) != nil })
}

// startedView waits briefly for a view that is about to catch up. Errors: a [*failedError] or a [*buildingError] if
// the view cannot be read; [errMoved]; ctx's.
func (f *follower) startedView(ctx context.Context, view string) error {
	p := f.part(view)
	if p == nil || !p.detached.Load() {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, maxStartWait)
	defer cancel()
	err := f.wait(waiting, func() bool { return p.failure != nil || !p.state.Detached })
	if ctx.Err() != nil || errors.Is(err, errMoved) {
		return cmp.Or(ctx.Err(), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.readable(p)
}

// waitStarted waits until the checkpoint and the target are known. They are read before those of tenants for which no
// call waits. Errors: see wait.
func (f *follower) waitStarted(ctx context.Context) error {
	if subscription := f.subscription.Load(); subscription != nil {
		subscription.Hasten()
	}
	return f.wait(ctx, func() bool { return f.started && !f.guessed })
}

// startedProgress is progress, but first waits briefly until the progress is known if the node has just started.
// Errors: also [errMoved], and ctx's.
func (f *follower) startedProgress(ctx context.Context) error {
	if f.progress() == nil {
		return nil
	}
	waiting, cancel := context.WithTimeout(ctx, maxStartWait)
	defer cancel()
	if err := f.waitStarted(waiting); ctx.Err() != nil || errors.Is(err, errMoved) {
		return cmp.Or(ctx.Err(), err)
	}
	return f.progress()
}

// failing returns why the follower does not advance, nil when it does.
func (f *follower) failing() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failure != nil || f.tail == nil {
		return f.failure
	}
	return f.tail.Err()
}

// building returns the progress of the views, their target, and true until they contain what the journal contained
// when the node started. Until then they are not shown, because they are incomplete.
func (f *follower) building() (done, target uint64, building bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started {
		return 0, 1, true
	}
	return f.checkpoint, f.target, f.checkpoint < f.target
}

// progress returns a [buildingError] until the views can be shown, or [store.ErrUnavailable] if the time of that
// cannot be known.
func (f *follower) progress() error {
	f.mu.Lock()
	started, failure := f.started, f.failure
	f.mu.Unlock()
	if !started && errors.Is(failure, store.ErrUnavailable) {
		return failure
	}
	if done, target, building := f.building(); building {
		return &buildingError{
			done:     done,
			target:   target,
			rebuilt:  f.rebuilt.Load(),
			restored: f.lostPosition(target),
		}
	}
	return nil
}

// waiting returns the number of events that have not been applied.
func (f *follower) waiting() int64 {
	subscription := f.subscription.Load()
	if subscription == nil {
		return 0
	}
	return subscription.Waiting()
}

// enter starts reading the follower's rows; the caller calls leave when done. ok is false if the rows are no longer
// stored here.
func (f *follower) enter() (leave func(), ok bool) {
	f.use.RLock()
	if f.closed {
		f.use.RUnlock()
		return nil, false
	}
	return f.use.RUnlock, true
}

// query runs Query on the rows. least is the minimum sequence of the rows. Errors: [errMoved] when they are no longer
// stored here; a [*failedError] or a [*buildingError] if the view cannot be read.
func (f *follower) query(
	ctx context.Context, view *model.View, least uint64, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	leave, ok := f.enter()
	if !ok {
		return store.ViewState{}, errMoved
	}
	defer leave()
	return f.readRows(ctx, view, least, plan, each)
}

// readRows is query for callers that have called enter.
func (f *follower) readRows(
	ctx context.Context, view *model.View, least uint64, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	least = max(least, f.lastApplied()) // before they are read: they have at least that
	state, err := f.rows.Query(ctx, view, plan, each)
	if err != nil {
		return state, err
	}
	if err := stateError(view, state); err != nil {
		if state.Detached && !f.isDetached(view.Name) {
			f.readAgain() // another node has found that the view fails, or the database went back
		}
		return state, err
	}
	if state.Sequence < least {
		return state, f.readBack(state, least)
	}
	return state, nil
}

// stopped ends the follower's subscriptions, if they have started, and returns when no event is being applied.
func (f *follower) stopped() {
	f.mu.Lock()
	f.halted = true
	f.mu.Unlock()
	if subscription := f.subscription.Load(); subscription != nil {
		subscription.Stop()
	}
	f.mu.Lock()
	for _, p := range f.parts {
		if p.catcher != nil {
			f.retired = append(f.retired, p.catcher)
			p.catcher = nil
		}
	}
	f.mu.Unlock()
	f.tidy()
}

// tidy stops the subscriptions of views in step again. Their handlers must not call it.
func (f *follower) tidy() {
	f.mu.Lock()
	retired := f.retired
	f.retired = nil
	f.mu.Unlock()
	for _, c := range retired {
		c.stop()
	}
}

// end ends the follower: its subscription, its watchers, and its rows once no call reads them.
func (f *follower) end() error {
	f.left.Do(func() { close(f.ended) })
	f.stopped()
	f.hub.close()
	f.use.Lock()
	defer f.use.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.rows.Close()
}
