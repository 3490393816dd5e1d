package main_test

import (
	"context"
	"encoding/hex"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// collector takes spans as an OpenTelemetry collector does.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans map[string]made // by id
}

// made is a span with the service that made it.
type made struct {
	*tracev1.Span

	service string
}

func (s made) parent() string { return hex.EncodeToString(s.GetParentSpanId()) }

func (s made) attribute(name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

func startCollector(t *testing.T) (c *collector, url string) {
	t.Helper()
	c = &collector{spans: map[string]made{}}
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

// Export implements the collector's service.
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
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[hex.EncodeToString(span.GetSpanId())] = made{span, service}
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// trace returns the spans of a trace as "service name", each after its parent's, like
// "a b / c d"; root is the id of the parent that is not among them.
func (c *collector) trace(t *testing.T, id, root string) []string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var path func(id string) string
	path = func(id string) string {
		span := c.spans[id]
		own := span.service + " " + span.GetName()
		switch _, known := c.spans[span.parent()]; {
		case known:
			return path(span.parent()) + " / " + own
		case span.parent() != root:
			t.Errorf("%s is a child of %q, which nobody has exported", own, span.parent())
		}
		return own
	}
	var paths []string
	for span, s := range c.spans {
		if hex.EncodeToString(s.GetTraceId()) == id {
			paths = append(paths, path(span))
		}
	}
	slices.Sort(paths)
	return paths
}

func TestEveryHopOfACallIsASpan(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the whole platform, as others do under the race detector")
	}
	spans, url := startCollector(t)
	p := start(t, t.TempDir(), nil, "--otlp", url)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const parent = "00f067aa0ba902b7"
	call := func(trace, flags, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := do(req, "Authorization", "Bearer "+p.tokens["ACME"], "Traceparent", "00-"+trace+"-"+parent+"-"+flags)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, text, err)
		}
		return text
	}
	const quiet, command, transfer, query = "11111111111111111111111111111111", "22222222222222222222222222222222", "33333333333333333333333333333333", "44444444444444444444444444444444"
	call(quiet, "00", "/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`)
	call(quiet, "00", "/v1/commands/wallet/b/open", `{"payload":{"owner":"Bob"}}`)
	call(command, "01", "/v1/commands/wallet/a/deposit", `{"payload":{"amount":100}}`)
	call(transfer, "01", "/v1/commands/transfer/t/request", `{"payload":{"from":"a","to":"b","amount":60}}`)
	if err := eventually(ctx, "the transfer is completed", func() (bool, error) {
		return strings.Contains(call(quiet, "00", "/v1/query/transfers", `{"query":{"filter":"state = \"completed\""}}`), `"transfer_id":"t"`), nil
	}); err != nil {
		t.Fatal(err)
	}
	call(query, "01", "/v1/query/wallets", `{}`)
	p.stop(t) // what was recorded has been sent then

	const (
		submit  = "headgate-gateway aggregate.gateway.v1.CommandService/Submit"
		decided = submit + " / headgate-aggregate aggregate.gateway.v1.CommandService/Submit"
		seen    = "headgate-projection projection "
		ask     = "headgate-gateway projection.gateway.v1.QueryService/Query"
	)
	if got := spans.trace(t, quiet, parent); len(got) > 0 {
		t.Errorf("a trace that is not sampled is exported: %q", got)
	}
	if got, want := spans.trace(t, query, parent), []string{ask, ask + " / headgate-projection projection.gateway.v1.QueryService/Query"}; !slices.Equal(got, want) {
		t.Errorf("a query: %q\nwant %q", got, want)
	}
	if got, want := spans.trace(t, command, parent), []string{submit, decided, decided + " / headgate-aggregate command deposit", decided + " / " + seen + "deposited"}; !slices.Equal(got, want) {
		t.Errorf("a command: %q\nwant %q", got, want)
	}
	got := spans.trace(t, transfer, parent)
	for _, want := range []string{
		decided + " / headgate-aggregate command request",
		decided + " / headgate-runner step transfer debit / " + decided + " / headgate-aggregate command withdraw",
		decided + " / headgate-runner step transfer debit / " + decided + " / " + seen + "withdrawn",
		decided + " / headgate-runner step transfer credit / " + decided + " / " + seen + "deposited",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("a transfer has no span %q:\n%s", want, strings.Join(got, "\n"))
		}
	}
	for _, s := range slices.Collect(maps.Values(spans.spans)) {
		if s.GetName() != "aggregate.gateway.v1.CommandService/Submit" {
			continue
		}
		if s.GetEndTimeUnixNano() <= s.GetStartTimeUnixNano() || s.attribute("headgate.tenant") != "acme" || s.attribute("headgate.outcome") != "ok" || s.GetKind() != tracev1.Span_SPAN_KIND_SERVER {
			t.Errorf("%v", s.Span)
		}
	}
}
