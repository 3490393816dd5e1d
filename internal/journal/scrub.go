package journal

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// scrubMessages and scrubBytes bound the part of the journal that a turn reads.
const (
	scrubMessages = 16_384
	scrubBytes    = 32 << 20
)

// scrubber reads the journal through, a bounded part per turn, from its first event to its last
// and then again: where an index of the stream survived, a message that cannot be read any more
// is missing nowhere but there. Findings are recorded, for all processes.
type scrubber struct {
	*Integrity

	next uint64 // the sequence at which to continue
}

func newScrubber(i *Integrity) *scrubber { return &scrubber{i, 1} }

// turn reads the next part, and reviews former findings.
func (s *scrubber) turn(ctx context.Context) error {
	if err := s.review(ctx); err != nil {
		return err
	}
	stream, err := openEvents(ctx, s.js)
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	var (
		gaps        []Gap
		count, size int
		unreadable  []error
	)
	errEnough := errors.New("enough")
	next := s.next
	err = natsclient.ReadBatchesWithin(
		ctx, s.js, streams.Events, "events.>", next, scrubMessages, natsclient.FewSilences,
		func(msg *jetstream.RawStreamMsg) error {
			if msg.Sequence > next {
				gaps = append(gaps, Gap{next, msg.Sequence - 1})
			}
			next, count, size = msg.Sequence+1, count+1, size+len(msg.Data)
			if _, err := ReadEvent(RawMessage(msg)); err != nil {
				unreadable = append(unreadable, err)
			}
			if size >= scrubBytes {
				return errEnough
			}
			return nil
		},
	)
	if errors.Is(err, natsclient.ErrSilent) || err == nil && count < scrubMessages && next <= last {
		// Where the server cannot read a block of its files by subject, it does not answer, or
		// answers that there are no further messages.
		if gaps, next, err = s.step(ctx, gaps, next); err == nil {
			count = scrubMessages // there may be more
		}
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if err := s.list(ctx, unreadable); err != nil {
		return err
	}
	s.next = next
	if count < scrubMessages && size < scrubBytes {
		s.next = 1 // that was the end
		s.unreadable.read()
	}
	for _, gap := range gaps {
		if err := s.record(ctx, gap); err != nil {
			return err
		}
	}
	return s.recheck(ctx)
}

// recheck checks the journal again if the stream has less than when the last check began: a server that
// cannot read a message, whether for that check or for the turn, may read the whole block again and drop
// what it cannot read from its state.
func (s *scrubber) recheck(ctx context.Context) error {
	stream, err := openEvents(ctx, s.js)
	if err != nil {
		return err
	}
	before, now := s.checked.Load(), stream.CachedInfo().State
	if before != nil && (now.LastSeq < before.LastSeq || now.Msgs < before.Msgs) {
		return s.Check(ctx)
	}
	return nil
}

// list notes messages that are no events, unless an operator has declared them no events.
func (s *scrubber) list(ctx context.Context, found []error) error {
	if len(found) == 0 {
		return nil
	}
	declared, err := declaredIn(ctx, s.js)
	if err != nil {
		return err
	}
	for _, err := range found {
		if e, ok := errors.AsType[*UnreadableError](err); ok && !declared(e) {
			s.unreadable.find(e)
		}
	}
	return nil
}

// scrubSteps bounds the messages that are asked for one by one in a turn.
const scrubSteps = 4096

// step reads on message by message, where the server cannot read a block of its files by subject.
func (s *scrubber) step(ctx context.Context, gaps []Gap, next uint64) ([]Gap, uint64, error) {
	stream, err := openEvents(ctx, s.js)
	if err != nil {
		return gaps, next, err
	}
	last := stream.CachedInfo().State.LastSeq
	for steps := 0; steps < scrubSteps && next <= last; steps++ {
		id, err := s.eventAt(ctx, next)
		if err != nil {
			return gaps, next, err
		}
		if id == "" {
			gaps = append(gaps, Gap{next, next})
		}
		next++
	}
	if next > last {
		next = 1
	}
	return mergeGaps(gaps), next, nil
}

// record records a gap that is not known, if the leader of the stream lacks its messages too: the
// batches may have been a replica's.
func (s *scrubber) record(ctx context.Context, gap Gap) error {
	if damage := s.damage.Load(); damage != nil && len(subtractGaps([]Gap{gap}, damage.Gaps)) == 0 {
		return nil
	}
	kept, err := s.records.read(ctx)
	if err != nil {
		return err
	}
	stream, err := openEvents(ctx, s.js)
	if err != nil {
		return err
	}
	created := stream.CachedInfo().Created.UnixNano()
	for _, left := range subtractGaps([]Gap{gap}, mergeGaps(kept.Value.acceptedGaps(created))) {
		id, err := s.eventAt(ctx, left.From)
		if err != nil {
			return err
		}
		if id != "" {
			continue
		}
		finding := Finding{
			Epoch: kept.Value.epoch(created),
			Gap:   left,
			Why:   "the messages cannot be read",
			Time:  time.Now().UTC(),
		}
		if err := s.records.change(
			ctx, func(record *Record) (bool, error) { return record.find(finding), nil },
		); err != nil {
			return err
		}
	}
	return nil
}

// reviewed bounds the findings that a turn reviews.
const reviewed = 16

// review removes findings of gaps whose messages can be read again, since the stream was
// restored, or another of its servers leads.
func (s *scrubber) review(ctx context.Context) error {
	kept, err := s.records.read(ctx)
	if err != nil {
		return err
	}
	whole := map[Gap]bool{}
	for n, finding := range kept.Value.Findings {
		if n == reviewed {
			break
		}
		if finding.Gap == (Gap{}) {
			continue
		}
		first, err := s.eventAt(ctx, finding.Gap.From)
		if err != nil {
			return err
		}
		last, err := s.eventAt(ctx, finding.Gap.To)
		if err != nil {
			return err
		}
		if first != "" && last != "" {
			whole[finding.Gap] = true
		}
	}
	if len(whole) == 0 {
		return nil
	}
	return s.records.change(ctx, func(record *Record) (bool, error) {
		var left []Finding
		for _, finding := range record.Findings {
			if !whole[finding.Gap] {
				left = append(left, finding)
			}
		}
		changed := len(left) < len(record.Findings)
		record.Findings = left
		return changed, nil
	})
}
