package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/internal/journal"
)

// gatherTime bounds how long events wait for others that are known to come, to be applied
// together.
const gatherTime = 5 * time.Millisecond

// askCursors reads where a subscription is, and what the tenant's last event is.
func (t *Tail) askCursors(s *Subscription) {
	ctx := s.ctx
	cursor, last, err := t.cursors(ctx, s)
	recovered, newest := false, uint64(0)
	if err != nil {
		s.report(ctx, err)
	}
	t.mu.Lock()
	started := err == nil && !s.renewed
	if started {
		s.known, s.asked = true, true
		s.offered, s.delivered = cursor, cursor
		s.newest = max(s.newest, last)
		newest = s.newest
		// Where nothing waits, no event will show that it advances again.
		if recovered = s.failures > 0 && s.caughtUp(); recovered {
			s.failures = 0
		}
	}
	t.mu.Unlock()
	if starter, ok := s.handler.(Starter); ok && started {
		starter.Start(newest)
	}
	if recovered {
		s.handler.Report(nil)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.end(err)
}

func (t *Tail) cursors(ctx context.Context, s *Subscription) (cursor, last uint64, err error) {
	if cursor, err = s.handler.Cursor(ctx); err != nil {
		return 0, 0, err
	}
	place, err := t.journal.LastPlace(ctx, s.tenant)
	if err != nil {
		return 0, 0, err
	}
	if err := t.prove(ctx, s, cursor, place); err != nil {
		return 0, 0, err
	}
	return cursor, place.Sequence, nil
}

// prove compares a subscription's cursor with the journal, in which last is the tenant's last place.
// Where the cursor is at it, which is the rule, that costs no request. Errors: [ErrShorter],
// [ErrDiverged].
func (t *Tail) prove(ctx context.Context, s *Subscription, cursor uint64, last journal.Place) error {
	if cursor > max(last.Sequence, t.Position()) {
		// Another node may have read more than this one. If not even the journal has it, the
		// journal has lost its end.
		stream, err := t.stream(ctx)
		if err != nil {
			return err
		}
		if end := stream.State.LastSeq; cursor > end {
			return fmt.Errorf("%w: at %d, after %d", ErrShorter, cursor, end)
		}
	}
	prover, ok := s.handler.(Prover)
	if !ok || cursor == 0 {
		return nil
	}
	if last.Sequence != cursor {
		var err error
		if last, err = t.journal.PlaceAt(ctx, cursor); err != nil {
			return err
		}
	}
	id := prover.CursorEvent()
	if last.Sequence == cursor && (last.Tenant != s.tenant || id != "" && last.EventID != id) {
		return fmt.Errorf("%w: %d", ErrDiverged, cursor)
	}
	return nil // also if there is no event: that is another damage, which the journal's integrity reports
}

// report reports an error to the handler, unless its context has ended.
func (s *Subscription) report(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.handler.Report(err)
	}
}

// session applies a subscription's events until none is queued, or until another subscription
// waits for a session.
func (t *Tail) session(s *Subscription) {
	ctx := s.ctx
	err := t.apply(ctx, s)
	if err != nil {
		s.report(ctx, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.end(err)
}

// filled is a batch that is ready to be applied.
type filled struct {
	batch Batch
	count int
	bytes int64
	last  uint64
	err   error // of the event after the batch
}

// pass has a message passed over that is no event.
func (f *filled) pass(sequence uint64) {
	if passer, ok := f.batch.(Passer); ok {
		passer.Pass(sequence)
		f.count++
	}
}

func (t *Tail) apply(ctx context.Context, s *Subscription) error {
	next := t.fill(ctx, s, nil)
	for next != nil {
		b := next
		next = nil
		// The next batch is prepared concurrently, if the session may continue.
		ahead, applied := (chan *filled)(nil), make(chan struct{})
		if b.err == nil && t.mayGoOn(s) {
			ahead = make(chan *filled, 1)
			go func() { ahead <- t.fill(ctx, s, applied) }()
		}
		var err error
		if b.count > 0 {
			err = b.batch.Apply(ctx)
		}
		close(applied)
		if ahead != nil {
			next = <-ahead
		}
		if err != nil {
			return err
		}
		t.applied(s, b)
		if b.err != nil {
			return b.err
		}
		if t.ends(s) {
			return nil
		}
	}
	return nil
}

// mayGoOn reports whether the session should make another batch ready: more events are known, and
// no other subscription waits for a session.
func (t *Tail) mayGoOn(s *Subscription) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ready.len() == 0 && (len(s.queue) > 0 || s.reader != nil) && s.accepting()
}

// ends reports whether the session ends although a batch is ready: the events after the cursor of a
// subscription that was reset come first.
func (t *Tail) ends(s *Subscription) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return s.paused || s.renewed || s.stopped || t.over
}

// applied records that a batch has taken effect.
func (t *Tail) applied(s *Subscription, b *filled) {
	t.mu.Lock()
	s.delivered = max(s.delivered, b.last)
	s.inFlight -= b.bytes
	if s.overdue {
		s.overdue = false
		s.slot = &t.sessions
		t.sessions++
		t.overdue--
		t.used += s.inFlight
	} else {
		t.used -= b.bytes
	}
	s.since = time.Now()
	t.counts.applied += uint64(b.count)
	recovered := s.failures > 0 && b.err == nil && b.count > 0
	if recovered {
		s.failures = 0
	}
	s.catchUp()
	t.changed.Broadcast()
	t.work()
	t.mu.Unlock()
	if recovered {
		s.handler.Report(nil)
	}
}

// fill makes a batch of the queued events, nil if there are none. It waits a moment for events that
// are known to come; while the batch before is being applied, until that has been.
func (t *Tail) fill(ctx context.Context, s *Subscription, applied <-chan struct{}) *filled {
	var (
		f    *filled
		late <-chan time.Time
	)
	for f == nil || f.count < s.options.Events && f.bytes < s.options.Bytes {
		taken, expected := t.take(s, f)
		if len(taken) > 0 && f == nil {
			f = &filled{batch: s.handler.Batch()}
		}
		for i := range taken {
			m := &taken[i]
			if receiver, ok := f.batch.(Receiver); ok {
				receiver.Receive(m.stored())
				f.count, f.bytes, f.last = f.count+1, f.bytes+m.size(), m.sequence
				continue
			}
			event, err := m.event()
			if unreadable, ok := errors.AsType[*journal.UnreadableError](err); ok {
				t.journal.Unreadable(unreadable)
				f.pass(m.sequence)
				f.bytes, f.last = f.bytes+m.size(), m.sequence
				continue
			}
			if err := f.batch.Add(ctx, event); err != nil {
				f.err = fmt.Errorf("event at sequence %d: %w", m.sequence, err)
				return f
			}
			f.count, f.bytes, f.last = f.count+1, f.bytes+m.size(), m.sequence
		}
		if len(taken) > 0 {
			continue
		}
		var wait <-chan time.Time
		switch {
		case applied != nil: // until then
		case f == nil || !expected:
			return f
		default:
			if late == nil {
				late = time.After(gatherTime)
			}
			wait = late
		}
		select {
		case <-s.arrived:
		case <-wait:
			return f
		case <-applied:
			applied = nil // what has arrived is taken
			if f == nil {
				f = t.fill(ctx, s, nil)
				return f
			}
			late = closedTimer
		case <-ctx.Done():
			return f
		}
	}
	return f
}

// closedTimer is a timer that has fired.
var closedTimer = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// take takes queued events, as many as the batch has room for, and reports whether more are
// expected soon.
func (t *Tail) take(s *Subscription, f *filled) (taken []message, expected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.arrived == nil {
		s.arrived = make(chan struct{}, 1)
	}
	events, bytes := s.options.Events, s.options.Bytes
	if f != nil {
		events, bytes = events-f.count, bytes-f.bytes
	}
	count, size := 0, int64(0)
	for count < len(s.queue) && count < events && size < bytes {
		size += s.queue[count].size()
		count++
	}
	taken = s.queue[:count:count]
	if s.queue = s.queue[count:]; len(s.queue) == 0 {
		s.queue = nil
	}
	s.queueBytes -= size
	s.inFlight += size
	if count > 0 && s.reader != nil {
		t.changed.Broadcast() // its queue has room again
	}
	return taken, s.reader != nil && !s.caughtUp()
}
