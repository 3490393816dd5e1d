// Package tracingtest is an OpenTelemetry collector for tests.
package tracingtest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"testing"

	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Span is a span that was exported.
type Span struct {
	*tracev1.Span

	// Service is who exported it, and Scope the name and version of the instrumentation.
	Service, Scope string
	// ID, Parent and Trace are its ids in hexadecimal digits; Parent is "" for none.
	ID, Parent, Trace string
}

// Attribute returns a text among the span's attributes, "" if there is none.
func (s Span) Attribute(name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// Collector takes spans by OTLP over gRPC.
type Collector struct {
	// URL is where.
	URL string

	mu      sync.Mutex
	spans   []Span
	headers metadata.MD
}

// Start returns a collector that ends with the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{URL: "http://" + listener.Addr().String()}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.trace.v1.TraceService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{
				MethodName: "Export",
				Handler: func(
					_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
				) (any, error) {
					var data tracev1.TracesData // as the request is on the wire
					if err := decode(&data); err != nil {
						return nil, err
					}
					c.take(ctx, &data)
					return &emptypb.Empty{}, nil
				},
			},
		},
	}, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *Collector) take(ctx context.Context, data *tracev1.TracesData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.headers, _ = metadata.FromIncomingContext(ctx)
	for _, resource := range data.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans = append(c.spans, Span{
					Span:    span,
					Service: service,
					Scope:   scope.GetScope().GetName() + " " + scope.GetScope().GetVersion(),
					ID:      hex.EncodeToString(span.GetSpanId()),
					Parent:  hex.EncodeToString(span.GetParentSpanId()),
					Trace:   hex.EncodeToString(span.GetTraceId()),
				})
			}
		}
	}
}

// Spans returns what was exported so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Headers returns what came with the last spans.
func (c *Collector) Headers() metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers.Copy()
}
