// Package tracing exports what a process does as OpenTelemetry spans, to a collector that
// takes OTLP over gRPC.
//
// The contract has the trace already: each call and message bears its parent's span, and
// [contextkit.RequestContext.SpanID] is the process's own. A span is therefore recorded
// once what it is about has ended, from what is known of it; nothing is started, carried
// or waited for.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/headgate/headgate/chassis/config"
	"github.com/headgate/headgate/contextkit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
)

const (
	// spanQueue bounds the spans that wait to be sent; further ones are left out.
	spanQueue = 8192
	// sendTimeout bounds the attempts to send, and flushTimeout how long the end of a
	// process waits for the last ones.
	sendTimeout, flushTimeout = 3 * time.Second, 5 * time.Second
	// complainEvery is how often it is logged that spans cannot be sent.
	complainEvery = time.Minute
)

// Config says where spans go.
type Config struct {
	// Endpoint is the collector's URL, such as "http://127.0.0.1:4317" or, over TLS,
	// "https://collector:4317". "": nothing is exported.
	Endpoint string `yaml:"endpoint"`
	// Headers go with what is sent, such as a credential.
	Headers map[string]string `yaml:"headers"`
	// Share is how much of the sampled traces is exported, by their ids: processes that
	// have the same share export the same ones. 0, as 1: all.
	Share float64 `yaml:"share"`
}

// Validate names the fields that cannot be used.
func (c Config) Validate() error {
	var errs []error
	if c.Endpoint != "" {
		if at, err := url.Parse(c.Endpoint); err != nil || at.Host == "" || at.Scheme != "http" && at.Scheme != "https" {
			errs = append(errs, config.Wrong("endpoint", "%q is not a URL such as http://127.0.0.1:4317", c.Endpoint))
		}
	}
	if c.Share < 0 || c.Share > 1 {
		errs = append(errs, config.Wrong("share", "is %v, want from 0 to 1", c.Share))
	}
	return errors.Join(errs...)
}

// Span is a part of a trace that has ended.
type Span struct {
	// Name says what was done.
	Name string
	// Kind is the span's part in the trace.
	Kind trace.SpanKind
	// Inner says that it is a part of what the process does and asks nothing of others;
	// otherwise it is all that the context's SpanID stands for.
	Inner bool
	// Started is when it began, and Took how long it took.
	Started time.Time
	Took    time.Duration
	// Failed says that it failed by the process's own fault, and Outcome how it ended.
	Failed  bool
	Outcome string
	// Attributes are what else is known.
	Attributes []attribute.KeyValue
}

// Exporter exports spans. Record may be called concurrently; a nil Exporter records
// nothing.
type Exporter struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	lost     prometheus.Counter
}

// Process is whose spans they are.
type Process struct {
	// Name is the service's, such as "headgate-gateway", Node the node's id.
	Name, Node, Version string
}

// Open returns an exporter, nil for a Config without an endpoint. It does not wait for the
// collector. Run must be running.
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
	e := &Exporter{lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_spans_lost_total", Help: "Spans that could not be sent to the collector."})}
	sampler := sdk.AlwaysSample()
	if c.Share > 0 {
		sampler = sdk.TraceIDRatioBased(c.Share)
	}
	e.provider = sdk.NewTracerProvider(
		sdk.WithBatcher(&teller{SpanExporter: exporter, lost: e.lost, log: log, seldom: rate.Sometimes{Interval: complainEvery}}, sdk.WithMaxQueueSize(spanQueue)),
		sdk.WithSampler(sampler), sdk.WithIDGenerator(contractIDs{}),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", process.Name), attribute.String("service.instance.id", process.Node), attribute.String("service.version", process.Version),
		)),
	)
	e.tracer = e.provider.Tracer("github.com/headgate/headgate")
	return e, nil
}

// Describe implements [prometheus.Collector].
func (e *Exporter) Describe(descriptions chan<- *prometheus.Desc) { e.lost.Describe(descriptions) }

// Collect implements [prometheus.Collector].
func (e *Exporter) Collect(metrics chan<- prometheus.Metric) { e.lost.Collect(metrics) }

// Record exports a span of what rc stands for, unless its trace is not sampled.
func (e *Exporter) Record(rc contextkit.RequestContext, s Span) {
	if e == nil || rc.Traceparent.Flags&contextkit.FlagSampled == 0 {
		return
	}
	own, parent := rc.SpanID, rc.Traceparent.ParentID
	if s.Inner {
		own, parent = contextkit.NewSpanID(), rc.SpanID
	}
	ctx := contextkit.Carry(context.Background(), ids{trace.TraceID(rc.TraceID), trace.SpanID(own)})
	if own != parent { // else it is the first
		ctx = trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID(rc.TraceID), SpanID: trace.SpanID(parent), TraceFlags: trace.FlagsSampled, Remote: true,
		}))
	}
	_, span := e.tracer.Start(ctx, s.Name, trace.WithSpanKind(s.Kind), trace.WithTimestamp(s.Started), trace.WithAttributes(s.Attributes...),
		trace.WithAttributes(attribute.String("headgate.tenant", rc.TenantID.String()), attribute.String("headgate.correlation_id", rc.CorrelationID), attribute.String("headgate.outcome", s.Outcome)))
	if s.Failed {
		span.SetStatus(codes.Error, s.Outcome)
	}
	span.End(trace.WithTimestamp(s.Started.Add(s.Took)))
}

// Run sends spans until ctx ends and those recorded before have been sent, or could not be
// within some seconds.
func (e *Exporter) Run(ctx context.Context) error {
	<-ctx.Done()
	if e == nil {
		return nil
	}
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	_ = e.provider.Shutdown(flush) // whom it concerns has been told by then
	return nil
}

// ids are a span's own, as the contract has them.
type ids struct {
	trace trace.TraceID
	span  trace.SpanID
}

// contractIDs gives spans the ids that their contexts carry.
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

// teller counts the spans that could not be sent, and says so now and then: the SDK
// would tell a handler that the whole process shares.
type teller struct {
	sdk.SpanExporter

	lost   prometheus.Counter
	log    zerolog.Logger
	seldom rate.Sometimes
}

// ExportSpans implements [sdk.SpanExporter].
func (t *teller) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := t.SpanExporter.ExportSpans(ctx, spans); err != nil {
		t.lost.Add(float64(len(spans)))
		t.seldom.Do(func() { t.log.Warn().Err(err).Int("spans", len(spans)).Msg("spans cannot be sent to the collector") })
	}
	return nil
}
