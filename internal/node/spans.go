package node

import (
	"context"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/tracing"
)

// spans creates spans of a role's work.
type spans struct {
	*tracing.Exporter

	// bus returns the address of the NATS server that the role is connected to.
	bus func() string
}

// openSpans returns the spans of a node, which are discarded if config has no endpoint.
func openSpans(
	ctx context.Context, js *bus, config tracing.Config, kind contextkit.Kind, id string, log zerolog.Logger,
) (spans, error) {
	exporter, err := tracing.Open(ctx, config,
		tracing.Process{Name: "headgate-" + kind.String(), Node: id, Version: newNode(kind, id, "").Version}, log)
	return spans{Exporter: exporter, bus: js.Conn().ConnectedAddr}, err
}

// close releases the exporter of a role that does not run.
func (s spans) close(ctx context.Context) error {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	return s.Run(ended)
}

// metrics returns the exporter's metrics, none if there is no exporter.
func (s spans) metrics() []prometheus.Collector {
	if s.Exporter == nil {
		return nil
	}
	return []prometheus.Collector{s.Exporter}
}

// observer returns the function that records the spans of a timeline; nil if there is no exporter.
func (s spans) observer() func(contextkit.RequestContext, timeline.Span) {
	if s.Exporter == nil {
		return nil
	}
	return s.export
}

// clients returns the interceptors of a role's clients.
func (s spans) clients() []connect.ClientInterceptor {
	if s.Exporter == nil {
		return nil
	}
	return []connect.ClientInterceptor{rpc.WatchClient(s.asked)}
}

// callOf returns a call in the form of package tracing.
func callOf(call rpc.Ended) tracing.Call {
	return tracing.Call{
		Procedure: call.Procedure,
		Protocol:  call.Protocol,
		Code:      call.Code(),
		Server:    call.Server,
		Client:    call.Client,
		Started:   call.Started,
		Took:      call.Took,
	}
}

// call records a call that a service has answered.
func (s spans) call(rc contextkit.RequestContext, call rpc.Ended) {
	span := tracing.ServerSpan(callOf(call))
	if call.Principal != "" {
		span.Attributes = append(span.Attributes, attribute.String("enduser.id", call.Principal))
	}
	s.Record(rc, span)
}

// edgeCall records a call that a gateway has answered.
func (s spans) edgeCall(rc contextkit.RequestContext, call gateway.Ended) {
	span := tracing.ServerSpan(callOf(call.Ended))
	if r := call.Request; r.Route != "" {
		span = tracing.RESTSpan(callOf(call.Ended), tracing.Request(r))
		span.Attributes = append(span.Attributes,
			attribute.String("headgate.procedure", strings.TrimPrefix(call.Procedure, "/")))
	}
	span.Attributes = append(span.Attributes, attribute.String("enduser.id", call.Principal),
		attribute.String("headgate.node", call.Node))
	if call.Attempts > 0 {
		span.Attributes = append(span.Attributes, attribute.Int("headgate.attempts", call.Attempts))
	}
	s.Record(rc, span)
}

// asked records an upstream call.
func (s spans) asked(rc contextkit.RequestContext, call rpc.Asked) {
	s.Record(rc, tracing.ClientSpan(callOf(call.Ended), call.Span))
}

// export records the spans of a timeline. Calls already have spans.
func (s spans) export(rc contextkit.RequestContext, entry timeline.Span) {
	switch took := time.Duration(entry.Milliseconds * float64(time.Millisecond)); entry.Kind {
	case timeline.KindCommand:
		span := inner(entry, took)
		span.Inner = true
		s.Record(rc, span)
	case timeline.KindStep:
		span := inner(entry, took)
		if entry.Code == timeline.Failed {
			span.ErrorType = entry.Code
		}
		s.Record(rc, span)
	case timeline.KindEvent:
		s.Record(rc, withEvent(tracing.PublishSpan(s.message(rc, entry, entry.Published), entry.Span), entry))
	case timeline.KindProjection:
		message := s.message(rc, entry, took)
		message.Consumer = contextkit.KindProjection.String()
		s.Record(rc, withEvent(tracing.ProcessSpan(message), entry))
	}
}

// inner returns the INTERNAL span of an entry of a timeline.
func inner(entry timeline.Span, took time.Duration) tracing.Span {
	return tracing.Span{
		Name:    string(entry.Kind) + " " + entry.Name,
		Kind:    trace.SpanKindInternal,
		Started: entry.Started,
		Took:    took,
		Attributes: []attribute.KeyValue{
			attribute.String("headgate.outcome", entry.Code), attribute.String("headgate.subject", entry.Subject),
			attribute.String("headgate.detail", entry.Detail),
		},
	}
}

// eventTemplate is the template of events' subjects (see [streams.EventSubject]).
const eventTemplate = "events.{tenant}.{aggregate_type}.{aggregate_id}"

// message returns the NATS message of a span's event.
func (s spans) message(rc contextkit.RequestContext, entry timeline.Span, took time.Duration) tracing.Message {
	aggregate, id, _ := strings.Cut(entry.Subject, "/")
	return tracing.Message{
		Destination: streams.EventSubject(rc.TenantID, aggregate, id),
		Template:    eventTemplate,
		ID:          entry.Event,
		Started:     entry.Started,
		Took:        took,
		Server:      s.bus(),
	}
}

// withEvent adds the event's type.
func withEvent(span tracing.Span, entry timeline.Span) tracing.Span {
	span.Attributes = append(span.Attributes, attribute.String("headgate.event_type", entry.Name))
	return span
}
