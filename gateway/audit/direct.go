package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/streams"
)

// DirectKind is a kind of direct call. Each kind has separate rates, so that denials and reads, which are cheap to
// make, suppress no record of a change.
type DirectKind int

// Kinds of direct calls.
const (
	DirectDenial DirectKind = iota
	DirectRead
	DirectChange
	directKinds
)

// Direct publishes the audit records of a node: calls that reached it without passing a gateway. Its queue
// and its bounds per peer and kind are those of denials. It is safe for concurrent use.
type Direct struct {
	log        zerolog.Logger
	out        *outbox
	peers      [directKinds]*callers
	suppressed prometheus.Counter
	collectors []prometheus.Collector
}

// NewDirect returns a recorder, which publishes while Run runs.
func NewDirect(js jetstream.JetStream, log zerolog.Logger) *Direct {
	counters := newCounters()
	out := newOutbox("direct", js, counters,
		log.Sample(&zerolog.BurstSampler{Burst: loggedLosses, Period: time.Second}))
	return &Direct{
		log:        log,
		out:        out,
		peers:      [...]*callers{newCallers(1), newCallers(1), newCallers(1)},
		suppressed: counters.suppressed,
		collectors: append(counters.collectors(), states{out}),
	}
}

// Collectors returns the recorder's metrics.
func (d *Direct) Collectors() []prometheus.Collector { return d.collectors }

// Record records a call under an account, unless its peer exceeds the kind's rate: the peer's next record of the kind
// has the number of suppressed ones. A peer is identified by the record's principal, or by its client without one.
// The records of a kind of all peers of the node have one bound per second.
func (d *Direct) Record(
	rc contextkit.RequestContext,
	account streams.Account,
	kind DirectKind,
	record Record,
) {
	peer := record.Principal
	if peer == "" {
		peer = record.Client
	}
	caller, ok := d.peers[kind].admit(streams.AccountPlatform, peer, time.Now())
	if !ok {
		caller.suppressed.Add(1)
		d.suppressed.Inc()
		return
	}
	record.Suppressed = caller.suppressed.Swap(0)
	data, err := json.Marshal(record.Bounded())
	if err != nil {
		d.log.Error().Err(err).Msg("audit record not stored: it cannot be encoded")
		return
	}
	e := &entry{
		rc:         rc,
		subject:    auditlog.Subject(account, auditlog.ClassDirect),
		data:       data,
		caller:     caller,
		suppressed: record.Suppressed,
	}
	for _, lost := range d.out.queue.Add(peer, len(data)+overhead, e) {
		lost.caller.suppressed.Add(1 + lost.suppressed)
		d.out.recordLoss(lost, reasonQueueFull, nil)
	}
}

// Run publishes records until ctx ends, and then, for at most 5 s, the queued ones.
func (d *Direct) Run(ctx context.Context) error {
	if err := d.out.run(ctx); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
