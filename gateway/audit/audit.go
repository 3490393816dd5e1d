// Package audit records who was denied what and who operated what: an event a
// decision, published to the audit stream.
//
// A call never waits for NATS: records are queued, with a bound, and published
// by one goroutine that tries again until each is stored. A call waits only
// while the queue is full, and then no longer than [maxWait].
package audit

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
)

const (
	// queueLength bounds the records that wait to be published.
	queueLength = 4096
	// maxWait is how long a call waits for a place in the queue.
	maxWait = 50 * time.Millisecond
	// flushTimeout bounds how long the end of the process waits for the queue.
	flushTimeout = 5 * time.Second
	// attemptTimeout bounds one attempt to publish.
	attemptTimeout = 2 * time.Second
	// denialRate and denialBurst are how many denials of one caller are kept a second,
	// and at once: without a credential anybody can make some, and they stay for long.
	denialRate, denialBurst = 10, 200
	// trackedCallers bounds the callers whose denials are counted.
	trackedCallers = 4096
)

// Record is a decision.
type Record = backbone.AuditRecord

// Recorder publishes records. Record may be called concurrently.
type Recorder struct {
	js         jetstream.JetStream
	log        zerolog.Logger
	queue      chan *queued // of pointers, so that an empty queue takes little
	lost       prometheus.Counter
	suppressed prometheus.Counter
	callers    *lru.Cache[string, *denials] // by principal, "" for whoever has no credential
}

// denials are those of one caller.
type denials struct {
	kept       *rate.Limiter
	suppressed atomic.Int64 // since the last that was kept
}

type queued struct {
	rc   contextkit.RequestContext
	data []byte
}

// NewRecorder returns a recorder; Run must be running.
func NewRecorder(js jetstream.JetStream, metrics prometheus.Registerer, log zerolog.Logger) *Recorder {
	callers, err := lru.New[string, *denials](trackedCallers)
	if err != nil {
		panic(err) // the bound is a positive constant
	}
	r := &Recorder{
		js: js, log: log, queue: make(chan *queued, queueLength), callers: callers,
		suppressed: prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_audit_suppressed_total", Help: "Denials that were not kept, since their caller had too many; the next record of that caller says how many."}),
		lost:       prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_audit_lost_total", Help: "Audit records that found no place in the queue; each is in the log."}),
	}
	metrics.MustRegister(r.lost, r.suppressed, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_audit_queued", Help: "Audit records that wait to be published.",
	}, func() float64 { return float64(len(r.queue)) }))
	return r
}

// Deny queues the record of a denial, unless its caller has too many: the next one that
// is kept says how many were not.
func (r *Recorder) Deny(rc contextkit.RequestContext, record Record) {
	caller, ok := r.callers.Get(record.Principal)
	if !ok {
		fresh := &denials{kept: rate.NewLimiter(denialRate, denialBurst)}
		if caller, ok, _ = r.callers.PeekOrAdd(record.Principal, fresh); !ok {
			caller = fresh
		}
	}
	if !caller.kept.Allow() {
		caller.suppressed.Add(1)
		r.suppressed.Inc()
		return
	}
	record.Suppressed = caller.suppressed.Swap(0)
	r.Record(rc, record)
}

// Record queues a record under the call's context. One that finds no place goes
// to the log.
func (r *Recorder) Record(rc contextkit.RequestContext, record Record) {
	data, err := json.Marshal(record)
	if err != nil {
		return // a record is strings
	}
	entry := &queued{rc: rc, data: data}
	select {
	case r.queue <- entry:
		return
	default:
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case r.queue <- entry:
	case <-timer.C:
		r.lost.Inc()
		r.log.Error().RawJSON("record", data).Msg("audit record not published: the queue is full")
	}
}

// Run publishes records until ctx ends and the queue is empty.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case entry := <-r.queue:
			r.publish(ctx, entry)
		case <-ctx.Done():
			flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
			defer cancel()
			for {
				select {
				case entry := <-r.queue:
					r.publish(flush, entry)
				default:
					return nil
				}
			}
		}
	}
}

// publish stores a record, trying until ctx ends.
func (r *Recorder) publish(ctx context.Context, entry *queued) {
	msg := &nats.Msg{Subject: backbone.AuditSubject(entry.rc.TenantID), Header: nats.Header{}, Data: entry.data}
	rc := entry.rc
	rc.Platform = rc.TenantID.IsZero()
	if err := contextkit.InjectNATS(contextkit.NewContext(ctx, rc), msg.Header); err != nil {
		r.log.Error().Err(err).RawJSON("record", entry.data).Msg("audit record not published")
		return
	}
	msg.Header.Set(jetstream.MsgIDHeader, contextkit.NewID()) // a second attempt is no second record
	_, err := backoff.Retry(ctx, func() (*jetstream.PubAck, error) {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		return r.js.PublishMsg(attempt, msg)
	}, backoff.WithMaxElapsedTime(0))
	if err != nil {
		r.lost.Inc()
		r.log.Error().Err(err).RawJSON("record", entry.data).Msg("audit record not published")
	}
}
