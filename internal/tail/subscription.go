package tail

import (
	"cmp"
	"context"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/journal"
)

// A failed subscription is retried after a delay that doubles from firstRetry to longestRetry.
const firstRetry, longestRetry = 500 * time.Millisecond, 10 * time.Second

// retryDelay returns the delay after a number of consecutive failures. Half of it is jitter, so that the subscriptions
// of a node's tenants are not retried together when the journal is available again.
func retryDelay(failures int) time.Duration {
	return backoff.Less(backoff.Delays{First: firstRetry, Longest: longestRetry}.After(failures), 0.5)
}

// probeEvents bounds the queue of a subscription that has failed, until an event is applied.
const probeEvents = 64

// gathered is the number of queued events that start a session while a reader still adds events.
const gathered = 256

// Handler processes a subscription's events. Its methods are called one at a time.
type Handler interface {
	// Cursor returns the sequence up to which the tenant's events have been processed durably; 0: none. It is called
	// when the subscription begins and after each failure. It may block without delaying events of other tenants.
	Cursor(ctx context.Context) (uint64, error)
	// Batch returns an empty batch.
	Batch() Batch
	// Report is called with the reason when the subscription cannot advance, and with nil when it advances again.
	Report(err error)
}

// Starter is a [Handler] that also receives the tenant's last sequence in the journal.
type Starter interface {
	// Start is called when the cursor has been read, with the sequence of the tenant's last event in the journal; 0:
	// none. It must not block.
	Start(newest uint64)
}

// Prover is a [Handler] that knows the id of the event at its cursor. The subscription uses it to detect a journal that
// was restored to an earlier state and continued with other events.
type Prover interface {
	// CursorEvent returns the id of the event at the sequence that Cursor returned last; "": unknown.
	CursorEvent() string
}

// Batch is a number of events that take effect together. The methods of one batch are called one at a time; Add of the
// next batch may be called during Apply.
type Batch interface {
	// Add adds the next event. After an error the earlier events of the batch are applied, and the subscription fails
	// and is retried later.
	Add(ctx context.Context, event journal.Event) error
	// Apply makes the events take effect. After an error the subscription fails, and is retried later from the cursor.
	Apply(ctx context.Context) error
}

// Passer is a [Batch] that also receives the sequences of messages that are not events (see [journal.ReadEvent]). Such
// messages are never added.
type Passer interface {
	// Pass is called in order, instead of Add, for each of these messages.
	Pass(sequence uint64)
}

// Receiver is a [Batch] that receives all messages as they are stored, events or not. Add and Pass are not called.
type Receiver interface {
	// Receive receives the next message.
	Receive(message journal.Message)
}

// Options are the options of a subscription. Zero values select the defaults.
type Options struct {
	// Events and Bytes bound a batch; 2048 and 8 MiB by default. A batch has at least one event.
	Events int
	Bytes  int64
	// Accept selects events by their aggregate type; nil: all events. Other events are skipped.
	Accept func(aggregateType string) bool
}

func (o Options) withDefaults() Options {
	o.Events = cmp.Or(o.Events, 2048)
	o.Bytes = cmp.Or(o.Bytes, 8<<20)
	return o
}

// Subscription delivers one tenant's events to one handler. Its methods may be called concurrently, but Stop must not
// be called by its handler.
type Subscription struct {
	tail    *Tail
	tenant  contextkit.TenantID
	handler Handler
	options Options

	// The following fields are guarded by tail.mu.

	newest    uint64 // sequence of the newest known event in the journal
	offered   uint64 // every event up to it has been queued, applied or skipped
	delivered uint64 // every event up to it has been applied or skipped
	missed    int64  // number of events that the tail has dropped since the subscription fell behind

	queue      []message // events up to offered that the session has not removed yet
	queueBytes int64
	inFlight   int64 // bytes of the events that the session has removed from the queue and not applied

	asked    bool // newest was read from the journal, and followed since
	known    bool // the cursor has been read: offered and delivered are valid
	busy     bool // Cursor is being called, or a session runs
	slot     *int // the tail's count of busy subscriptions that includes it; nil: none
	overdue  bool // it has been busy for too long, and is no longer counted in slot
	renewed  bool // the cursor must be read again when the subscription is no longer busy
	paused   bool
	stopped  bool
	long     bool // a reader of groups could not queue all of its events
	failures int  // since the last applied event
	retry    *time.Timer
	reader   *reader // reads events for the subscription; nil: none

	listedAsk, listedReady, listedBehind bool // it is in the tail's lists toAsk, ready, and behind or bulk
	hastened                             bool // it is in the tail's list hastened

	since   time.Time       // when it became busy
	ctx     context.Context //nolint:containedctx // of the calls to the handler while busy
	cancel  context.CancelFunc
	arrived chan struct{} // holds a value if events were queued since the session last read the queue; nil: no session
	ended   chan struct{} // closed when a stopped subscription is no longer busy
}

// Pause stops the delivery of further events until Resume. Events that are being applied are not interrupted.
func (s *Subscription) Pause() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.paused = true
	s.drop()
}

// Resume continues after the last applied event.
func (s *Subscription) Resume() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.paused = false
	s.catchUp()
	s.tail.work()
}

// Reset reads the cursor again, and continues after it. Events that are being applied are not interrupted; the next
// ones to be applied are those after the cursor. A subscription that waits after a failure is retried immediately.
func (s *Subscription) Reset() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	s.renew()
}

// Hasten moves the subscription to the front of the subscriptions whose cursors wait to be read, since a call waits for
// the tenant. It does nothing if the cursor does not wait to be read.
func (s *Subscription) Hasten() {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	if s.listedAsk && !s.hastened {
		s.hastened = true
		s.tail.hastened.push(s)
	}
}

// Stop ends the subscription: it cancels the context of the handler's calls, and returns when they have returned.
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

// Delivered returns the sequence up to which the tenant's events have been applied or skipped; 0 before the cursor has
// been read.
func (s *Subscription) Delivered() uint64 {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	if s.known && !s.busy && len(s.queue) == 0 {
		return s.offered
	}
	return s.delivered
}

// Newest returns the sequence of the tenant's newest known event, and whether it was read from the journal.
func (s *Subscription) Newest() (sequence uint64, known bool) {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	return s.newest, s.asked
}

// Waiting returns a lower bound of the number of events that have not been applied. It is greater than 0 if there are
// such events.
func (s *Subscription) Waiting() int64 {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	waiting := int64(len(s.queue)) + s.missed
	if waiting == 0 && s.newest > s.delivered && s.newest > s.offered {
		waiting = 1
	}
	return waiting
}

// Started reports whether the cursor and the tenant's newest sequence have been read. Before that, Waiting may be 0
// although there are events.
func (s *Subscription) Started() bool {
	s.tail.mu.Lock()
	defer s.tail.mu.Unlock()
	return s.known && s.asked
}

// accepting reports whether events can be queued.
func (s *Subscription) accepting() bool {
	return s.known && !s.paused && !s.stopped && !s.overdue
}

// caughtUp reports whether every known event has been offered.
func (s *Subscription) caughtUp() bool { return s.newest <= s.offered }

// notice queues a message that the tail has received, or counts it as missed.
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

// affordable reports whether the tail's bound in bytes admits a message: a subscription may use as many bytes as are
// free.
func (s *Subscription) affordable(m *message) bool {
	t := s.tail
	free := t.config.TotalBytes - t.used
	return free > 0 && (len(s.queue) == 0 || s.queueBytes+s.inFlight+m.size() <= free)
}

// offer queues a message, or skips it if the subscription does not accept it.
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

// wake lets a session apply the queued events, unless a reader is about to add events: a few large batches cost less
// than many small ones.
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

// drop discards the queued events and detaches the reader, which would otherwise continue after them. Events that the
// session has removed from the queue are not affected.
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

// detach ends the reads for the subscription. Queued events are applied.
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

// catchUp lets a reader read the missed events once the queue has room for them.
func (s *Subscription) catchUp() {
	t := s.tail
	if !s.accepting() || s.caughtUp() || s.reader != nil || s.listedBehind {
		return
	}
	if len(s.queue) > t.config.QueueEvents/2 || s.queueBytes > t.config.QueueBytes/2 {
		s.wake() // catchUp is called again when they have been applied
		return
	}
	s.listedBehind = true
	if s.long {
		t.bulk.push(s)
	} else {
		t.behind.push(s)
	}
}

// ask lets the tail read the cursor.
func (s *Subscription) ask() {
	if s.stopped || s.listedAsk || s.busy {
		return
	}
	s.listedAsk = true
	s.tail.toAsk.push(s)
	s.tail.work()
}

// renew lets the tail read the cursor again.
func (s *Subscription) renew() {
	if s.retry != nil {
		s.retry.Stop()
	}
	s.drop()
	s.known, s.renewed = false, s.busy
	s.ask()
}

// begin marks the subscription busy, and adds it to count.
func (s *Subscription) begin(count *int) {
	s.busy, s.since, s.slot = true, time.Now(), count
	s.ctx, s.cancel = s.tail.derive()
	*count++
	s.tail.active[s] = struct{}{}
}

// release removes a busy subscription that does not end from its count, so that another one can be busy instead.
func (s *Subscription) release() {
	s.overdue = true
	*s.slot--
	s.slot = nil
	s.tail.used -= s.inFlight
	s.tail.overdue++
	s.tail.counts.overdue++
	s.drop() // the events are read again
}

// end marks the subscription as no longer busy. Events that were removed from the queue and not applied are read again;
// after an error, from the cursor.
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
