package main_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/headgate/headgate/internal/tracing/tracingtest"
)

// paths returns the spans of a trace as "service name", each after its parent's, like
// "a b / c d"; root is the id of the parent that is not among them.
func paths(t *testing.T, spans []tracingtest.Span, trace, root string) []string {
	t.Helper()
	known := map[string]tracingtest.Span{}
	for _, s := range spans {
		known[s.ID] = s
	}
	var path func(s tracingtest.Span) string
	path = func(s tracingtest.Span) string {
		own := s.Service + " " + s.GetName()
		parent, found := known[s.Parent]
		switch {
		case found:
			return path(parent) + " / " + own
		case s.Parent != root:
			t.Errorf("%s is a child of %q, which no process exported", own, s.Parent)
		}
		return own
	}
	var out []string
	for _, s := range spans {
		if s.Trace == trace {
			out = append(out, path(s))
		}
	}
	slices.Sort(out)
	return out
}

func TestSpans_CoverEveryPartOfACall(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the whole platform; other tests cover this under the race detector")
	}
	collector := tracingtest.Start(t)
	p := start(t, t.TempDir(), nil, "--otlp", collector.URL)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const parent = "00f067aa0ba902b7"
	call := func(trace, flags, path, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		status, text, err := do(req, "Authorization", "Bearer "+p.tokens["ACME"], "Traceparent",
			"00-"+trace+"-"+parent+"-"+flags)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s, %v", path, status, text, err)
		}
		return text
	}
	const quiet, command, transfer, query = "11111111111111111111111111111111", "22222222222222222222222222222222",
		"33333333333333333333333333333333", "44444444444444444444444444444444"
	call(quiet, "00", "/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`)
	call(quiet, "00", "/v1/commands/wallet/b/open", `{"payload":{"owner":"Bob"}}`)
	call(command, "01", "/v1/commands/wallet/a/deposit", `{"payload":{"amount":100}}`)
	call(transfer, "01", "/v1/commands/transfer/t/request", `{"payload":{"from":"a","to":"b","amount":60}}`)
	if err := eventually(ctx, "the transfer is completed", func() (bool, error) {
		return strings.Contains(
			call(quiet, "00", "/v1/query/transfers", `{"query":{"filter":"state = \"completed\""}}`),
			`"transfer_id":"t"`,
		), nil
	}); err != nil {
		t.Fatal(err)
	}
	call(query, "01", "/v1/query/wallets", `{}`)
	p.stop(t) // what was recorded has been sent then
	spans := collector.Spans()

	const (
		asks     = "headgate-gateway aggregate.gateway.v1.CommandService/Submit"
		submit   = "headgate-gateway POST /v1/commands/{aggregate_type}/{aggregate_id}/{command}"
		decided  = asks + " / headgate-aggregate aggregate.gateway.v1.CommandService/Submit"
		appended = decided + " / headgate-aggregate publish " + events
		seen     = appended + " / headgate-projection process " + events
		sends    = "headgate-runner aggregate.gateway.v1.CommandService/Submit / headgate-gateway " +
			"aggregate.gateway.v1.CommandService/Submit"
		query1 = "headgate-gateway POST /v1/query/{view}"
		query2 = query1 + " / headgate-gateway projection.gateway.v1.QueryService/Query"
	)
	if got := paths(t, spans, quiet, parent); len(got) > 0 {
		t.Errorf("an unsampled trace was exported: %q", got)
	}
	if got, want := paths(t, spans, query, parent), []string{
		query1, query2, query2 + " / headgate-projection projection.gateway.v1.QueryService/Query",
	}; !slices.Equal(got, want) {
		t.Errorf("a query: %q\nwant %q", got, want)
	}
	want := []string{
		submit, submit + " / " + asks, submit + " / " + decided,
		submit + " / " + decided + " / headgate-aggregate command deposit", submit + " / " + appended,
		submit + " / " + seen,
	}
	if got := paths(t, spans, command, parent); !slices.Equal(got, want) {
		t.Errorf("a command: %q\nwant %q", got, want)
	}
	got := paths(t, spans, transfer, parent)
	for _, want := range []string{
		submit + " / " + decided + " / headgate-aggregate command request",
		submit + " / " + appended + " / headgate-runner step transfer debit / " + sends + " / " + decided +
			" / headgate-aggregate command withdraw",
		submit + " / " + appended + " / headgate-runner step transfer debit / " + sends + " / " + seen,
		submit + " / " + appended + " / headgate-runner step transfer credit / " + sends + " / " + seen,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("a transfer has no span %q:\n%s", want, strings.Join(got, "\n"))
		}
	}
	kinds := map[tracev1.Span_SpanKind]int{}
	for _, s := range spans {
		kinds[s.GetKind()]++
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() || s.Attribute("headgate.tenant") != "acme" {
			t.Errorf("%v", s.Span)
		}
		for _, a := range s.GetAttributes() {
			if text, ok := a.GetValue().GetValue().(*commonv1.AnyValue_StringValue); ok && text.StringValue == "" {
				t.Errorf("%s: empty attribute %s", s.GetName(), a.GetKey())
			}
		}
		if strings.HasPrefix(s.GetName(), "POST ") &&
			(s.Attribute("client.address") != "127.0.0.1" || s.Attribute("server.address") != "127.0.0.1" ||
				s.Attribute("url.path") == "") {
			t.Errorf("attributes of a REST call: %v", s.GetAttributes())
		}
		if s.GetName() == "publish "+events &&
			(s.Attribute("messaging.message.id") == "" ||
				!strings.HasPrefix(s.Attribute("messaging.destination.name"), "events.acme.")) {
			t.Errorf("attributes of an event: %v", s.GetAttributes())
		}
	}
	for _, kind := range []tracev1.Span_SpanKind{
		tracev1.Span_SPAN_KIND_SERVER, tracev1.Span_SPAN_KIND_CLIENT, tracev1.Span_SPAN_KIND_PRODUCER,
		tracev1.Span_SPAN_KIND_CONSUMER, tracev1.Span_SPAN_KIND_INTERNAL,
	} {
		if kinds[kind] == 0 {
			t.Errorf("no span of kind %v", kind)
		}
	}
}

// events is the template of the subjects that events are published to.
const events = "events.{tenant}.{aggregate_type}.{aggregate_id}"
