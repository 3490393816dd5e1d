package tracing_test

import (
	"context"
	"encoding/hex"
	"maps"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/chassis/tracing"
	"github.com/headgate/headgate/contextkit"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector notes the parents of spans, by their own ids after their services' names.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer

	mu     sync.Mutex
	traces map[string]map[string]bool // by service
	spans  map[string]string          // parents by span
}

func (c *collector) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		service := ""
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		if c.traces[service] == nil {
			c.traces[service] = map[string]bool{}
		}
		for _, span := range resource.GetScopeSpans()[0].GetSpans() {
			c.traces[service][hex.EncodeToString(span.GetTraceId())] = true
			c.spans[hex.EncodeToString(span.GetSpanId())] = hex.EncodeToString(span.GetParentSpanId())
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) (*collector, string) {
	t.Helper()
	c := &collector{traces: map[string]map[string]bool{}, spans: map[string]string{}}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c, "http://" + listener.Addr().String()
}

// fresh is the context of a call that begins a trace.
func fresh(t *testing.T) contextkit.RequestContext {
	t.Helper()
	rc, ok := contextkit.FromContext(contextkit.PlatformContext(t.Context()))
	if !ok {
		t.Fatal("there is no context")
	}
	return rc
}

// run has spans of contexts exported, and returns once they have been sent, or given up.
func run(t *testing.T, config tracing.Config, service string, span tracing.Span, of ...contextkit.RequestContext) *tracing.Exporter {
	t.Helper()
	e, err := tracing.Open(t.Context(), config, tracing.Process{Name: service}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	for _, rc := range of {
		e.Record(rc, span)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestASpanIsWhatTheContractSays(t *testing.T) {
	c, url := startCollector(t)
	first := fresh(t)
	second := first
	second.SpanID = contextkit.NewSpanID()
	unsampled := fresh(t)
	unsampled.Traceparent.Flags = 0
	span := tracing.Span{Name: "call", Kind: trace.SpanKindServer, Started: time.Now(), Took: time.Millisecond}
	run(t, tracing.Config{Endpoint: url}, "a", span, first, second, unsampled)
	id := func(id contextkit.SpanID) string { return hex.EncodeToString(id[:]) }
	if want := map[string]string{id(first.SpanID): "", id(second.SpanID): id(first.SpanID)}; !maps.Equal(c.spans, want) {
		t.Errorf("the spans and their parents are %v, want %v", c.spans, want)
	}
	clear(c.spans)
	span.Inner = true
	run(t, tracing.Config{Endpoint: url}, "a", span, first)
	for own, parent := range c.spans {
		if own == id(first.SpanID) || parent != id(first.SpanID) {
			t.Errorf("an inner span of %x is %s under %s", first.SpanID, own, parent)
		}
	}
	if len(c.spans) != 1 {
		t.Errorf("%d spans, want one", len(c.spans))
	}
}

func TestProcessesOfOneShareExportTheSameTraces(t *testing.T) {
	c, url := startCollector(t)
	var all []contextkit.RequestContext
	for range 400 {
		all = append(all, fresh(t))
	}
	for _, service := range []string{"a", "b"} {
		run(t, tracing.Config{Endpoint: url, Share: 0.5}, service, tracing.Span{Name: "call", Started: time.Now()}, all...)
	}
	if n := len(c.traces["a"]); n < 100 || n > 300 || !maps.Equal(c.traces["a"], c.traces["b"]) {
		t.Errorf("of 400 traces one exports %d, the other %d", n, len(c.traces["b"]))
	}
}

func TestSpansThatNobodyTakesAreCounted(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	e := run(t, tracing.Config{Endpoint: url}, "a", tracing.Span{Name: "call", Started: time.Now()}, fresh(t), fresh(t))
	if lost := testutil.ToFloat64(e); lost != 2 {
		t.Errorf("%v spans are lost, want 2", lost)
	}
}

func TestWithoutACollectorNothingIsRecorded(t *testing.T) {
	e, err := tracing.Open(t.Context(), tracing.Config{}, tracing.Process{}, zerolog.Nop())
	if e != nil || err != nil {
		t.Fatalf("%v, %v", e, err)
	}
	e.Record(fresh(t), tracing.Span{})
	for _, wrong := range []tracing.Config{{Endpoint: "127.0.0.1:4317"}, {Endpoint: "ftp://a:1"}, {Endpoint: "http://"}, {Share: 1.5}, {Share: -1}} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	if _, err := tracing.Open(t.Context(), tracing.Config{Endpoint: "collector"}, tracing.Process{}, zerolog.Nop()); err == nil {
		t.Error("an endpoint that is none is taken")
	}
}
