// Package tracing exports OpenTelemetry spans of a process, to a collector that accepts OTLP over
// gRPC.
//
// The transport contract carries the trace: each call and message has the span id of its parent, and
// [contextkit.RequestContext.SpanID] is the id of the process's span. A span is recorded when its operation has ended
// (ADR-0011): no span object is started or passed along, and no call waits for the export.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
)

const (
	// spanQueue bounds the spans that wait to be sent; further ones are dropped.
	spanQueue = 8192
	// sendTimeout bounds an attempt to send, and flushTimeout the time for which a stopping process sends its last
	// spans.
	sendTimeout, flushTimeout = 3 * time.Second, 5 * time.Second
	// abandonTimeout bounds the time for which Run then waits until lost spans are counted.
	abandonTimeout = time.Second
	// batchTimeout is the maximum time for which a span waits for further spans of its batch.
	batchTimeout = 2 * time.Second
	// maxAttribute bounds the length of a text attribute, in characters.
	maxAttribute = 1024
	// lossLogInterval is the minimum interval between log lines about spans that cannot be sent.
	lossLogInterval = time.Minute
)

// Config configures the export.
type Config struct {
	// Endpoint is the collector's URL, such as "http://127.0.0.1:4317" or, over TLS,
	// "https://collector:4317". "": nothing is exported.
	Endpoint string `yaml:"endpoint"`
	// Headers are sent with each request, such as a credential.
	Headers map[string]string `yaml:"headers"`
	// Share is the fraction of the sampled traces that is exported, 0 to 1. Traces are selected by trace id, so that
	// processes with the same share export the same traces. 0 or 1: all.
	Share float64 `yaml:"share"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	var errs []error
	if c.Endpoint != "" {
		if at, err := url.Parse(c.Endpoint); err != nil || at.Host == "" ||
			at.Scheme != "http" && at.Scheme != "https" {
			errs = append(errs, config.Wrong("endpoint", "%q is not a URL such as http://127.0.0.1:4317", c.Endpoint))
		}
	}
	if c.Share < 0 || c.Share > 1 {
		errs = append(errs, config.Wrong("share", "is %v, want from 0 to 1", c.Share))
	}
	return errors.Join(errs...)
}

// Span is an operation of a trace that has ended.
type Span struct {
	// Name is the name of the operation.
	Name string
	// Kind is the kind of the span (OpenTelemetry SpanKind).
	Kind trace.SpanKind
	// ID is the id of a child span of the context's SpanID that other processes received as their parent; zero: the
	// span is not such a child.
	ID contextkit.SpanID
	// Inner reports that the span is a child of the context's SpanID whose id no other process received: it gets a new
	// id. If neither ID nor Inner is set, the span's id is the context's SpanID.
	Inner bool
	// Started is when it started, and Took its duration.
	Started time.Time
	Took    time.Duration
	// ErrorType is the class of the failure (error.type), of a small set; "": the span's status is not an error.
	ErrorType string
	// Attributes are further attributes. Attributes with an empty text are not exported.
	Attributes []attribute.KeyValue
}

// Exporter exports spans. Record may be called concurrently; a nil Exporter records
// nothing.
type Exporter struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	sender   *sender
	waiting  atomic.Int64  // number of recorded spans that are neither sent nor lost yet
	exported chan struct{} // signaled when a batch has been sent or lost
	lost     *prometheus.CounterVec
}

// lossReason is the reason why spans are lost.
type lossReason string

const (
	lostFull   lossReason = "queue full" // spans were recorded faster than sent
	lostUnsent lossReason = "not sent"   // the collector did not accept them
)

// Process identifies the process whose spans are exported.
type Process struct {
	// Name is the name of the service, such as "headgate-gateway", and Node the id of the node.
	Name, Node, Version string
}

// Open returns an exporter; nil if the Config has no endpoint. It does not wait for the collector. The caller must run
// Run.
func Open(ctx context.Context, c Config, process Process, log zerolog.Logger) (*Exporter, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	sender, err := newSender(c)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	exporter, err := otlptrace.New(ctx, sender)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	e := &Exporter{
		sender:   sender,
		exported: make(chan struct{}, 1),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_spans_lost_total",
			Help: "Spans that were not exported, by reason: the queue was full, or the collector did not accept them.",
		}, []string{"reason"}),
	}
	e.lost.WithLabelValues(string(lostFull))
	e.lost.WithLabelValues(string(lostUnsent))
	sampler := sdk.AlwaysSample()
	if c.Share > 0 {
		sampler = sdk.TraceIDRatioBased(c.Share)
	}
	e.provider = sdk.NewTracerProvider(
		sdk.WithBatcher(&lossCounter{
			SpanExporter: exporter,
			exporter:     e,
			log:          log,
			seldom:       rate.Sometimes{Interval: lossLogInterval},
		}, sdk.WithMaxQueueSize(spanQueue), sdk.WithBatchTimeout(batchTimeout)),
		sdk.WithRawSpanLimits(limits()), sdk.WithSampler(sampler), sdk.WithIDGenerator(contractIDs{}),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", process.Name), attribute.String("service.instance.id", process.Node),
			attribute.String("service.version", process.Version),
		)),
	)
	e.tracer = e.provider.Tracer("github.com/headgate/headgate", trace.WithInstrumentationVersion(process.Version),
		trace.WithSchemaURL(semconv.SchemaURL))
	return e, nil
}

// limits returns the bounds of spans, since texts of requests, such as paths, may be long.
func limits() sdk.SpanLimits {
	out := sdk.NewSpanLimits()
	out.AttributeValueLengthLimit = maxAttribute
	return out
}

// Describe implements [prometheus.Collector].
func (e *Exporter) Describe(descriptions chan<- *prometheus.Desc) { e.lost.Describe(descriptions) }

// Collect implements [prometheus.Collector].
func (e *Exporter) Collect(metrics chan<- prometheus.Metric) { e.lost.Collect(metrics) }

// Record queues a span of the operation of rc for the export, unless its trace is not sampled. If the queue is full,
// the span is dropped and counted.
func (e *Exporter) Record(rc contextkit.RequestContext, s Span) {
	if e == nil || rc.Traceparent.Flags&contextkit.FlagSampled == 0 {
		return
	}
	own, parent := rc.SpanID, rc.Traceparent.ParentID
	switch {
	case s.ID != contextkit.SpanID{}:
		own, parent = s.ID, rc.SpanID
	case s.Inner:
		own, parent = contextkit.NewSpanID(), rc.SpanID
	}
	ctx := contextkit.Carry(context.Background(), ids{trace.TraceID(rc.TraceID), trace.SpanID(own)})
	if own != parent { // otherwise it is the root span
		state, _ := trace.ParseTraceState(rc.Tracestate) // the contract has checked it
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID:    trace.TraceID(rc.TraceID),
			SpanID:     trace.SpanID(parent),
			TraceFlags: trace.FlagsSampled,
			TraceState: state,
			Remote:     true,
		}))
	}
	_, span := e.tracer.Start(ctx, s.Name, trace.WithSpanKind(s.Kind), trace.WithTimestamp(s.Started))
	if !span.IsRecording() {
		return // it is not sampled
	}
	if e.waiting.Add(1) > spanQueue {
		e.waiting.Add(-1)
		e.lost.WithLabelValues(string(lostFull)).Inc()
		return
	}
	all := append( //nolint:gocritic // s is a copy, and its attributes are not shared
		s.Attributes, attribute.String("headgate.tenant", rc.TenantID.String()),
		attribute.String("headgate.correlation_id", rc.CorrelationID),
	)
	if s.ErrorType != "" {
		all = append(all, semconv.ErrorTypeKey.String(s.ErrorType))
		span.SetStatus(codes.Error, s.ErrorType)
	}
	span.SetAttributes(slices.DeleteFunc(all, func(a attribute.KeyValue) bool {
		return a.Value.Type() == attribute.STRING && a.Value.AsString() == ""
	})...)
	span.End(trace.WithTimestamp(s.Started.Add(s.Took)))
}

// Run sends spans until ctx ends. Then it sends the queued spans for up to flushTimeout, and counts the lost ones, for
// up to abandonTimeout.
func (e *Exporter) Run(ctx context.Context) error {
	<-ctx.Done()
	if e == nil {
		return nil
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	if e.provider.Shutdown(flush) == nil {
		return nil
	}
	// The spans that are still queued are lost: without a connection each batch fails and is counted.
	_ = e.sender.conn.Close() // an error changes nothing
	enough := time.After(abandonTimeout)
	for e.waiting.Load() > 0 {
		select {
		case <-e.exported:
		case <-enough:
			return nil
		}
	}
	return nil
}

// ids are the ids of a span from the transport contract.
type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// contractIDs is an id generator that returns the ids in the context.
type contractIDs struct{}

// NewIDs implements [sdk.IDGenerator].
func (contractIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	own, _ := contextkit.Carried[ids](ctx)
	return own.trace, own.span
}

// NewSpanID implements [sdk.IDGenerator].
func (contractIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	own, _ := contextkit.Carried[ids](ctx)
	return own.span
}

// lossCounter is an exporter that counts the spans that the next exporter could not send, and logs the loss at most
// once per lossLogInterval. The SDK reports such errors only to a handler that the whole process shares.
type lossCounter struct {
	sdk.SpanExporter

	exporter *Exporter
	log      zerolog.Logger
	seldom   rate.Sometimes
}

// ExportSpans implements [sdk.SpanExporter].
func (c *lossCounter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		c.exporter.lost.WithLabelValues(string(lostUnsent)).Add(float64(len(spans)))
		c.seldom.Do(
			func() { c.log.Warn().Err(err).Int("spans", len(spans)).Msg("spans cannot be sent to the collector") },
		)
	}
	c.exporter.waiting.Add(-int64(len(spans)))
	select {
	case c.exporter.exported <- struct{}{}:
	default:
	}
	return nil
}
