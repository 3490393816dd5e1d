package timeline

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/fairqueue"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// spanRate bounds the number of spans that a process publishes per second, and in a burst.
	spanRate = 1000
	// spansPending bounds the published spans without an acknowledgement.
	spansPending = 512
	// flushTimeout bounds the time for which a stopping process publishes its last spans.
	flushTimeout = 2 * time.Second
	// restoreTimeout bounds an attempt to restore the stream, and restorePause is the delay between two attempts.
	restoreTimeout, restorePause = 4 * time.Second, 2 * time.Second
	// maxSpans bounds the number of spans that are read for one timeline.
	maxSpans = 2000
)

// spanBounds bounds the queue of spans to publish. When it is full, spans of the account with the most spans are
// dropped.
var spanBounds = fairqueue.Bounds{Items: 2048, Bytes: 4 << 20}

// Kind is the kind of the step that a span records. Its text is stored.
type Kind string

// Kinds of spans.
const (
	KindCall       Kind = "call"       // a gateway has answered a call
	KindCommand    Kind = "command"    // an aggregate has decided a command
	KindEvent      Kind = "event"      // an event was appended
	KindProjection Kind = "projection" // an event's rows were committed
	KindStep       Kind = "step"       // a workflow's step was done
)

// Failed is the code of a failed attempt that is retried.
const Failed = "failed"

// Span is the record of one step of a timeline.
type Span struct {
	Kind Kind `json:"kind"`
	// Name is the procedure, command, event type, or workflow and step.
	Name string `json:"name"`
	// Node is the id of the node that recorded it.
	Node string `json:"node,omitempty"`
	// Started is when it started, and Milliseconds its duration.
	Started      time.Time `json:"started"`
	Milliseconds float64   `json:"ms"`
	// Code is the outcome: "ok", a Connect code, or the outcome of a workflow's step.
	Code string `json:"code"`
	// Detail is further information as text.
	Detail string `json:"detail,omitempty"`
	// Client is the address of the client, for a call at a gateway.
	Client string `json:"client,omitempty"`
	// Subject is the aggregate, as type/id, and Event the id of the event; "": none.
	Subject string `json:"subject,omitempty"`
	Event   string `json:"event,omitempty"`

	// Span is the span id of an appended event (see Event.Span), and Published the time until its acknowledgement. They
	// are not stored: only the function of [NewObserved] receives them.
	Span      contextkit.SpanID `json:"-"`
	Published time.Duration     `json:"-"`

	CorrelationID string `json:"correlation_id"`
	TraceID       string `json:"trace_id"`
	RequestID     string `json:"request_id"`
	CausationID   string `json:"causation_id,omitempty"`
}

// spanOverhead is the memory of a span in addition to its texts, in bytes.
const spanOverhead = 1 << 10

// Bounds of a span's texts, in encoded bytes (see [excerpt.Text]): a span takes at most 3 KiB as JSON.
const (
	spanName   = excerpt.Name
	spanDetail = 512
)

// bounded returns the span with each text cut to its bound, and the size of its texts in bytes.
func (h Span) bounded() (_ Span, size int) {
	h.Detail = excerpt.Text(h.Detail, spanDetail)
	size = len(h.Detail) + len(h.Kind) // a constant
	for _, name := range [...]*string{&h.Name, &h.Node, &h.Code, &h.Client, &h.Subject, &h.Event} {
		*name = excerpt.Text(*name, spanName)
		size += len(*name)
	}
	return h, size
}

// Recorder records spans, so that operators can inspect the effects of a call afterwards.
//
// Record does not block. Accounts share a bounded queue, and the rate at which it is published, fairly: when the queue
// is full, spans of the account with the most spans are dropped and counted (headgate_timeline_lost_total). The stored
// spans are bounded per account, see [streams.Timeline]. Record may be called concurrently; a nil Recorder records
// nothing.
type Recorder struct {
	js    jetstream.JetStream
	queue *fairqueue.Queue[waitingSpan]
	rate  *rate.Limiter
	lost  prometheus.Counter
	// restore holds a value when the stream lacks a subject of this version; see [streams.Restore].
	restore chan struct{}
	observe func(contextkit.RequestContext, Span) // called for every span; nil: none
}

type waitingSpan struct {
	rc      contextkit.RequestContext
	account streams.Account
	span    Span
}

// New returns a recorder. The caller must run Run.
func New(js jetstream.JetStream) (*Recorder, error) { return NewObserved(js, nil) }

// NewObserved is [New] with a function that is called for every recorded span, also for spans that are dropped. It must
// not block; nil: none.
func NewObserved(js jetstream.JetStream, observe func(contextkit.RequestContext, Span)) (*Recorder, error) {
	t := &Recorder{
		queue:   fairqueue.New[waitingSpan](spanBounds),
		rate:    rate.NewLimiter(spanRate, spanRate),
		restore: make(chan struct{}, 1),
		observe: observe,
		lost: prometheus.NewCounter(
			prometheus.CounterOpts{
				Name: "headgate_timeline_lost_total",
				Help: "Spans that were left out of the timeline: there were too many, or NATS did not " +
					"acknowledge them.",
			},
		),
	}
	var err error
	if t.js, err = natsclient.Async(js, spansPending, t.failed); err != nil {
		return nil, err
	}
	return t, nil
}

// failed counts a published span that may not have been stored.
func (t *Recorder) failed(err error) {
	t.lost.Inc()
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		select {
		case t.restore <- struct{}{}:
		default: // a request is pending
		}
	}
}

// repairStream restores the stream when it lacks a subject of this version, until ctx ends.
func (t *Recorder) repairStream(ctx context.Context) {
	for {
		select {
		case <-t.restore:
		case <-ctx.Done():
			return
		}
		attempt, cancel := context.WithTimeout(ctx, restoreTimeout)
		_, _ = streams.Restore(attempt, t.js, streams.Timeline) // the next span that fails requests it again
		cancel()
		select {
		case <-time.After(restorePause):
		case <-ctx.Done():
			return
		}
	}
}

// HasObserver reports whether the recorder was made with a function that receives every span.
func (t *Recorder) HasObserver() bool { return t != nil && t.observe != nil }

// Describe implements [prometheus.Collector].
func (t *Recorder) Describe(descriptions chan<- *prometheus.Desc) { t.lost.Describe(descriptions) }

// Collect implements [prometheus.Collector].
func (t *Recorder) Collect(metrics chan<- prometheus.Metric) { t.lost.Collect(metrics) }

// Record records a span of the call in ctx, under the account of the call's tenant.
func (t *Recorder) Record(ctx context.Context, h Span) {
	if t == nil {
		return
	}
	if rc := contextkit.In(ctx); rc != nil {
		t.RecordFor(rc, streams.AccountOf(rc.TenantID), h)
	}
}

// RecordFor records a span of a call under an account, which may differ from the account of the call's tenant.
func (t *Recorder) RecordFor(rc *contextkit.RequestContext, account streams.Account, h Span) {
	if t == nil {
		return
	}
	h, size := h.bounded()
	if t.observe != nil {
		t.observe(*rc, h)
	}
	displaced := t.queue.Add(string(account), size+spanOverhead, waitingSpan{*rc, account, h})
	t.lost.Add(float64(len(displaced)))
}

// Run publishes the node's spans until ctx ends. Then it publishes the queued spans for up to flushTimeout.
func (t *Recorder) Run(ctx context.Context, node string) error {
	base := context.WithoutCancel(ctx)
	var repairing sync.WaitGroup
	defer repairing.Wait()
	repairing.Go(func() { t.repairStream(ctx) })
	for {
		item, ok := t.next(ctx)
		if !ok {
			t.flush(base, node)
			return nil
		}
		_ = t.rate.Wait(ctx) // it fails when ctx ends
		t.queue.Release(item)
		t.publish(base, node, item.Value)
	}
}

// next returns the next span, and false when ctx has ended.
func (t *Recorder) next(ctx context.Context) (fairqueue.Item[waitingSpan], bool) {
	item, err := t.queue.Take(ctx)
	return item, err == nil
}

// flush publishes the queued spans, and waits for their acknowledgements.
func (t *Recorder) flush(ctx context.Context, node string) {
	end := time.Now().Add(flushTimeout)
	for item, ok := t.queue.TryTake(); ok; item, ok = t.queue.TryTake() {
		t.queue.Release(item)
		if time.Now().After(end) {
			t.lost.Inc()
			continue
		}
		t.publish(ctx, node, item.Value)
	}
	select {
	case <-t.js.PublishAsyncComplete():
	case <-time.After(time.Until(end)):
	}
}

func (t *Recorder) publish(ctx context.Context, node string, h waitingSpan) {
	h.span.Node = excerpt.Text(node, spanName)
	h.span.CorrelationID, h.span.TraceID = h.rc.CorrelationID, h.rc.TraceID.String()
	h.span.RequestID, h.span.CausationID = h.rc.RequestID, h.rc.CausationID
	data, err := json.Marshal(h.span)
	if err == nil {
		msg := &nats.Msg{Subject: subject(h.account, h.rc.CorrelationID), Header: nats.Header{}, Data: data}
		if err = contextkit.InjectNATS(contextkit.NewContext(ctx, h.rc), msg.Header); err == nil {
			// It blocks while too many spans are unacknowledged. Then the queue fills; calls do not wait.
			_, err = t.js.PublishMsgAsync(msg)
		}
	}
	if err != nil {
		t.lost.Inc()
	}
}
