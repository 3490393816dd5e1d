package events

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/tail"
)

const (
	// queuedEvents and queuedBytes bound the events that wait for one client. A batch of the tail may exceed them.
	queuedEvents, queuedBytes = 512, 1 << 20
	// batchEvents and batchBytes bound a batch.
	batchEvents, batchBytes = 128, 256 << 10
	// storedBytes estimates the memory of a message beside its data.
	storedBytes = 2 << 10
)

// subscription is a [tail.Subscription].
type subscription interface {
	Pause()
	Resume()
	Delivered() uint64
}

// subscriber queues a tenant's messages for a client. It implements [tail.Handler]: it never waits for the client. When
// its queue is full, the subscription pauses, and later continues from the last message that was queued.
type subscriber struct {
	tenant contextkit.TenantID
	all    *queued       // of all subscriptions
	types  []string      // of events; empty: all
	ready  chan struct{} // holds a value while there is something to take

	mu     sync.Mutex
	sub    subscription // nil: it is not known yet
	queue  []journal.Message
	bytes  int
	last   uint64 // the sequence up to which messages have been queued or passed over
	full   bool   // the subscription is paused
	target uint64 // the tenant's last message when the subscription began
	known  bool   // target is
	err    error  // why the subscription does not advance
	ended  bool   // what is queued is no longer counted
}

func newSubscriber(tenant contextkit.TenantID, all *queued, after uint64, types []string) *subscriber {
	return &subscriber{
		tenant: tenant,
		all:    all,
		types:  types,
		ready:  make(chan struct{}, 1),
		last:   after,
	}
}

// end releases what is queued. A batch may still be applied; it is not counted.
func (s *subscriber) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.all.add(s.tenant, -s.bytes)
}

// Cursor implements [tail.Handler].
func (s *subscriber) Cursor(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, nil
}

// Start implements [tail.Starter].
func (s *subscriber) Start(newest uint64) {
	s.mu.Lock()
	if !s.known {
		s.known, s.target = true, newest
	}
	s.mu.Unlock()
	s.wake()
}

// Report implements [tail.Handler].
func (s *subscriber) Report(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.wake()
}

func (s *subscriber) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Batch implements [tail.Handler].
func (s *subscriber) Batch() tail.Batch { return &received{subscriber: s} }

// received is a batch of a subscriber. It implements [tail.Receiver].
type received struct {
	subscriber *subscriber
	messages   []journal.Message
	last       uint64
}

// Receive implements [tail.Receiver].
func (r *received) Receive(m journal.Message) {
	r.last = m.Sequence
	if typed(r.subscriber.types, m) {
		r.messages = append(r.messages, m)
	}
}

// Add implements [tail.Batch]. It is not called, since the batch is a [tail.Receiver].
func (r *received) Add(context.Context, journal.Event) error { return errors.ErrUnsupported }

// Apply implements [tail.Batch].
func (r *received) Apply(context.Context) error {
	s := r.subscriber
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r.last
	if s.ended {
		return nil
	}
	added := 0
	for _, m := range r.messages {
		added += len(m.Data) + storedBytes
	}
	s.bytes += added
	over := s.all.add(s.tenant, added) && added > 0
	s.queue = append(s.queue, r.messages...)
	if s.sub != nil && !s.full && (over || len(s.queue) >= queuedEvents || s.bytes >= queuedBytes) {
		s.full = true
		s.sub.Pause()
	}
	s.wake()
	return nil
}

// attach makes the subscription known.
func (s *subscriber) attach(sub subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sub = sub
}

// take returns queued messages whose weights are at most a number of bytes, but one at least, with what is known when
// they have been sent: the sequence up to which the client then has all messages, and whether it has the messages from
// before the subscription.
func (s *subscriber) take(most int) (taken []journal.Message, upTo uint64, caughtUp bool, err error) {
	delivered := s.sub.Delivered() // what was passed over counts; what was queued before is in the queue
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, 0, false, s.err
	}
	for count, weight := 0, 0; count < len(s.queue) && count < queuedEvents; count++ {
		m := s.queue[count]
		if weight += weightOf(m); count > 0 && weight > most {
			break
		}
		s.bytes -= len(m.Data) + storedBytes
		s.all.add(s.tenant, -len(m.Data)-storedBytes)
		taken = append(taken, m)
	}
	s.queue = slices.Delete(s.queue, 0, len(taken))
	if len(s.queue) > 0 {
		upTo = taken[len(taken)-1].Sequence
		s.wake()
	} else {
		upTo = max(s.last, delivered)
		if s.full {
			s.full = false
			s.sub.Resume()
		}
	}
	return taken, upTo, s.known && upTo >= s.target, nil
}
