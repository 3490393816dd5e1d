package tail

import (
	"context"
	"math"
	"time"

	"github.com/headgate/headgate/internal/streams"
)

const (
	// turn bounds how long a reader reads for one subscription while others wait.
	turn = 2 * time.Second
	// readIdle bounds the wait of a reader for its next message. The first one of a large
	// journal may take seconds to be found.
	readIdle = time.Minute
)

// reader reads what subscriptions have not taken from the tail. Its fields are guarded by
// tail.mu.
type reader struct {
	tail    *Tail
	members map[string][]*Subscription // by tenant
	left    int                        // members that need more
	group   bool                       // it may have several members
	waiting bool                       // for room in a queue
	began   time.Time
	ctx     context.Context //nolint:containedctx // of reading
	cancel  context.CancelFunc
}

// startReader starts a reader for the first subscriptions of a list. t.mu is held.
func (t *Tail) startReader(waiting *list, most int, count *int) {
	r := &reader{
		tail:    t,
		members: map[string][]*Subscription{},
		group:   most > 1,
		began:   time.Now(),
	}
	from := uint64(math.MaxUint64)
	var subjects []string
	for r.left < most && waiting.len() > 0 {
		s := waiting.pop()
		if s.listedBehind = false; !s.accepting() || s.caughtUp() || s.reader != nil {
			continue
		}
		name := s.tenant.String()
		if len(r.members[name]) == 0 {
			subjects = append(subjects, streams.TenantEvents(s.tenant))
		}
		r.members[name] = append(r.members[name], s)
		r.left++
		s.reader = r
		from = min(from, s.offered+1)
	}
	if r.left == 0 {
		return
	}
	*count++
	r.ctx, r.cancel = t.derive()
	t.running.Go(func() {
		r.read(subjects, from)
		t.mu.Lock()
		defer t.mu.Unlock()
		*count--
		for _, members := range r.members {
			for _, s := range members {
				if s.reader == r {
					s.detach()
					s.catchUp()
				}
			}
		}
		t.work()
	})
}

// read reads for the members. After an error it returns after a pause.
func (r *reader) read(subjects []string, from uint64) {
	defer r.cancel()
	err := r.tail.consumeIdle(r.ctx, "reader", subjects, from, r.take)
	if err == nil || r.ctx.Err() != nil {
		return
	}
	r.tail.config.Log.Warn().Err(err).Dur("again_in_ms", pauses.First).Msg("reading the journal is interrupted")
	select {
	case <-time.After(pauses.First):
	case <-r.ctx.Done():
	}
}

// consumeIdle is consume that ends when no message arrives for readIdle.
func (t *Tail) consumeIdle(
	ctx context.Context, kind string, subjects []string, from uint64, each func(message) bool,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(readIdle, cancel)
	defer idle.Stop()
	return t.consume(ctx, kind, subjects, from, func(m message) bool {
		idle.Stop()
		defer idle.Reset(readIdle)
		return each(m)
	})
}

// take gives a message to the members that need it, and waits for room in their queues. It
// reports whether any member needs more.
func (r *reader) take(m message) bool {
	t := r.tail
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts.read++
	for _, s := range r.members[m.tenant()] {
		if s.reader != r || m.sequence <= s.offered {
			continue
		}
		r.wait(s, &m)
		if s.reader != r || r.ctx.Err() != nil {
			continue
		}
		s.offer(m)
		if s.caughtUp() {
			s.detach()
		}
	}
	t.work()
	return r.left > 0 && r.ctx.Err() == nil
}

// wait waits until a member's queue has room for a message, or the member is read later. t.mu is
// held, but while it waits.
func (r *reader) wait(s *Subscription, m *message) {
	t := r.tail
	for s.reader == r && r.ctx.Err() == nil {
		late := !r.group && time.Since(r.began) > turn && t.bulk.len() > 0
		if !late && s.room(m) {
			return
		}
		full := s.affordable(m) // its own bounds are reached
		if late || full && (r.group || s.failures > 0) {
			s.long = s.long || full && s.failures == 0
			s.detach()
			s.catchUp()
			return
		}
		r.waiting = true
		for _, members := range r.members {
			for _, member := range members {
				if member.reader == r {
					member.wake()
				}
			}
		}
		t.work()
		t.changed.Wait()
		r.waiting = false
	}
}
