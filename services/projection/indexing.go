package projection

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/services/projection/store"
)

// An index of aggregates that a version without one has left behind is filled from the journal, by one goroutine of the
// node, when aggregates of its tenant are first searched. Tenants take turns: a turn reads a bounded part of the
// journal.

const (
	// maxFillRead bounds the messages of a turn, maxFillBytes their data, and maxFillWait the wait of a call for the
	// index.
	maxFillRead, maxFillBytes = 5000, 16 << 20
	maxFillWait               = 500 * time.Millisecond
	// maxFilling bounds the indexes that wait for their turn.
	maxFilling = 4096
	// fillAgain is the delay after a turn that has failed.
	fillAgain = time.Second
)

// indexing are the indexes that are being filled.
type indexing struct {
	queue chan *follower
	count atomic.Int64 // queued, or having their turn
}

var indexingMetric = prometheus.NewDesc(
	"headgate_projection_indexing_tenants",
	"Tenants whose index of aggregates is being filled from the journal, after the upgrade from a version without one.",
	nil,
	nil,
)

// awaitIndex makes the node fill a follower's index if it is behind, and waits briefly for that.
func (s *Service) awaitIndex(ctx context.Context, f *follower) {
	ctx, cancel := context.WithTimeout(ctx, maxFillWait)
	defer cancel()
	indexed, err := f.rows.Aggregates(ctx, store.Lookup{}, nil)
	if err != nil || indexed.Complete() { // the caller's read reports the error
		return
	}
	s.fillLater(f)
	_ = f.wait(ctx, func() bool { return !f.filling }) // the response reports the progress of the index
}

// fillLater queues a follower's index, unless it is queued.
func (s *Service) fillLater(f *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.filling {
		return
	}
	select {
	case s.indexing.queue <- f:
		f.filling = true
		s.indexing.count.Add(1)
	default: // a later call tries again
	}
}

// fillIndexes fills the queued indexes until ctx ends.
func (s *Service) fillIndexes(ctx context.Context) {
	for {
		var f *follower
		select {
		case f = <-s.indexing.queue:
		case <-ctx.Done():
			return
		}
		done, err := s.fillPart(ctx, f)
		if err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Str("tenant", f.tenant.String()).Msg(
				"filling the index of aggregates failed; it continues when aggregates are searched",
			)
			select {
			case <-time.After(fillAgain):
			case <-ctx.Done():
			}
		}
		if !done && err == nil {
			select {
			case s.indexing.queue <- f: // for its next turn
				continue
			default: // a later call queues it
			}
		}
		s.indexing.count.Add(-1)
		f.mu.Lock()
		f.filling = false
		f.notify()
		f.mu.Unlock()
	}
}

// fillPart adds the next part of the journal to a follower's index, and reports whether the index is complete, or the
// follower has ended.
func (s *Service) fillPart(ctx context.Context, f *follower) (done bool, err error) {
	leave, ok := f.enter()
	if !ok || f.epoch != s.journal.Epoch() { // views of another journal are replaced
		if ok {
			leave()
		}
		return true, nil
	}
	defer leave()
	indexed, err := f.rows.Aggregates(ctx, store.Lookup{}, nil)
	if err != nil || indexed.Complete() {
		return true, err
	}
	part := journal.Range{
		Subject: journal.EventsOf(f.tenant, "", ""),
		From:    indexed.Sequence + 1,
		Before:  indexed.Applied + 1,
	}
	var (
		begun []store.Aggregate
		bytes int
	)
	next, err := s.journal.Scan(ctx, part, maxFillRead, func(m journal.Message) bool {
		if bytes += len(m.Data); bytes > maxFillBytes && bytes > len(m.Data) {
			return false
		}
		if !journal.IsFirst(m.Header) {
			return true
		}
		if event, err := journal.ReadEvent(m); err == nil {
			begun = append(begun, store.Aggregate{
				Type:    event.AggregateType,
				ID:      event.AggregateID,
				Event:   eventType(event.Type),
				Created: event.Time.UTC().Format(time.RFC3339Nano),
			})
		}
		return true
	})
	if err != nil {
		return false, err
	}
	to := indexed.Applied
	if next > 0 {
		to = next - 1
	}
	f.applying.Lock()
	defer f.applying.Unlock()
	err = f.rows.Apply(ctx, func(batch *store.Batch, _ store.State) error {
		batch.Fill(indexed.Sequence, to, begun)
		return nil
	})
	return false, err
}
