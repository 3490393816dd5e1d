package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// answered sends a request, and again while a change of leaders loses it, until it is answered or
// [answerTimeout] has passed.
func answered(ctx context.Context, request func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return natsclient.Patiently(ctx, request)
}

// openEvents returns EVENTS with its current state.
func openEvents(ctx context.Context, js jetstream.JetStream) (stream jetstream.Stream, err error) {
	err = answered(ctx, func(ctx context.Context) (err error) {
		stream, err = js.Stream(ctx, streams.Events)
		return err
	})
	return stream, err
}

// Check compares the journal with its record. It ends although ctx has no deadline: each of its
// requests is bounded by [answerTimeout].
func (i *Integrity) Check(ctx context.Context) error {
	i.checking.Lock()
	defer i.checking.Unlock()
	kept, err := i.records.read(ctx)
	if err != nil {
		return err
	}
	record := &kept.Value
	stream, err := openEvents(ctx, i.js)
	if err != nil {
		return fmt.Errorf("journal: check the journal: %w", err)
	}
	info := stream.CachedInfo()
	created := info.Created.UnixNano()
	i.checked.Store(&info.State)
	i.replicated.Store(info.Config.Replicas > 1)
	found, last, err := i.compare(ctx, stream, record)
	if err != nil {
		return fmt.Errorf("journal: check the journal: %w", err)
	}
	if end := found.End; end != nil && end.unconfirmed() && info.Config.Replicas > 1 {
		if found.End = i.confirm(*end); found.End == nil {
			last = Tail{} // nothing is recorded until it is confirmed
		}
	} else {
		i.suspected = 0
	}
	ends := func(epoch int64) uint64 { return record.acceptedEnd(created, epoch) }
	i.ends.Store(&ends) // before the epoch
	i.set(record.epoch(created), found)
	if found.End == nil && last.Sequence > record.Tail.Sequence {
		return i.records.raise(ctx, last)
	}
	return nil
}

// confirm counts the checks in a row that find the same end missing, and returns it once they
// are enough.
func (i *Integrity) confirm(end LostEnd) *LostEnd {
	if i.suspected == 0 || end.Last == i.suspect.Last {
		i.suspected++
	} else {
		i.suspected = 1 // the server still applies what it has
	}
	i.suspect = end
	if i.suspected < confirmations {
		return nil
	}
	return &end
}

// whyShort is the proof that a server may give that has just become the leader and has not
// applied everything yet.
const whyShort = "its last sequence is below the recorded one"

func (e *LostEnd) unconfirmed() bool { return e.Why == whyShort }

// compare returns the damage of the journal by its record, and the journal's last event.
func (i *Integrity) compare(
	ctx context.Context,
	stream jetstream.Stream,
	record *Record,
) (found Damage, last Tail, err error) {
	info := stream.CachedInfo()
	created, state := info.Created.UnixNano(), info.State
	epoch, tail := record.epoch(created), record.Tail
	gaps, err := i.stateGaps(ctx, stream)
	if err != nil {
		return found, last, err
	}
	recorded := tail.Sequence
	lost := func(why string) { found.End = &LostEnd{Last: state.LastSeq, Recorded: recorded, Why: why} }
	for _, finding := range record.Findings {
		switch {
		case finding.Epoch != epoch:
		case finding.Gap != (Gap{}):
			gaps = append(gaps, finding.Gap)
		default:
			recorded = max(recorded, finding.End)
			lost(finding.Why)
		}
	}
	gaps = mergeGaps(gaps)
	accepted := record.acceptedGaps(created)
	switch {
	case tail.Sequence > 0 && tail.Epoch != epoch:
		lost("the stream is not the recorded one")
	case state.LastSeq < tail.Sequence:
		lost(whyShort)
	case tail.Sequence > 0 && !inGaps(gaps, tail.Sequence):
		there, err := i.eventAt(ctx, tail.Sequence)
		if err != nil {
			return found, last, err
		}
		if there == "" {
			gaps = mergeGaps(append(gaps, Gap{tail.Sequence, tail.Sequence}))
		} else if tail.EventID != "" && there != tail.EventID {
			lost("another event is at the recorded sequence")
		}
	}
	if state.LastSeq > 0 && found.End == nil {
		last = Tail{Epoch: epoch, Sequence: state.LastSeq}
		if !inGaps(gaps, state.LastSeq) {
			if last.EventID, err = i.eventAt(ctx, state.LastSeq); err != nil {
				return found, last, err
			}
			if last.EventID == "" {
				gaps = mergeGaps(append(gaps, Gap{state.LastSeq, state.LastSeq}))
			}
		}
	}
	found.Gaps = subtractGaps(gaps, mergeGaps(accepted))
	if end := gapOf(found.Gaps, state.LastSeq); end.To > 0 && found.End == nil {
		if end.From <= max(tail.Sequence, i.lastAcked(epoch)) {
			lost("its last events cannot be read")
		} else {
			// As far as is known none of them was acknowledged: a write that fails, as on a
			// full disk, leaves its sequence without an event. Nothing is recorded of it.
			last = Tail{}
		}
	}
	found.Missing = countGaps(found.Gaps)
	return found, last, nil
}

// stateGaps returns the sequences that the stream itself reports as missing.
func (i *Integrity) stateGaps(ctx context.Context, stream jetstream.Stream) ([]Gap, error) {
	state := stream.CachedInfo().State
	var gaps []Gap
	first := max(state.FirstSeq, 1)
	switch {
	case state.Msgs == 0 && state.LastSeq > 0:
		return []Gap{{1, state.LastSeq}}, nil
	case state.Msgs == 0:
		return nil, nil
	case first > 1:
		gaps = append(gaps, Gap{1, first - 1})
	}
	missing := state.LastSeq - first + 1 - state.Msgs
	if missing == 0 || state.Msgs > state.LastSeq-first+1 {
		return gaps, nil
	}
	if missing > maxDeleted {
		return append(gaps, Gap{first + 1, first + missing}), nil // which ones is not asked
	}
	if i.deleted.first != first || i.deleted.count != missing {
		var info *jetstream.StreamInfo
		if err := answered(ctx, func(ctx context.Context) (err error) {
			info, err = stream.Info(ctx, jetstream.WithDeletedDetails(true))
			return err
		}); err != nil {
			return nil, err
		}
		i.deleted.first, i.deleted.count, i.deleted.gaps = first, missing, rangesOf(info.State.Deleted)
	}
	return append(gaps, i.deleted.gaps...), nil
}

// eventAt returns the id of the event at a sequence, "" if there is none or it cannot be read.
func (i *Integrity) eventAt(ctx context.Context, sequence uint64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	msg, err := natsclient.AskLeader(ctx, i.js, streams.Events, natsclient.Question{From: sequence})
	if msg == nil || err != nil {
		return "", err
	}
	return messageID(msg.Header, msg.Sequence), nil
}

// set stores the outcome of a check.
func (i *Integrity) set(epoch int64, found Damage) {
	var next *Damage
	if before := i.damage.Load(); found.End != nil || len(found.Gaps) > 0 {
		next, found.Since = &found, time.Now().UTC()
		if before != nil {
			found.Since = before.Since
		}
	}
	before := i.damage.Swap(next)
	if old := i.epoch.Swap(epoch); old == epoch && before.String() == next.String() {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	close(i.changed)
	i.changed = make(chan struct{})
}
