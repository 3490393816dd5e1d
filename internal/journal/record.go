package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// recordKey is the only key of [streams.BucketJournal].
const recordKey = "record"

// maxAccepted bounds the accepted losses that are remembered, the newest, and maxRecordTries how
// often a change of the record is made again because another process came first.
const maxAccepted, maxRecordTries = 64, 8

// Record is the record of the journal outside its stream, by which a loss is noticed.
type Record struct {
	// Tail is an event near the journal's end.
	Tail Tail `json:"tail"`
	// Findings are damages that not every process can see by itself.
	Findings []Finding `json:"findings,omitempty"`
	// Accepted are the losses that operators have accepted, the oldest first.
	Accepted []AcceptedLoss `json:"accepted,omitempty"`
}

// Tail is an event that the journal had.
type Tail struct {
	// Epoch is the journal's, see [Journal.Epoch].
	Epoch    int64  `json:"epoch"`
	Sequence uint64 `json:"sequence"`
	// EventID is the event's id.
	EventID string `json:"event_id"`
}

// Finding is damage that one process has found.
type Finding struct {
	Epoch int64 `json:"epoch"`
	// Gap are sequences that cannot be read; End, with a zero Gap, is a sequence that the
	// journal had and does not have any more.
	Gap Gap    `json:"gap,omitzero"`
	End uint64 `json:"end,omitempty"`
	// Why is the proof.
	Why  string    `json:"why,omitempty"`
	Time time.Time `json:"time"`
}

// AcceptedLoss is a loss that an operator has accepted.
type AcceptedLoss struct {
	// Stream is when the stream was created, in nanoseconds since 1970.
	Stream int64 `json:"stream"`
	// Epoch is the journal's from then on: a new one if the end was lost, so that positions,
	// snapshots and views of lost events do not count.
	Epoch int64 `json:"epoch"`
	// Last is the journal's last sequence at that time, and Recorded its last recorded sequence.
	Last     uint64 `json:"last"`
	Recorded uint64 `json:"recorded"`
	// Gaps are all sequences before Last that are accepted as missing.
	Gaps []Gap `json:"gaps,omitempty"`
	// By is the operator's subject, Reason their reason.
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
}

// accepted returns the newest accepted loss of the stream that was created then, nil if there is
// none.
func (r *Record) accepted(created int64) *AcceptedLoss {
	for n := len(r.Accepted) - 1; n >= 0; n-- {
		if r.Accepted[n].Stream == created {
			return &r.Accepted[n]
		}
	}
	return nil
}

// epoch returns the epoch of the stream that was created then.
func (r *Record) epoch(created int64) int64 {
	if loss := r.accepted(created); loss != nil {
		return loss.Epoch
	}
	return created
}

// acceptedGaps returns the gaps of the stream that operators have accepted.
func (r *Record) acceptedGaps(created int64) []Gap {
	if loss := r.accepted(created); loss != nil {
		return loss.Gaps
	}
	return nil
}

// acceptedEnd returns up to where sequences of an epoch count in the stream that was created then:
// the least of the ends that were accepted after the epoch began.
func (r *Record) acceptedEnd(created, epoch int64) uint64 {
	end := uint64(math.MaxUint64)
	for _, loss := range slices.Backward(r.Accepted) {
		if loss.Epoch == epoch {
			break
		}
		if loss.Stream == created {
			end = min(end, loss.Last)
		}
	}
	return end
}

// find adds a finding, and reports whether it was not known.
func (r *Record) find(finding Finding) bool {
	if finding.Gap == (Gap{}) {
		if slices.ContainsFunc(
			r.Findings,
			func(f Finding) bool { return f.Epoch == finding.Epoch && f.End >= finding.End },
		) {
			return false
		}
	} else if slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Epoch == finding.Epoch && f.Gap.From <= finding.Gap.From && finding.Gap.To <= f.Gap.To
	}) {
		return false
	}
	r.Findings = slices.DeleteFunc(r.Findings, func(f Finding) bool { return f.Epoch != finding.Epoch })
	if len(r.Findings) >= maxGaps {
		return false // the damage is known; not all of it is listed
	}
	r.Findings = append(r.Findings, finding)
	return true
}

// records is the bucket of the record.
type records struct{ *kv.Bucket[Record] }

func openRecords(ctx context.Context, js jetstream.JetStream) (records, error) {
	var bucket *kv.Bucket[Record]
	err := answered(ctx, func(ctx context.Context) (err error) {
		bucket, err = kv.Open[Record](ctx, js, streams.BucketJournal)
		return err
	})
	return records{bucket}, err
}

// read returns the record, an empty one if there is none.
func (r records) read(ctx context.Context) (kv.Entry[Record], error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	kept, err := r.Get(ctx, recordKey)
	if errors.Is(err, kv.ErrNotFound) {
		err = nil
	}
	return kept, err
}

// change changes the record, again when another process came first. change reports whether there
// is anything to store, or an error, which is returned.
func (r records) change(ctx context.Context, change func(*Record) (bool, error)) error {
	for range maxRecordTries {
		kept, err := r.read(ctx)
		if err != nil {
			return err
		}
		if changed, err := change(&kept.Value); !changed || err != nil {
			return err
		}
		if _, err = r.Put(ctx, recordKey, kept.Value, kept.Revision); !errors.Is(err, kv.ErrChanged) {
			return err
		}
	}
	return fmt.Errorf("journal: the journal's record: %w", kv.ErrChanged)
}

// raise records an event near the journal's end, unless a later one is recorded.
func (r records) raise(ctx context.Context, tail Tail) error {
	return r.change(ctx, func(record *Record) (bool, error) {
		if record.Tail.Sequence > 0 && (record.Tail.Epoch != tail.Epoch || record.Tail.Sequence >= tail.Sequence) {
			return false, nil
		}
		record.Tail = tail
		return true, nil
	})
}
