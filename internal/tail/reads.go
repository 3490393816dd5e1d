package tail

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
)

// maxReadGroup bounds the reads that share a consumer.
const maxReadGroup = 128

// errReadEnded reports that a read must be started again.
var errReadEnded = errors.New("reading the journal was interrupted")

// read is one call of [Tail.Read].
type read struct {
	tenant contextkit.TenantID
	until  uint64

	mu    sync.Mutex
	next  uint64 // the sequence to continue at
	each  func(journal.Event) error
	done  chan error // receives the result, once
	over  bool       // there is nothing more to do
	group *readGroup // that it is part of
}

// readGroup is a number of reads that share a consumer.
type readGroup struct {
	reads  map[string][]*read // by tenant
	left   atomic.Int64       // reads that are not over
	ctx    context.Context    //nolint:containedctx // of reading
	cancel context.CancelFunc
}

// end counts a read that is over.
func (g *readGroup) end() {
	if g.left.Add(-1) == 0 {
		g.cancel()
	}
}

// Read calls each for a tenant's events with sequences from from to until, in order, and returns
// each's first error. until is the sequence of one of the tenant's events that are stored. Reads
// share a bounded number of consumers, and wait for these in turn. each must not block.
func (t *Tail) Read(
	ctx context.Context, tenant contextkit.TenantID, from, until uint64, each func(journal.Event) error,
) error {
	if from > until {
		return nil
	}
	r := &read{
		tenant: tenant,
		next:   from,
		until:  until,
		each:   each,
		done:   make(chan error, 1),
	}
	for {
		t.mu.Lock()
		t.reads = append(t.reads, r)
		t.work()
		t.mu.Unlock()
		select {
		case err := <-r.done:
			if !errors.Is(err, errReadEnded) {
				return err
			}
		case <-ctx.Done():
			r.abandon()
			return ctx.Err()
		case <-t.ended:
			r.abandon()
			return context.Canceled
		}
	}
}

// abandon ends the read: each is not called any more.
func (r *read) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.over && r.group != nil {
		r.group.end()
	}
	r.over = true
}

// startReads starts a reader for the reads that wait. t.mu is held.
func (t *Tail) startReads() {
	g := &readGroup{reads: map[string][]*read{}}
	from, count := uint64(math.MaxUint64), 0
	var subjects []string
	g.ctx, g.cancel = t.derive()
	for count < maxReadGroup && len(t.reads) > 0 {
		r := t.reads[0]
		t.reads[0] = nil
		t.reads = t.reads[1:]
		r.mu.Lock()
		if !r.over {
			name := r.tenant.String()
			if len(g.reads[name]) == 0 {
				subjects = append(subjects, streams.TenantEvents(r.tenant))
			}
			g.reads[name] = append(g.reads[name], r)
			r.group = g
			g.left.Add(1)
			from = min(from, r.next)
			count++
		}
		r.mu.Unlock()
	}
	if count == 0 {
		g.cancel()
		return
	}
	t.readers++
	t.running.Go(func() {
		t.readGroup(g, subjects, from)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.readers--
		t.work()
	})
}

// readGroup reads for a group. After an error it returns after a pause.
func (t *Tail) readGroup(g *readGroup, subjects []string, from uint64) {
	defer g.cancel()
	err := t.consumeIdle(g.ctx, "read", subjects, from, func(m message) bool {
		for _, r := range g.reads[m.tenant()] {
			r.take(&m)
		}
		return g.left.Load() > 0
	})
	if err != nil && g.ctx.Err() == nil {
		t.config.Log.Warn().Err(err).Dur("again_in_ms", pauses.First).Msg("reading the journal is interrupted")
		select {
		case <-time.After(pauses.First):
		case <-g.ctx.Done():
		}
	}
	for _, reads := range g.reads {
		for _, r := range reads {
			r.interrupt()
		}
	}
}

// take takes a message.
func (r *read) take(m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || m.sequence < r.next {
		return
	}
	event, err := m.event() // a message that is no event is passed over: the views have done so
	if err == nil && m.sequence <= r.until {
		err = r.each(event)
	} else {
		err = nil
	}
	r.next = m.sequence + 1
	if err != nil || m.sequence >= r.until {
		r.over = true
		r.group.end()
		r.done <- err
	}
}

// interrupt has a read that is not over begin again.
func (r *read) interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.group = nil; !r.over {
		r.done <- errReadEnded
	}
}
