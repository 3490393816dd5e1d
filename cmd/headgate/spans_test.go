package main_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/chassis/tracing/tracingtest"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
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
			t.Errorf("%s is a child of %q, which nobody has exported", own, s.Parent)
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

func TestEveryHopOfACallIsASpan(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the whole platform, as others do under the race detector")
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
	spans := collector.Spans()

	const (
		submit  = "headgate-gateway aggregate.gateway.v1.CommandService/Submit"
		decided = submit + " / headgate-aggregate aggregate.gateway.v1.CommandService/Submit"
		seen    = "headgate-projection projection "
		ask     = "headgate-gateway projection.gateway.v1.QueryService/Query"
	)
	if got := paths(t, spans, quiet, parent); len(got) > 0 {
		t.Errorf("a trace that is not sampled is exported: %q", got)
	}
	if got, want := paths(t, spans, query, parent), []string{ask, ask + " / headgate-projection projection.gateway.v1.QueryService/Query"}; !slices.Equal(got, want) {
		t.Errorf("a query: %q\nwant %q", got, want)
	}
	if got, want := paths(t, spans, command, parent), []string{submit, decided, decided + " / headgate-aggregate command deposit", decided + " / " + seen + "deposited"}; !slices.Equal(got, want) {
		t.Errorf("a command: %q\nwant %q", got, want)
	}
	got := paths(t, spans, transfer, parent)
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
	for _, s := range spans {
		if s.GetName() != "aggregate.gateway.v1.CommandService/Submit" {
			continue
		}
		if s.GetEndTimeUnixNano() <= s.GetStartTimeUnixNano() || s.Attribute("headgate.tenant") != "acme" || s.Attribute("headgate.outcome") != "ok" || s.GetKind() != tracev1.Span_SPAN_KIND_SERVER {
			t.Errorf("%v", s.Span)
		}
	}
}
