package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// maxListed bounds the faults of each kind that a [Report] lists; it counts the others.
const maxListed = 100

// Report is what [Verify] has found.
type Report struct {
	// Events is the number of events that were read, and Aggregates of how many aggregates.
	Events, Aggregates int
	// Tenants are those of the events and of the snapshots, in order.
	Tenants []string
	// Last is the last sequence that the journal has, and Epoch its epoch, see [Journal.Epoch].
	Last  uint64
	Epoch int64
	// Damage is the damage that the stream's state and its record show; nil: none.
	Damage *Damage
	// Gaps are the sequences that cannot be read, and Accepted those of them whose loss an
	// operator has accepted, which Gaps does not have.
	Gaps, Accepted []Gap
	// NonEvents is the number of messages that operators have declared no events.
	NonEvents int
	// Faults are the aggregates whose versions have gaps, the snapshots that the journal ends
	// before, and the messages that are no events, as texts; More is how many are not listed.
	Faults []string
	More   int
}

// Whole reports whether nothing was found but accepted losses. Aggregates that lack versions are
// faults, accepted or not, since they answer DATA_LOSS.
func (r *Report) Whole() bool {
	return r.Damage == nil && len(r.Gaps) == 0 && len(r.Faults) == 0
}

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) == maxListed {
		r.More++
		return
	}
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// Verify reads the whole journal and compares it with its record and with the snapshots of
// aggregates. It holds a few dozen bytes per aggregate, and changes nothing but the record, as a
// node that starts does.
func Verify(ctx context.Context, js jetstream.JetStream) (*Report, error) {
	health, err := openIntegrity(ctx, js)
	if err != nil {
		return nil, err
	}
	stream, err := openEvents(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("journal: verify the journal: %w", err)
	}
	report, newest := &Report{Damage: health.Damage()}, map[string]verified{}
	declared, err := declaredIn(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("journal: verify the journal: %w", err)
	}
	next, last := uint64(1), stream.CachedInfo().State.LastSeq
	take := func(msg *jetstream.RawStreamMsg) error {
		if msg.Sequence > last {
			return errVerified
		}
		if msg.Sequence > next {
			report.Gaps = append(report.Gaps, Gap{next, msg.Sequence - 1})
		}
		next = msg.Sequence + 1
		report.verify(newest, msg, declared)
		return nil
	}
	for next <= last {
		err := natsclient.ReadBatchesWithin(ctx, js, streams.Events, "events.>", next, math.MaxInt,
			natsclient.FewSilences, take)
		if errors.Is(err, natsclient.ErrSilent) { // the server cannot read a block by subject: message by message
			var msg *jetstream.RawStreamMsg
			for step := next; step <= last && step < next+natsclient.BatchSize && err != nil; step++ {
				if msg, err = natsclient.AskLeader(
					ctx, js, streams.Events, natsclient.Question{From: step},
				); err == nil && msg != nil {
					err = take(msg)
				} else if err == nil {
					report.Gaps, next = append(report.Gaps, Gap{step, step}), step+1
				}
			}
		} else if err == nil {
			break
		}
		if errors.Is(err, errVerified) {
			break
		}
		if err != nil && !errors.Is(err, natsclient.ErrSilent) {
			return nil, fmt.Errorf("journal: verify the journal: %w", err)
		}
	}
	if next <= last {
		report.Gaps = append(report.Gaps, Gap{next, last})
	}
	kept, err := health.records.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("journal: verify the journal: %w", err)
	}
	found := mergeGaps(report.Gaps)
	report.Gaps = subtractGaps(found, mergeGaps(kept.Value.acceptedGaps(stream.CachedInfo().Created.UnixNano())))
	report.Accepted, report.Aggregates = subtractGaps(found, report.Gaps), len(newest)
	report.Last, report.Epoch = last, health.epoch.Load()
	err = report.snapshots(ctx, js, newest, health.epoch.Load())
	tenants := map[string]bool{}
	for name := range newest {
		tenant, _, _ := strings.Cut(name, ".")
		tenants[tenant] = true
	}
	report.Tenants = slices.Sorted(maps.Keys(tenants))
	return report, err
}

// errVerified ends the reading of the journal.
var errVerified = errors.New("verified")

// verified is how far an aggregate was read.
type verified struct {
	Chain

	sequence uint64
}

// verify checks that a message continues its aggregate's versions.
func (r *Report) verify(newest map[string]verified, msg *jetstream.RawStreamMsg, declared func(*UnreadableError) bool) {
	r.Events++
	name := strings.TrimPrefix(msg.Subject, "events.")
	before := newest[name]
	event, err := ReadEvent(RawMessage(msg))
	if e, ok := errors.AsType[*UnreadableError](err); ok {
		if declared(e) {
			r.NonEvents++
		} else {
			r.fault("subject %s: %v", msg.Subject, err)
		}
		before.Pass(e.Version)
		newest[name] = verified{before.Chain, msg.Sequence} // a snapshot may be of after it
		return
	}
	if !before.Continues(event.Version) {
		r.fault("aggregate %s: version %d at sequence %d follows version %d", name, event.Version, msg.Sequence,
			before.Version)
	}
	before.Next(event.Version)
	newest[name] = verified{before.Chain, msg.Sequence}
}

// snapshots compares the aggregates' snapshots with their events.
func (r *Report) snapshots(ctx context.Context, js jetstream.JetStream, newest map[string]verified, epoch int64) error {
	prefix := "$KV." + streams.BucketSnapshots + "."
	return natsclient.ReadBatches(
		ctx, js, streams.BucketStream(streams.BucketSnapshots), prefix+">", 1, 0,
		func(msg *jetstream.RawStreamMsg) error {
			var snapshot struct {
				Epoch    int64  `json:"epoch"`
				Version  int64  `json:"version"`
				Sequence uint64 `json:"sequence"`
			}
			if counts := msg.Header.Get("KV-Operation") == "" && json.Unmarshal(msg.Data, &snapshot) == nil &&
				snapshot.Epoch == epoch; !counts {
				return nil
			}
			name := strings.TrimPrefix(msg.Subject, prefix)
			has := newest[name]
			newest[name] = has // its tenant counts
			if has.sequence < snapshot.Sequence {
				r.fault("aggregate %s: the journal ends at version %d, before its snapshot of version %d", name,
					has.Version, snapshot.Version)
			}
			return nil
		},
	)
}
