package tail

import (
	"cmp"
	"context"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/journal"
)

// Waits before a failed subscription is retried: doubled from the first to the longest, with jitter.
const firstRetry, longestRetry = 500 * time.Millisecond, 10 * time.Second

// retryDelay returns the wait after a number of failures in a row, half of which is jitter: when a journal is back, the
// subscriptions of a node's tenants are not retried together.
func retryDelay(failures int) time.Duration {
	return backoff.Less(backoff.Delays{First: firstRetry, Longest: longestRetry}.After(failures), 0.5)
}

// probeEvents bounds the queue of a subscription that has failed, until it succeeds.
const probeEvents = 64

// gathered is the number of queued events that start a session while a reader adds to them.
const gathered = 256

// Handler takes a subscription's events. Its methods are called one at a time.
type Handler interface {
	// Cursor returns the sequence up to which the tenant's events have been taken durably, 0
	// for none. It is called when the subscription begins and after each failure. It may block,
	// and holds up no other tenant's events.
	Cursor(ctx context.Context) (uint64, error)
	// Batch returns an empty batch.
	Batch() Batch
	// Report is called with the reason when the subscription stops advancing, and with nil when
	// it advances again.
	Report(err error)
}

// Starter is a [Handler] that is also notified of the journal's last sequence.
type Starter interface {
	// Start is called when the cursor has been read, with the sequence of the tenant's last event
	// in the journal, 0 for none. It must not block.
	Start(newest uint64)
}

// Prover is a [Handler] that knows which event is at its cursor, so that a journal that has gone back
// and continued with other events is noticed.
type Prover interface {
	// CursorEvent returns the id of the event at the cursor that Cursor has returned last, "" if it
	// is not known. The cursor is the sequence of one of the tenant's messages.
	CursorEvent() string
}

// Batch is a number of events that take effect together. Its methods are called one after the
// other; while Apply is called, Add may be called for the batch that follows.
type Batch interface {
	// Add adds the next event. After an error the events before it are applied, the subscription
	// fails, and is tried again later.
	Add(ctx context.Context, event journal.Event) error
	// Apply lets the events take effect. After an error the subscription fails, and is tried
	// again later, from the cursor.
	Apply(ctx context.Context) error
}

// Passer is a [Batch] that also counts messages that are no events (see [journal.ReadEvent]) as
// taken. They are never added.
type Passer interface {
	// Pass is called in order, instead of Add, for each of these messages.
	Pass(sequence uint64)
}

// Receiver is a [Batch] that takes the messages as they are stored, events or not: Add and Pass are not called.
type Receiver interface {
	// Receive takes the next message.
	Receive(message journal.Message)
}

// Options are a subscription's. Zero values select the defaults.
type Options struct {
	// Events and Bytes bound a batch; 2048 and 8 MiB by default. A batch has one event at least.
	Events int
	Bytes  int64
	// Accept selects the events by their type of aggregate; nil: all events. The others are
	// passed over.
	Accept func(aggregateType string) bool
}

func (o Options) withDefaults() Options {
	o.Events = cmp.Or(o.Events, 2048)
	o.Bytes = cmp.Or(o.Bytes, 8<<20)
	return o
}

// Subscription delivers one tenant's events to one handler. Its methods may be called
// concurrently; Stop must not be called from within its handler.
type Subscription struct {
	tail    *Tail
	tenant  contextkit.TenantID
	handler Handler
	options Options

	// What follows is guarded by tail.mu.

	newest    uint64 // the newest event that is known to be in the journal
	offered   uint64 // every event up to it has been queued, taken or passed over
	delivered uint64 // every event up to it has been applied or passed over
	missed    int64  // events that the tail dropped since the subscription is behind

	queue      []message // events up to offered that no session has taken
	queueBytes int64
	inFlight   int64 // bytes of events that the session has taken and not applied

	asked    bool // newest is complete: the journal has been asked
	known    bool // the cursor has been read, and offered and delivered are valid
	busy     bool // Cursor is being called, or a session runs
	slot     *int // the tail's count of busy subscriptions; nil: not counted
	overdue  bool // busy for so long that it is not counted any more
	renewed  bool // the cursor must be read again when the subscription is no longer busy
	paused   bool
	stopped  bool
	long     bool // a reader of groups could not queue all that there is
	failures int  // since an event was applied last
	retry    *time.Timer
	reader   *reader // that reads for the subscription

	listedAsk, listedReady, listedBehind bool
	hastened                             bool // it is in the tail's list of these

	since   time.Time       // the handler is called
	ctx     context.Context //nolint:containedctx // of the calls to the handler while busy
	cancel  context.CancelFunc
	arrived chan struct{} // holds a value when events were queued since the session looked; nil: it has not
	ended   chan struct{} // closed when the subscription is no longer busy, once it is stopped
}

// Pause has no further events delivered until Resume. Events that are being applied are not
// interrupted.
func (s *Subscription) Pause() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.paused = true
	s.drop()
}

// Resume continues after the last event that was applied.
func (s *Subscription) Resume() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.paused = false
	s.catchUp()
	s.tail.work()
}

// Reset has the cursor read again, and continues after it. Events that are being applied are not
// interrupted, and none is applied between them and those after the cursor. A subscription that
// waits after a failure does not wait any longer.
func (s *Subscription) Reset() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.renew()
}

// Hasten moves the subscription to the front of those whose cursors wait to be read: a call waits
// for the tenant, while many others are started. It may be called at any time.
func (s *Subscription) Hasten() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	if s.listedAsk && !s.hastened {
		s.hastened = true
		s.tail.hastened.push(s)
	}
}

// Stop ends the subscription. It cancels the context of the handler's calls, and returns when
// none is running.
func (s *Subscription) Stop() {
	t := s.tail
	t.mu.Lock()
	if !s.stopped {
		s.stopped = true
		t.forget(s)
		s.drop()
		if s.retry != nil {
			s.retry.Stop()
		}
		if s.busy {
			s.cancel()
			s.ended = make(chan struct{})
		}
	}
	ended := s.ended
	t.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// Delivered returns the sequence up to which the tenant's events have been applied or passed
// over; 0 before the cursor is known.
func (s *Subscription) Delivered() uint64 {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	if s.known && !s.busy && len(s.queue) == 0 {
		return s.offered
	}
	return s.delivered
}

// Newest returns the sequence of the tenant's newest known event, and whether
// the journal has been asked for it.
func (s *Subscription) Newest() (sequence uint64, known bool) {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	return s.newest, s.asked
}

// Waiting returns how many events have not been applied: events in memory, events that the tail
// dropped, and at least one if there are others.
func (s *Subscription) Waiting() int64 {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	waiting := int64(len(s.queue)) + s.missed
	if waiting == 0 && s.newest > s.delivered && s.newest > s.offered {
		waiting = 1
	}
	return waiting
}

// Started reports whether the cursor has been read, and the journal asked for the tenant's newest
// event: before that, Waiting is no more than an estimate of whether there are events.
func (s *Subscription) Started() bool {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	return s.known && s.asked
}

// accepting reports whether events can be queued.
func (s *Subscription) accepting() bool {
	return s.known && !s.paused && !s.stopped && !s.overdue
}

// caughtUp reports whether every event that is known has been offered.
func (s *Subscription) caughtUp() bool { return s.newest <= s.offered }

// notice takes a message of the tail.
func (s *Subscription) notice(m message) {
	if m.sequence <= s.newest {
		return
	}
	current := s.caughtUp()
	s.newest = m.sequence
	if m.sequence <= s.offered {
		return // a reader was ahead of the tail
	}
	if s.known && current && s.accepting() && s.room(&m) {
		s.offer(m)
		return
	}
	if s.known {
		s.missed++
		s.tail.counts.dropped++
		s.catchUp()
	}
}

// room reports whether the queue has room for a message.
func (s *Subscription) room(m *message) bool {
	t, most := s.tail, s.tail.config.QueueEvents
	if s.failures > 0 {
		most = min(most, probeEvents)
	}
	if len(s.queue) >= most || s.queueBytes >= t.config.QueueBytes {
		return false
	}
	return s.affordable(m)
}

// affordable reports whether the bytes of all subscriptions admit a message: the subscription
// may use as much as is still free.
func (s *Subscription) affordable(m *message) bool {
	t := s.tail
	free := t.config.TotalBytes - t.used
	return free > 0 && (len(s.queue) == 0 || s.queueBytes+s.inFlight+m.size() <= free)
}

// offer queues a message, or passes it over.
func (s *Subscription) offer(m message) {
	t := s.tail
	s.offered = m.sequence
	if s.options.Accept == nil || s.options.Accept(m.aggregateType()) {
		s.queue = append(s.queue, m)
		s.queueBytes += m.size()
		t.used += m.size()
	}
	if s.caughtUp() {
		s.missed, s.long = 0, false
	} else if s.missed > 1 {
		s.missed--
	}
	s.wake()
}

// wake has the queued events applied, unless a reader is about to add to them: a few large batches
// cost less than many small ones.
func (s *Subscription) wake() {
	t := s.tail
	switch {
	case len(s.queue) == 0 || !s.accepting():
	case s.busy:
		if s.arrived != nil {
			select {
			case s.arrived <- struct{}{}:
			default:
			}
		}
	case s.listedReady:
	case s.reader == nil || s.reader.waiting || s.caughtUp() || len(s.queue) >= min(gathered, s.options.Events) ||
		s.queueBytes >= s.options.Bytes/2:
		s.listedReady = true
		t.ready.push(s)
	}
}

// drop drops the queued events, and ends reads for the subscription, which would otherwise continue
// after them. Events that the session has taken are not affected.
func (s *Subscription) drop() {
	if len(s.queue) > 0 {
		s.offered = s.queue[0].sequence - 1
		s.tail.used -= s.queueBytes
		s.tail.counts.dropped += uint64(len(s.queue))
		s.missed += int64(len(s.queue))
		s.queue, s.queueBytes = nil, 0
		s.tail.changed.Broadcast()
	}
	s.detach()
}

// detach ends the reading for the subscription. What is queued is applied.
func (s *Subscription) detach() {
	if s.reader == nil {
		return
	}
	if s.reader.left--; s.reader.left == 0 {
		s.reader.cancel()
	}
	s.reader = nil
	s.wake()
	s.tail.changed.Broadcast()
}

// catchUp has the events read that were not queued, once there is room for them.
func (s *Subscription) catchUp() {
	t := s.tail
	if !s.accepting() || s.caughtUp() || s.reader != nil || s.listedBehind {
		return
	}
	if len(s.queue) > t.config.QueueEvents/2 || s.queueBytes > t.config.QueueBytes/2 {
		s.wake() // then there is room
		return
	}
	s.listedBehind = true
	if s.long {
		t.bulk.push(s)
	} else {
		t.behind.push(s)
	}
}

// ask has the cursor read.
func (s *Subscription) ask() {
	if s.stopped || s.listedAsk || s.busy {
		return
	}
	s.listedAsk = true
	s.tail.toAsk.push(s)
	s.tail.work()
}

// renew has the cursor read again.
func (s *Subscription) renew() {
	if s.retry != nil {
		s.retry.Stop()
	}
	s.drop()
	s.known, s.renewed = false, s.busy
	s.ask()
}

// begin marks the subscription busy, and counts it.
func (s *Subscription) begin(count *int) {
	s.busy, s.since, s.slot = true, time.Now(), count
	s.ctx, s.cancel = s.tail.derive()
	*count++
	s.tail.active[s] = struct{}{}
}

// release no longer counts a busy subscription, which does not end: another one may be busy in
// its place.
func (s *Subscription) release() {
	s.overdue = true
	*s.slot--
	s.slot = nil
	s.tail.used -= s.inFlight
	s.tail.overdue++
	s.tail.counts.overdue++
	s.drop() // it is read again
}

// end is begin's opposite. What was taken and not applied is read again; after an error, from
// the cursor.
func (s *Subscription) end(err error) {
	t := s.tail
	s.cancel()
	delete(t.active, s)
	if s.overdue {
		t.overdue--
	} else {
		t.used -= s.inFlight
		*s.slot--
	}
	if err != nil || s.inFlight > 0 || s.paused || s.stopped || s.renewed {
		s.drop()
		s.offered = s.delivered
	}
	s.busy, s.overdue, s.slot, s.inFlight, s.ctx, s.cancel = false, false, nil, 0, nil, nil
	switch {
	case s.stopped:
		if s.ended != nil {
			close(s.ended)
		}
	case s.renewed:
		s.renewed, s.known = false, false // it may have been set concurrently
		s.ask()
	case t.over:
	case err != nil:
		s.known = false
		s.failures++
		s.retry = time.AfterFunc(retryDelay(s.failures), func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			s.ask()
		})
	default:
		s.wake()
		s.catchUp()
	}
	t.changed.Broadcast()
	t.work()
}
