package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/workqueue"
	"github.com/headgate/headgate/model"
)

const (
	// window bounds a tenant's pieces that were accepted and have not ended, including pieces that wait for a retry;
	// it applies to triggers and to due work separately. windowBytes bounds the events of triggers in memory.
	window      = 4 * tenantConcurrency
	windowBytes = 8 << 20
)

// Causes of the end of a tenant's work.
var (
	errLeaving = errors.New("the runner starts no more work of the tenant")
	errLost    = errors.New("the runner no longer owns the tenant")
)

// errStaleModel reports that triggers were selected by a model revision that is no longer in use.
var errStaleModel = errors.New("the model has changed: triggers are read again")

// errNoLease reports that this runner's lease was not renewed recently enough to start work under it.
var errNoLease = errors.New("the lease was not renewed recently")

// owned is a tenant that this runner should own. When idle, it consists of this struct and a subscription, without a
// goroutine, timer or consumer.
type owned struct {
	term   *term
	tenant contextkit.TenantID
	// accepting ends, with errLeaving or errLost as its cause, when no more work may be started.
	accepting context.Context //nolint:containedctx // it lives as long as the struct
	end       context.CancelCauseFunc

	// leaving is set while the tenant is being released; guarded by the term's mutex.
	leaving bool
	// claiming is held while the cursor is read or written, and while triggers are added.
	claiming sync.Mutex

	mu      sync.Mutex
	sub     *tail.Subscription
	stored  storedCursor // as last read or written
	loaded  bool         // stored is known
	claimed bool         // stored names this runner's lease
	dirty   bool         // stored is out of date
	read    uint64
	epoch   int64             // of the journal, which read and open belong to
	open    map[uint64]*piece // triggers
	due     map[uint64]*piece // due work, by its sequence in WORK
	// dueBehind is set if WORK has due work that exceeded the window.
	dueBehind bool
	ready     []*piece // pieces to start
	running   int
	// retrying is the number of pieces in the window that wait for a retry.
	retrying int
	bytes    int64 // size of the events in open
	held     bool  // the subscription is paused
	// covered are the identities of the workflows whose events read covers, as of the given model revision; backfills
	// are those of which it covers a part; backfilling is set while a goroutine processes the backfills.
	covered     []string
	model       string
	backfills   []backfill
	backfilling bool
	draining    bool // a goroutine drains the durable consumer
	idleSince   time.Time
	idle        chan struct{} // closed when no piece is running, if a caller waits for it
}

// Batch implements [tail.Handler].
func (o *owned) Batch() tail.Batch { return &batch{owned: o, model: o.term.service.models.Current()} }

// Report implements [tail.Handler].
func (o *owned) Report(err error) {
	if err != nil && !errors.Is(err, errOwned) && !errors.Is(err, errEpoch) && !errors.Is(err, errStaleModel) {
		o.term.service.log.Warn().Err(err).Str("tenant", o.tenant.String()).Msg(
			"reading the tenant's triggers failed, retrying",
		)
	}
}

// batch collects triggers that are added together.
type batch struct {
	owned  *owned
	model  *model.Model
	last   uint64
	events []journal.Event
}

// Add implements [tail.Batch].
func (b *batch) Add(ctx context.Context, event journal.Event) error {
	if err := b.owned.term.service.awaits(ctx, b.model, &event); err != nil {
		return err
	}
	b.last = event.Sequence
	for _, workflow := range b.model.Workflows() {
		if workflow.On == (model.EventRef{Aggregate: event.AggregateType, Event: event.Type}) {
			b.events = append(b.events, event)
			break
		}
	}
	return nil
}

// Pass implements [tail.Passer].
func (b *batch) Pass(sequence uint64) { b.last = sequence }

// Apply implements [tail.Batch]. It starts the triggers, and does not wait for their end.
func (b *batch) Apply(ctx context.Context) error {
	o := b.owned
	o.claiming.Lock()
	defer o.claiming.Unlock()
	if b.model.Revision != o.term.service.models.Current().Revision {
		return errStaleModel
	}
	if len(b.events) > 0 {
		if err := o.claim(ctx); err != nil {
			return err
		}
	}
	o.mu.Lock()
	known := o.loaded && !o.epochChanged()
	o.mu.Unlock()
	if known {
		if err := o.cover(ctx, b.model); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.loaded {
		return errFenced
	}
	if o.epochChanged() {
		return errEpoch
	}
	for _, event := range b.events {
		if event.Sequence > o.read {
			o.add(&piece{sequence: event.Sequence, event: &event})
		}
	}
	o.read = max(o.read, b.last)
	o.touch()
	o.pump()
	return nil
}

// add adds a trigger to the window. The caller holds o.mu.
func (o *owned) add(p *piece) {
	if _, known := o.open[p.sequence]; known {
		return
	}
	if o.open == nil {
		o.open = map[uint64]*piece{}
	}
	o.open[p.sequence] = p
	o.ready = append(o.ready, p)
	o.bytes += p.bytes()
	if !o.held && o.sub != nil && (len(o.open) >= window || o.bytes >= windowBytes) {
		o.held = true
		o.sub.Pause()
	}
}

// offer adds due work to the window, unless the window is full or it was added already.
func (o *owned) offer(work workqueue.Due) (room bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.due[work.Sequence]; known {
		return true
	}
	if len(o.due) >= window || o.accepting.Err() != nil || !o.loaded {
		o.dueBehind = true
		return false
	}
	p := &piece{sequence: work.Sequence, due: &work}
	for _, failed := range o.stored.Due {
		if failed.Sequence == work.Sequence {
			p.failed = failed.Failed
		}
	}
	if o.due == nil {
		o.due = map[uint64]*piece{}
	}
	o.due[work.Sequence] = p
	o.ready = append(o.ready, p)
	o.pump()
	return true
}

// touch marks the stored cursor as out of date. The caller holds o.mu.
func (o *owned) touch() {
	if o.claimed {
		o.dirty, o.idleSince = true, time.Now()
	}
}

// pump starts pieces, up to the tenant's concurrency. The caller holds o.mu.
func (o *owned) pump() {
	for o.running < tenantConcurrency && len(o.ready) > 0 && o.accepting.Err() == nil {
		p := o.ready[0]
		o.ready = o.ready[1:]
		o.running++
		o.term.spawn(func() { o.begin(p) })
	}
	if len(o.ready) == 0 {
		o.ready = nil
	}
}

// begin processes a piece when it is its tenant's turn.
func (o *owned) begin(p *piece) {
	ended, failed, again := o.inTurn(o.accepting, p)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.running--
	if failed {
		p.failed++
	}
	switch {
	case ended:
		o.remove(p)
	case o.accepting.Err() == nil:
		o.retry(p, again)
	}
	o.pump()
	o.refill()
	if o.running == 0 && o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// retry schedules another attempt at a piece. The caller holds o.mu.
func (o *owned) retry(p *piece, after time.Duration) {
	if p.event != nil {
		o.bytes -= p.bytes()
		p.event = nil // it is read again for the next attempt
		o.bytes += p.bytes()
	}
	o.touch()
	o.retrying++
	p.retry = time.AfterFunc(after, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		p.retry = nil
		o.retrying--
		o.ready = append(o.ready, p)
		o.pump()
	})
}

// remove removes a piece that has ended. The caller holds o.mu.
func (o *owned) remove(p *piece) {
	if p.due != nil {
		delete(o.due, p.sequence)
	} else {
		delete(o.open, p.sequence)
		o.bytes -= p.bytes()
	}
	if len(o.due) == 0 {
		o.due = nil
	}
	if len(o.open) == 0 {
		o.open = nil
	}
	o.touch()
}

// refill resumes the subscription once half of the window is free, or all pieces in it wait for a retry. Until then the
// tenant's triggers stay in the journal (backpressure). The caller holds o.mu.
func (o *owned) refill() {
	if o.accepting.Err() != nil {
		return
	}
	stuck := o.running == 0 && len(o.ready) == 0
	if o.held && (len(o.open) <= window/2 || stuck && len(o.open) < window) && o.bytes < windowBytes/2 {
		o.held = false
		o.sub.Resume()
	}
	if o.dueBehind && (len(o.due) <= window/2 || stuck && len(o.due) < window) {
		o.dueBehind = false
		o.term.spawn(func() { o.term.rescan(o) })
	}
}

// claimWait is the delay before a piece is retried whose tenant cannot be claimed now.
const claimWait = 500 * time.Millisecond

// inTurn processes a piece when it is its tenant's turn and the tenant is claimed. If the tenant is released before
// that, the piece is not started; a running piece then has a grace period to finish.
func (o *owned) inTurn(accepting context.Context, p *piece) (ended, failed bool, again time.Duration) {
	w := o.term.service.worker(o.tenant)
	release, err := w.turns.acquire(accepting, o.tenant)
	if err != nil {
		return false, false, 0
	}
	defer release()
	o.claiming.Lock()
	err = o.claim(accepting)
	o.claiming.Unlock()
	if err != nil || !o.term.service.lease.Valid() {
		if errors.Is(err, errFenced) || errors.Is(err, errOwned) {
			o.term.lose(o)
		}
		return false, false, claimWait
	}
	w.inFlight.Add(1)
	defer w.inFlight.Add(-1)
	ctx, end := gracefulAttempt(accepting, w.finish)
	defer end()
	ended, again = o.work(ctx, p)
	return ended, !ended && !errors.Is(context.Cause(ctx), context.Canceled), again
}

// quiet returns a channel that is closed when no piece is running.
func (o *owned) quiet() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, pieces := range []map[uint64]*piece{o.open, o.due} {
		for _, p := range pieces {
			if p.retry != nil {
				p.retry.Stop()
			}
		}
	}
	if o.idle == nil {
		o.idle = make(chan struct{})
	}
	idle := o.idle
	if o.running == 0 {
		close(o.idle)
		o.idle = nil
	}
	return idle
}

// waiting returns the number of pieces that were started and have not ended, and the approximate number of events
// that have not been read; known is false if that is not known here.
func (o *owned) waiting() (begun, behind int64, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sub == nil || !o.sub.Started() || o.stored.Durable > 0 {
		return 0, 0, false
	}
	return int64(len(o.open) + len(o.due)), o.sub.Waiting(), true
}
