package tracing_test

import (
	"context"
	"encoding/hex"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/internal/tracing/tracingtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
func run(
	t *testing.T, config tracing.Config, service string, span tracing.Span, of ...contextkit.RequestContext,
) *tracing.Exporter {
	t.Helper()
	e, err := tracing.Open(t.Context(), config, tracing.Process{Name: service, Version: "1.2.3"}, zerolog.Nop())
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

func TestSpan_HasTheContractsIDs(t *testing.T) {
	c := tracingtest.Start(t)
	first := fresh(t)
	second := first
	second.SpanID = contextkit.NewSpanID()
	unsampled := fresh(t)
	unsampled.Traceparent.Flags = 0
	span := tracing.Span{
		Name:    "call",
		Kind:    trace.SpanKindServer,
		Started: time.Now(),
		Took:    time.Millisecond,
	}
	run(t, tracing.Config{Endpoint: c.URL, Headers: map[string]string{"api-key": "k"}}, "a", span, first, second,
		unsampled)
	id := func(id contextkit.SpanID) string { return hex.EncodeToString(id[:]) }
	parents := map[string]string{}
	for _, s := range c.Spans() {
		parents[s.ID] = s.Parent
	}
	if want := map[string]string{
		id(first.SpanID): "", id(second.SpanID): id(first.SpanID),
	}; !maps.Equal(parents, want) {
		t.Errorf("the spans and their parents are %v, want %v", parents, want)
	}
	if key := c.Headers().Get("api-key"); !slices.Equal(key, []string{"k"}) {
		t.Errorf("the collector gets the header %q", key)
	}

	c = tracingtest.Start(t)
	span.Inner, span.ErrorType = true, "internal"
	run(t, tracing.Config{Endpoint: c.URL}, "a", span, first)
	inner := c.Spans()
	if len(inner) != 1 || inner[0].ID == id(first.SpanID) || inner[0].Parent != id(first.SpanID) ||
		inner[0].GetStatus().GetMessage() != "internal" {
		t.Errorf("what is inner to %x is %v", first.SpanID, inner)
	}
}

func TestShare_ProcessesExportTheSameTraces(t *testing.T) {
	c := tracingtest.Start(t)
	var all []contextkit.RequestContext
	for range 400 {
		all = append(all, fresh(t))
	}
	exported := map[string]map[string]bool{"a": {}, "b": {}}
	for service := range exported {
		run(t, tracing.Config{Endpoint: c.URL, Share: 0.5}, service, tracing.Span{Name: "call", Started: time.Now()},
			all...)
	}
	for _, s := range c.Spans() {
		exported[s.Service][s.Trace] = true
	}
	if n := len(exported["a"]); n < 100 || n > 300 || !maps.Equal(exported["a"], exported["b"]) {
		t.Errorf("of 400 traces one exports %d, the other %d", n, len(exported["b"]))
	}
}

// lost is what an exporter counts.
func lost(t *testing.T, e *tracing.Exporter) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(e)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			out[metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue()
		}
	}
	return out
}

func TestExporter_LostSpansAreCounted(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	fine := run(t, tracing.Config{}, "a", tracing.Span{})
	if fine != nil {
		t.Fatal("there is an exporter without a collector")
	}
	e := run(t, tracing.Config{Endpoint: url}, "a", tracing.Span{Name: "call", Started: time.Now()}, fresh(t), fresh(t))
	if got, want := lost(t, e), map[string]float64{"not sent": 2, "queue full": 0}; !maps.Equal(got, want) {
		t.Errorf("lost are %v, want %v", got, want)
	}
	var many []contextkit.RequestContext
	for range 10_000 {
		many = append(many, fresh(t))
	}
	e = run(t, tracing.Config{Endpoint: url}, "a", tracing.Span{Name: "call", Started: time.Now()}, many...)
	if got := lost(t, e); got["queue full"] == 0 || got["queue full"]+got["not sent"] != 10_000 {
		t.Errorf("of 10,000 spans without a collector %v are lost", got)
	}
	c := tracingtest.Start(t)
	e = run(t, tracing.Config{Endpoint: c.URL}, "a", tracing.Span{Name: "call", Started: time.Now()}, fresh(t))
	if got, want := lost(t, e), map[string]float64{"not sent": 0, "queue full": 0}; !maps.Equal(got, want) ||
		len(c.Spans()) != 1 {
		t.Errorf("with a collector %v are lost, and it has %d", got, len(c.Spans()))
	}
}

func TestTracing_WithoutACollectorRecordsNothing(t *testing.T) {
	e, err := tracing.Open(t.Context(), tracing.Config{}, tracing.Process{}, zerolog.Nop())
	if e != nil || err != nil {
		t.Fatalf("%v, %v", e, err)
	}
	e.Record(fresh(t), tracing.Span{})
	for _, wrong := range []tracing.Config{
		{Endpoint: "127.0.0.1:4317"},
		{Endpoint: "ftp://a:1"},
		{Endpoint: "http://"},
		{Share: 1.5},
		{Share: -1},
	} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	if _, err := tracing.Open(
		t.Context(), tracing.Config{Endpoint: "collector"}, tracing.Process{}, zerolog.Nop(),
	); err == nil {
		t.Error("an endpoint that is none is taken")
	}
}

func TestExporter_ReconnectsWithinSecondsAfterALongOutage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the waits between attempts to connect grow for seconds")
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attempts := make(chan struct{})
	go func() { // ends with the listener
		defer close(attempts)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // the outage
			attempts <- struct{}{}
		}
	}()
	e, err := tracing.Open(t.Context(), tracing.Config{Endpoint: "http://" + listener.Addr().String()},
		tracing.Process{Name: "a"}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	e.Record(fresh(t), tracing.Span{Name: "call", Started: time.Now()})
	// With gRPC's own waits the eighth attempt comes after 43 s.
	enough := time.After(30 * time.Second)
	for n := range 8 {
		select {
		case <-attempts:
		case <-enough:
			t.Fatalf("only %d attempts to connect in 30 s", n)
		}
	}
	go func() { // those after are taken too
		for range attempts {
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkRecord records spans of upstream calls, which are sent concurrently.
func BenchmarkRecord(b *testing.B) {
	c := tracingtest.Start(b)
	e, err := tracing.Open(b.Context(), tracing.Config{Endpoint: c.URL}, tracing.Process{Name: "a"}, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	rc, _ := contextkit.FromContext(contextkit.TenantContext(b.Context(), tenant(b)))
	call := tracing.Call{
		Procedure: "/a.B/C",
		Protocol:  "grpc",
		Server:    "10.0.0.1:8080",
		Started:   time.Now(),
		Took:      time.Millisecond,
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Record(rc, tracing.ClientSpan(call, contextkit.NewSpanID()))
	}
	b.StopTimer()
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		b.Fatal(err)
	}
}

func tenant(b *testing.B) contextkit.TenantID {
	b.Helper()
	id, err := contextkit.ParseTenantID("acme")
	if err != nil {
		b.Fatal(err)
	}
	return id
}
