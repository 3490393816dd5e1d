package main

import (
	"context"
	"strings"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/chassis/tracing"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// spans makes spans of what a role does.
type spans struct{ *tracing.Exporter }

// openSpans returns the spans of a node, which go nowhere if config says so.
func openSpans(ctx context.Context, config tracing.Config, kind, id string, log zerolog.Logger) (spans, error) {
	exporter, err := tracing.Open(ctx, config, tracing.Process{Name: "headgate-" + kind, Node: id, Version: newNode(kind, id, "").Version}, log)
	return spans{exporter}, err
}

// metrics are the exporter's, none if there is no exporter.
func (s spans) metrics() []prometheus.Collector {
	if s.Exporter == nil {
		return nil
	}
	return []prometheus.Collector{s.Exporter}
}

// call is told of a service's calls.
func (s spans) call(rc contextkit.RequestContext, call chassis.Ended) {
	s.Record(rc, serverSpan(call))
}

// edgeCall is told of a gateway's calls.
func (s spans) edgeCall(rc contextkit.RequestContext, call gateway.Ended) {
	span := serverSpan(call.Ended)
	span.Attributes = append(span.Attributes,
		attribute.String("enduser.id", call.Principal), attribute.String("headgate.node", call.Node), attribute.Int("headgate.attempts", call.Attempts))
	s.Record(rc, span)
}

// serverSpan is the span of a call that was answered (OpenTelemetry's conventions for
// RPC).
func serverSpan(call chassis.Ended) tracing.Span {
	service, method, _ := strings.Cut(strings.TrimPrefix(call.Procedure, "/"), "/")
	return tracing.Span{
		Name: service + "/" + method, Kind: trace.SpanKindServer, Started: call.Started, Took: call.Took, Failed: call.OwnFault(), Outcome: chassis.CodeName(call.Err),
		Attributes: []attribute.KeyValue{
			attribute.String("rpc.system", "connect_rpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", method), attribute.String("network.protocol.name", call.Protocol),
		},
	}
}

// hop is told of a timeline's hops. Calls are spans already, and events are of no length.
func (s spans) hop(rc contextkit.RequestContext, hop backbone.Hop) {
	span := tracing.Span{
		Name: hop.Kind + " " + hop.Name, Kind: trace.SpanKindInternal, Started: hop.Started, Took: time.Duration(hop.Milliseconds * float64(time.Millisecond)), Outcome: hop.Code,
		Attributes: []attribute.KeyValue{attribute.String("headgate.subject", hop.Subject), attribute.String("headgate.detail", hop.Detail)},
	}
	switch hop.Kind {
	case backbone.HopCommand:
		span.Inner = true
	case backbone.HopProjection:
		span.Kind = trace.SpanKindConsumer
	case backbone.HopStep:
		span.Failed = hop.Code == backbone.HopFailed
	default:
		return
	}
	s.Record(rc, span)
}
