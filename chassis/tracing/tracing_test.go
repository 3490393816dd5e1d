package tracing_test

import (
	"context"
	"encoding/hex"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/chassis/tracing"
	"github.com/headgate/headgate/chassis/tracing/tracingtest"
	"github.com/headgate/headgate/contextkit"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
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
	c := tracingtest.Start(t)
	first := fresh(t)
	second := first
	second.SpanID = contextkit.NewSpanID()
	unsampled := fresh(t)
	unsampled.Traceparent.Flags = 0
	span := tracing.Span{Name: "call", Kind: trace.SpanKindServer, Started: time.Now(), Took: time.Millisecond}
	run(t, tracing.Config{Endpoint: c.URL, Headers: map[string]string{"api-key": "k"}}, "a", span, first, second, unsampled)
	id := func(id contextkit.SpanID) string { return hex.EncodeToString(id[:]) }
	parents := map[string]string{}
	for _, s := range c.Spans() {
		parents[s.ID] = s.Parent
	}
	if want := map[string]string{id(first.SpanID): "", id(second.SpanID): id(first.SpanID)}; !maps.Equal(parents, want) {
		t.Errorf("the spans and their parents are %v, want %v", parents, want)
	}
	if key := c.Headers().Get("api-key"); !slices.Equal(key, []string{"k"}) {
		t.Errorf("the collector gets the header %q", key)
	}

	c = tracingtest.Start(t)
	span.Inner, span.Failed, span.Outcome = true, true, "internal"
	run(t, tracing.Config{Endpoint: c.URL}, "a", span, first)
	inner := c.Spans()
	if len(inner) != 1 || inner[0].ID == id(first.SpanID) || inner[0].Parent != id(first.SpanID) || inner[0].GetStatus().GetMessage() != "internal" {
		t.Errorf("what is inner to %x is %v", first.SpanID, inner)
	}
}

func TestProcessesOfOneShareExportTheSameTraces(t *testing.T) {
	c := tracingtest.Start(t)
	var all []contextkit.RequestContext
	for range 400 {
		all = append(all, fresh(t))
	}
	exported := map[string]map[string]bool{"a": {}, "b": {}}
	for service := range exported {
		run(t, tracing.Config{Endpoint: c.URL, Share: 0.5}, service, tracing.Span{Name: "call", Started: time.Now()}, all...)
	}
	for _, s := range c.Spans() {
		exported[s.Service][s.Trace] = true
	}
	if n := len(exported["a"]); n < 100 || n > 300 || !maps.Equal(exported["a"], exported["b"]) {
		t.Errorf("of 400 traces one exports %d, the other %d", n, len(exported["b"]))
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
