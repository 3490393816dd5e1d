// Package audit records denials and audited operations in the audit stream.
//
// A call never waits for NATS: its record is added to a bounded queue and published in the
// background. There is one queue each for operators' actions, for audited actions of tenants and
// operators' reads, and for denials. Each is shared fairly between accounts, so that a flood of
// denials cannot delay or displace an operator's record, and one tenant's records cannot displace
// another's. A record that NATS can never store, or that exceeds the queue, is dropped, counted
// (headgate_audit_lost_total, by reason) and logged.
//
// Sizes are bounded: a record takes at most 4 KiB (see [auditlog.Record.Bounded]), a queue at
// most 4096 records and 8 MiB. Per second, at most ten denials of one caller, ten reads of tenants'
// data and a hundred other calls for tenants of one operator are recorded.
package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fairqueue"
	"github.com/headgate/headgate/internal/streams"
)

// bounds are the bounds of each queue.
var bounds = fairqueue.Bounds{Items: 4096, Bytes: 8 << 20}

// Record is an audit record.
type Record = auditlog.Record

// Recorder publishes audit records. It is safe for concurrent use.
type Recorder struct {
	log        zerolog.Logger
	operators  *outbox // actions of operators
	tenants    *outbox // audited actions of tenants, and operators' reads
	denials    *outbox
	denied     *callers
	reads      *callers // of operators
	writes     *callers // of operators
	suppressed prometheus.Counter
}

// NewRecorder returns a recorder, which publishes while Run runs.
func NewRecorder(js jetstream.JetStream, metrics prometheus.Registerer, log zerolog.Logger) *Recorder {
	counters := newCounters()
	someLosses := log.Sample(&zerolog.BurstSampler{Burst: loggedLosses, Period: time.Second})
	r := &Recorder{
		log:        log,
		suppressed: counters.suppressed,
		operators:  newOutbox("operators", js, counters, log),
		tenants:    newOutbox("tenants", js, counters, log),
		denials:    newOutbox("denials", js, counters, someLosses),
		denied:     newCallers(1),
		reads:      newCallers(1),
		writes:     newCallers(writeFactor),
	}
	metrics.MustRegister(append(counters.collectors(), states{r.operators, r.tenants, r.denials})...)
	return r
}

// Deny records a denial under an account, unless its caller or the account exceeds the rate: the
// caller's next record has the number of suppressed ones.
func (r *Recorder) Deny(rc contextkit.RequestContext, account streams.Account, record Record) {
	caller, ok := r.denied.admit(account, record.Principal, time.Now())
	if !ok {
		caller.suppressed.Add(1)
		r.suppressed.Inc()
		return
	}
	record.Suppressed = caller.suppressed.Swap(0)
	for _, lost := range r.add(r.denials, rc, account, auditlog.ClassDenied, record, caller) {
		lost.caller.suppressed.Add(1 + lost.suppressed)
		r.denials.recordLoss(lost, reasonQueueFull, nil)
	}
}

// Record records a call that was not denied, under an account and as a class other than
// [auditlog.ClassDenied], regardless of the caller's rate.
func (r *Recorder) Record(rc contextkit.RequestContext, account streams.Account, class auditlog.Class, record Record) {
	r.record(rc, account, class, record, nil)
}

// Admission permits one record of an operator's call.
type Admission struct{ caller *caller }

// Admit reports whether an operator's call for a tenant, of the class, may be recorded now: it
// bounds the records per second of each principal for all tenants together. The next record has the
// number of suppressed ones. It does not allocate for a tracked principal.
func (r *Recorder) Admit(class auditlog.Class, principal string) (Admission, bool) {
	limits := r.writes
	if class == auditlog.ClassRead {
		limits = r.reads
	}
	caller, ok := limits.admit(streams.AccountPlatform, principal, time.Now())
	if !ok {
		caller.suppressed.Add(1)
		r.suppressed.Inc()
	}
	return Admission{caller}, ok
}

// Operate records an operator's call that Admit has admitted.
func (r *Recorder) Operate(
	rc contextkit.RequestContext, account streams.Account, class auditlog.Class, record Record, admission Admission,
) {
	record.Suppressed = admission.caller.suppressed.Swap(0)
	r.record(rc, account, class, record, admission.caller)
}

func (r *Recorder) record(
	rc contextkit.RequestContext, account streams.Account, class auditlog.Class, record Record, caller *caller,
) {
	out := r.tenants
	if class == auditlog.ClassOperator {
		out = r.operators
	}
	for _, lost := range r.add(out, rc, account, class, record, caller) {
		if lost.caller != nil {
			lost.caller.suppressed.Add(1 + lost.suppressed)
		}
		out.recordLoss(lost, reasonQueueFull, nil)
	}
}

// overhead is the memory of an entry in addition to its record, in bytes, including headers.
const overhead = 2 << 10

// add adds a record to an outbox, and returns the entries that the outbox dropped for it.
func (r *Recorder) add(
	out *outbox, rc contextkit.RequestContext, account streams.Account, class auditlog.Class, record Record,
	caller *caller,
) []*entry {
	data, err := json.Marshal(record.Bounded())
	if err != nil {
		r.log.Error().Err(err).Msg("audit record not stored: it cannot be encoded")
		return nil
	}
	e := &entry{
		rc:         rc,
		subject:    auditlog.Subject(account, class),
		data:       data,
		caller:     caller,
		suppressed: record.Suppressed,
	}
	return out.queue.Add(string(account), len(data)+overhead, e)
}

// Run publishes records until ctx ends, and then, for at most 5 s, the queued ones.
func (r *Recorder) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, out := range []*outbox{r.operators, r.tenants, r.denials} {
		group.Go(func() error { return out.run(ctx) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}
