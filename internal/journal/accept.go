package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// AcceptLoss accepts all damage of the journal that is known, in the name of an operator, and
// returns what was accepted. Where the end was missing, the journal continues under a new epoch:
// commands are accepted again, views are rebuilt, and positions, snapshots and cursors of the
// former epoch do not count, since they may be of lost events. Aggregates with gaps in their
// versions stay damaged. Error: [ErrNoLoss].
func AcceptLoss(ctx context.Context, js jetstream.JetStream, by, reason string) (AcceptedLoss, error) {
	i, err := openIntegrity(ctx, js)
	if err != nil {
		return AcceptedLoss{}, err
	}
	var loss AcceptedLoss
	err = i.records.change(ctx, func(record *Record) (bool, error) {
		stream, err := openEvents(ctx, js)
		if err != nil {
			return false, fmt.Errorf("journal: accept a loss: %w", err)
		}
		found, _, err := i.compare(ctx, stream, record)
		if err != nil {
			return false, fmt.Errorf("journal: accept a loss: %w", err)
		}
		if found.End == nil && len(found.Gaps) == 0 {
			return false, ErrNoLoss
		}
		created, now := stream.CachedInfo().Created.UnixNano(), time.Now().UTC()
		loss = AcceptedLoss{
			Stream:   created,
			Epoch:    record.epoch(created),
			Last:     stream.CachedInfo().State.LastSeq,
			Recorded: record.Tail.Sequence,
			Gaps:     mergeGaps(append(record.acceptedGaps(created), found.Gaps...)),
			By:       by,
			Reason:   reason,
			Time:     now,
		}
		if end := found.End; end != nil {
			loss.Epoch, loss.Recorded = now.UnixNano(), end.Recorded
			last := Tail{Epoch: loss.Epoch, Sequence: loss.Last}
			if last.Sequence > 0 && !inGaps(loss.Gaps, last.Sequence) {
				if last.EventID, err = i.eventAt(ctx, last.Sequence); err != nil {
					return false, err
				}
			}
			record.Tail = last
		}
		record.Findings = nil
		record.Accepted = append(record.Accepted, loss)
		record.Accepted = record.Accepted[max(0, len(record.Accepted)-maxAccepted):]
		return true, nil
	})
	return loss, err
}

// AcceptedLosses returns the losses that were accepted, the oldest first, as far as they are
// remembered.
func AcceptedLosses(ctx context.Context, js jetstream.JetStream) ([]AcceptedLoss, error) {
	records, err := openRecords(ctx, js)
	if err != nil {
		return nil, err
	}
	kept, err := records.read(ctx)
	return kept.Value.Accepted, err
}
