package journal

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// checkEvery is the interval between checks of the journal, which send four requests each.
	checkEvery = time.Minute
	// retryEvery is the delay before a failed check is retried.
	retryEvery = 5 * time.Second
	// recordEvery is the interval at which the journal's last acknowledged event is recorded outside of the journal.
	recordEvery = 5 * time.Second
	// confirmEvery is the interval between the checks that confirm a missing end in a cluster, and confirmations the
	// number of consecutive checks that must agree: a server that has just become the leader may not have applied all
	// of its messages yet.
	confirmEvery  = time.Second
	confirmations = 10
	// answerTimeout bounds each request of a check. A change of leaders, which loses requests, takes less time.
	answerTimeout = 10 * time.Second
	// maxDeleted bounds the number of missing messages whose sequences are requested.
	maxDeleted = 1_000_000
)

// lastWriteTimeout bounds the write of the record when a process stops.
const lastWriteTimeout = 2 * time.Second

// Integrity checks the integrity of the journal. The stream EVENTS denies deletion, so that each of the following
// proves damage: a first sequence above 1, missing sequences, a last sequence below a recorded sequence or a view's
// checkpoint, another event at a recorded sequence, another stream. Its methods may be called concurrently.
type Integrity struct {
	js      jetstream.JetStream
	records records
	epoch   atomic.Int64
	ends    atomic.Pointer[func(epoch int64) uint64] // of the record as it was read last
	damage  atomic.Pointer[Damage]                   // nil: none

	replicated atomic.Bool
	checked    atomic.Pointer[jetstream.StreamState] // that the last check has begun with; nil: none

	checking  sync.Mutex // held during a check
	suspected int        // number of consecutive checks that found the end missing and were not confirmed yet
	suspect   LostEnd    // the result of the last of them
	deleted   struct {   // the missing sequences that were requested last
		first, count uint64
		gaps         []Gap
	}

	reached chan noted // findings of Reached and Diverged

	unreadable unreadable // messages that are not events

	mu      sync.Mutex
	acked   Tail          // the last event that this process appended and JetStream acknowledged
	changed chan struct{} // closed and replaced when the damage or the epoch changes
}

// openIntegrity returns the integrity of the journal after a first check.
func openIntegrity(ctx context.Context, js jetstream.JetStream) (*Integrity, error) {
	records, err := openRecords(ctx, js)
	if err != nil {
		return nil, err
	}
	i := &Integrity{
		js:      js,
		records: records,
		changed: make(chan struct{}),
		reached: make(chan noted, 1),
	}
	return i, i.Check(contextkit.PlatformContext(ctx))
}

// Damage returns the known damage of the journal; nil: none. The caller must not change it.
func (i *Integrity) Damage() *Damage { return i.damage.Load() }

// Degraded returns the journal as a degraded part with the reason, if it is damaged; otherwise nil.
func (i *Integrity) Degraded() map[string]string {
	if damage := i.damage.Load(); damage != nil {
		return map[string]string{DegradedJournal: damage.String()}
	}
	return nil
}

// DegradedJournal names the journal among the degraded parts of a node.
const DegradedJournal = "journal"

// Appendable returns [ErrEndMissing] with its proof while no events may be appended; otherwise nil.
func (i *Integrity) Appendable() error {
	damage := i.damage.Load()
	if damage == nil || damage.End == nil {
		return nil
	}
	return fmt.Errorf("%w (%s)", ErrEndMissing, damage.End.Why)
}

// Changed returns a channel that is closed at the next change of the damage or the epoch.
func (i *Integrity) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

// acknowledged records the last event of an append.
func (i *Integrity) acknowledged(event *Event) {
	i.mu.Lock()
	if event.Sequence > i.acked.Sequence {
		i.acked = Tail{Epoch: i.epoch.Load(), Sequence: event.Sequence, EventID: event.ID}
	}
	i.mu.Unlock()
}

// lastAcked returns the sequence of the last acknowledged event that this process has appended in an epoch.
func (i *Integrity) lastAcked(epoch int64) uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.acked.Epoch != epoch {
		return 0
	}
	return i.acked.Sequence
}

// Report records that the journal's end is missing: it had the sequence, as data that was derived from it shows, such
// as a view's checkpoint, and no longer has it.
func (i *Integrity) Report(ctx context.Context, sequence uint64, why string) error {
	ctx = contextkit.PlatformContext(ctx)
	epoch := i.epoch.Load()
	err := i.records.change(ctx, func(record *Record) (bool, error) {
		return record.find(Finding{
			Epoch: epoch,
			End:   sequence,
			Why:   why,
			Time:  time.Now().UTC(),
		}), nil
	})
	if err != nil {
		return err
	}
	return i.Check(ctx)
}

// noted is a finding, which Run checks and records.
type noted struct {
	Finding

	proven bool // it is damage; otherwise it is damage only if the journal ends before the sequence
}

// Reached lets Run compare the journal's end with a sequence that data derived from the journal of an epoch has
// reached, such as a view. It does not block.
func (i *Integrity) Reached(epoch int64, sequence uint64, why string) {
	i.note(noted{Finding: Finding{Epoch: epoch, End: sequence, Why: why}})
}

// Diverged lets Run record that the journal of an epoch has another event at a sequence than before: it was restored to
// an earlier state, and continued with other events. It does not block.
func (i *Integrity) Diverged(epoch int64, sequence uint64, why string) {
	i.note(noted{Finding{Epoch: epoch, End: sequence, Why: why}, true})
}

// note passes a finding to Run. If Run is busy with another finding, it is dropped; the caller will find it again.
func (i *Integrity) note(found noted) {
	if found.Epoch != i.epoch.Load() || i.Appendable() != nil { // the loss was accepted, or is known
		return
	}
	select {
	case i.reached <- found:
	default:
	}
}

// verify records a finding if it is damage. A reached sequence is damage if the journal ends before it; in a cluster,
// several checks must confirm that.
func (i *Integrity) verify(ctx context.Context, noted noted) error {
	if noted.Epoch != i.epoch.Load() {
		return nil // an operator has accepted the loss
	}
	if noted.proven {
		return i.Report(ctx, noted.End, noted.Why)
	}
	for looks := 1; ; looks++ {
		stream, err := openEvents(ctx, i.js)
		if err != nil || stream.CachedInfo().State.LastSeq >= noted.End {
			return err
		}
		if !i.replicated.Load() || looks == confirmations {
			return i.Report(ctx, noted.End, noted.Why)
		}
		select {
		case <-time.After(confirmEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run checks the journal every minute, after each reconnection and when the record of the journal changes, and records
// the journal's tail, until ctx ends. With scrub it also reads the whole journal in parts (see scrubber), which only
// one process of a platform must do.
func (i *Integrity) Run(ctx context.Context, scrub bool, log zerolog.Logger) error {
	ctx = contextkit.PlatformContext(ctx)
	log = log.With().Str("stream", streams.Events).Logger()
	i.unreadable.logTo(&log)
	var running sync.WaitGroup
	defer running.Wait()
	reader, findings := newScrubber(i), findingsLog{log: log}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	revised := make(chan struct{}, 1)
	running.Go(func() { i.followRecord(ctx, revised) })
	connected := i.js.Conn().StatusChanged(nats.CONNECTED)
	defer i.js.Conn().RemoveStatusListener(connected)
	next := time.NewTimer(0)
	defer next.Stop()
	record := time.NewTicker(recordEvery)
	defer record.Stop()
	full := true // the next check includes a part of the scrub
	for {
		select {
		case <-ctx.Done():
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), lastWriteTimeout)
			defer stop()
			_ = i.recordAcked(last) // after an error, the next check of any process records it
			return nil
		case <-record.C:
			_ = i.recordAcked(ctx) // after an error, it is retried
			continue
		case noted := <-i.reached:
			_ = i.verify(ctx, noted) // after an error, it is found again
		case <-next.C:
		case <-revised:
		case _, open := <-connected:
			if !open {
				connected = nil
				continue
			}
			full = true
		}
		err := i.Check(ctx)
		if err == nil && scrub && full {
			err = reader.turn(ctx)
		}
		if ctx.Err() != nil {
			continue
		}
		findings.report(err, i.damage.Load())
		wait := checkEvery
		full = true
		switch {
		case i.confirming():
			wait, full = confirmEvery, false
		case err != nil:
			wait = retryEvery
		}
		next.Reset(wait)
	}
}

// findingsLog logs the results of checks when they change.
type findingsLog struct {
	log             zerolog.Logger
	failure, damage string // as last logged
}

// report logs the error of a check, and the known damage; nil: none.
func (l *findingsLog) report(err error, damage *Damage) {
	if err == nil {
		l.failure = ""
	} else if text := err.Error(); text != l.failure {
		l.log.Warn().Err(err).Msg("the journal cannot be checked; retrying")
		l.failure = text
	}
	switch {
	case damage != nil && damage.String() != l.damage:
		l.damage = damage.String()
		l.log.Error().Any("damage", damage).Msg(l.damage)
	case damage == nil && l.damage != "":
		l.damage = ""
		l.log.Info().Msg("the journal's damage is gone, or its loss was accepted")
	}
}

// followRecord sends to revised when losses or findings are recorded, until ctx ends.
func (i *Integrity) followRecord(ctx context.Context, revised chan<- struct{}) {
	known := [2]int{-1, -1}
	i.records.Follow(ctx, func(all map[string]kv.Entry[Record]) {
		record := all[recordKey].Value
		now := [2]int{len(record.Findings), len(record.Accepted)}
		if loss := len(record.Accepted); loss > 0 {
			now[1] = int(record.Accepted[loss-1].Time.UnixNano()) // their number is bounded
		}
		if now == known {
			return
		}
		known = now
		select {
		case revised <- struct{}{}:
		default:
		}
	}, func(error) {}) // the checks detect changes too
}

func (i *Integrity) confirming() bool {
	i.checking.Lock()
	defer i.checking.Unlock()
	return i.suspected > 0 && i.suspected < confirmations
}

// recordAcked records the last acknowledged event that this process has appended.
func (i *Integrity) recordAcked(ctx context.Context) error {
	i.mu.Lock()
	tail := i.acked
	i.mu.Unlock()
	if whole := i.Appendable() == nil; whole && tail.Sequence > 0 && tail.Epoch == i.epoch.Load() {
		return i.records.raise(ctx, tail)
	}
	return nil
}

var (
	damageMetric = prometheus.NewDesc(
		"headgate_journal_damage",
		"1 while damage of the journal is known and not accepted: gap: events before its end are missing; end: "+
			"acknowledged events at its end are missing, and commands are refused.",
		[]string{"kind"},
		nil,
	)
	missingMetric = prometheus.NewDesc(
		"headgate_journal_missing_events",
		"Events that are known to be missing before the journal's end, and not accepted as lost.",
		nil,
		nil,
	)
)

// Describe implements [prometheus.Collector].
func (i *Integrity) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- damageMetric
	descriptions <- missingMetric
	descriptions <- unreadableMetric
	descriptions <- undeclaredMetric
}

// Collect implements [prometheus.Collector].
func (i *Integrity) Collect(metrics chan<- prometheus.Metric) {
	gap, end, missing := 0.0, 0.0, 0.0
	if damage := i.damage.Load(); damage != nil {
		if len(damage.Gaps) > 0 {
			gap = 1
		}
		if damage.End != nil {
			end = 1
		}
		missing = float64(damage.Missing)
	}
	metrics <- prometheus.MustNewConstMetric(damageMetric, prometheus.GaugeValue, gap, "gap")
	metrics <- prometheus.MustNewConstMetric(damageMetric, prometheus.GaugeValue, end, "end")
	metrics <- prometheus.MustNewConstMetric(missingMetric, prometheus.GaugeValue, missing)
	i.unreadable.collect(metrics)
}
