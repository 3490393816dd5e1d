package tracing_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/internal/tracing/tracingtest"
)

// attributes are a span's, as texts.
func attributes(s tracingtest.Span) map[string]string {
	out := map[string]string{}
	for _, a := range s.GetAttributes() {
		switch v := a.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonv1.AnyValue_IntValue:
			out[a.GetKey()] = fmt.Sprint(v.IntValue)
		}
	}
	return out
}

func TestSpans_FollowTheSemanticConventions(t *testing.T) {
	call := func(protocol string, code connect.Code) tracing.Call {
		return tracing.Call{
			Procedure: "/a.B/C",
			Protocol:  protocol,
			Code:      code,
			Server:    "10.0.0.1:8080",
			Client:    "10.0.0.2:5555",
			Started:   time.Now(),
			Took:      time.Millisecond,
		}
	}
	upstream := call(connect.ProtocolNameGRPC, connect.CodeNotFound)
	upstream.Client = ""
	id := contextkit.NewSpanID()
	request := tracing.Request{
		Method: "POST",
		Route:  "/v1/{a}",
		Path:   "/v1/x",
		Scheme: "http",
	}
	begun := request
	begun.Begun = true
	message := tracing.Message{
		Destination: "events.acme.wallet.a",
		Template:    "events.{tenant}",
		ID:          "1",
		Server:      "10.0.0.3:4222",
		Started:     time.Now(),
	}
	consumed := message
	consumed.Consumer = "projection"
	ends := map[string]string{
		"server.address": "10.0.0.1", "server.port": "8080", "client.address": "10.0.0.2", "client.port": "5555",
	}
	rpc := func(more ...string) map[string]string {
		out := maps.Clone(ends)
		out["rpc.service"], out["rpc.method"] = "a.B", "C"
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	rest := func(more ...string) map[string]string {
		out := maps.Clone(ends)
		maps.Copy(
			out,
			map[string]string{
				"http.request.method": "POST", "http.route": "/v1/{a}", "url.path": "/v1/x", "url.scheme": "http",
			},
		)
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	for name, tc := range map[string]struct {
		span   tracing.Span
		named  string
		kind   tracev1.Span_SpanKind
		failed bool
		want   map[string]string
	}{
		"gRPC": {
			tracing.ServerSpan(call("grpc", 0)), "a.B/C", tracev1.Span_SPAN_KIND_SERVER, false,
			rpc("rpc.system", "grpc", "rpc.grpc.status_code", "0"),
		},
		"gRPC-Web, a client's fault": {
			tracing.ServerSpan(call("grpcweb", connect.CodePermissionDenied)), "a.B/C", tracev1.Span_SPAN_KIND_SERVER,
			false,
			rpc("rpc.system", "grpc", "rpc.grpc.status_code", "7"),
		},
		"gRPC, the server's fault": {
			tracing.ServerSpan(call("grpc", connect.CodeUnavailable)), "a.B/C", tracev1.Span_SPAN_KIND_SERVER, true,
			rpc("rpc.system", "grpc", "rpc.grpc.status_code", "14", "error.type", "unavailable"),
		},
		"Connect": {
			tracing.ServerSpan(call("connect", 0)), "a.B/C", tracev1.Span_SPAN_KIND_SERVER, false,
			rpc("rpc.system", "connect_rpc"),
		},
		"Connect, refuse": {
			tracing.ServerSpan(call("connect", connect.CodeCanceled)), "a.B/C", tracev1.Span_SPAN_KIND_SERVER, false,
			rpc("rpc.system", "connect_rpc", "rpc.connect_rpc.error_code", "cancelled"),
		},
		"upstream call": {
			tracing.ClientSpan(upstream, id), "a.B/C", tracev1.Span_SPAN_KIND_CLIENT, true,
			map[string]string{
				"rpc.service": "a.B", "rpc.method": "C", "rpc.system": "grpc", "rpc.grpc.status_code": "5",
				"error.type":     "not_found",
				"server.address": "10.0.0.1", "server.port": "8080",
			},
		},
		"REST": {
			tracing.RESTSpan(call("rest", 0), request), "POST /v1/{a}", tracev1.Span_SPAN_KIND_SERVER, false,
			rest("http.response.status_code", "200"),
		},
		"REST, not found": {
			tracing.RESTSpan(call("rest", connect.CodeNotFound), request), "POST /v1/{a}",
			tracev1.Span_SPAN_KIND_SERVER, false, rest("http.response.status_code", "404"),
		},
		"REST, unavailable": {
			tracing.RESTSpan(call("rest", connect.CodeUnavailable), request), "POST /v1/{a}",
			tracev1.Span_SPAN_KIND_SERVER, true, rest("http.response.status_code", "503", "error.type", "503"),
		},
		"REST, cut off late": {
			tracing.RESTSpan(call("rest", connect.CodeUnavailable), begun), "POST /v1/{a}",
			tracev1.Span_SPAN_KIND_SERVER, true, rest("http.response.status_code", "200", "error.type", "unavailable"),
		},
		"published": {
			tracing.PublishSpan(message, id), "publish events.{tenant}", tracev1.Span_SPAN_KIND_PRODUCER, false,
			map[string]string{
				"messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
				"messaging.destination.name":     "events.acme.wallet.a",
				"messaging.destination.template": "events.{tenant}", "messaging.message.id": "1",
				"server.address": "10.0.0.3", "server.port": "4222",
			},
		},
		"consumed": {
			tracing.ProcessSpan(consumed), "process events.{tenant}", tracev1.Span_SPAN_KIND_CONSUMER, false,
			map[string]string{
				"messaging.system": "nats", "messaging.operation.name": "process",
				"messaging.operation.type": "process", "messaging.consumer.group.name": "projection",
				"messaging.destination.name":     "events.acme.wallet.a",
				"messaging.destination.template": "events.{tenant}", "messaging.message.id": "1",
				"server.address": "10.0.0.3", "server.port": "4222",
			},
		},
	} {
		c := tracingtest.Start(t)
		rc := fresh(t)
		rc.Traceparent.ParentID, rc.Tracestate = contextkit.NewSpanID(), "vendor=1,other=2"
		run(t, tracing.Config{Endpoint: c.URL}, "a", tc.span, rc)
		spans := c.Spans()
		if len(spans) != 1 {
			t.Fatalf("%s: %d spans are exported", name, len(spans))
		}
		got := spans[0]
		have := attributes(got)
		tc.want["headgate.correlation_id"] = rc.CorrelationID
		if !maps.Equal(have, tc.want) {
			t.Errorf("%s: %v\nwant %v", name, have, tc.want)
		}
		if failed := got.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR; failed != tc.failed ||
			got.GetName() != tc.named || got.GetKind() != tc.kind {
			t.Errorf("%s: %q, %v, failed %v; want %q, %v, %v", name, got.GetName(), got.GetKind(), failed, tc.named,
				tc.kind, tc.failed)
		}
		if got.GetTraceState() != rc.Tracestate || got.Scope != "github.com/headgate/headgate 1.2.3" {
			t.Errorf("%s: trace state %q, scope %q", name, got.GetTraceState(), got.Scope)
		}
	}
}

func TestRoundTripper_RequestsHaveAClientSpan(t *testing.T) {
	var parent string
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parent = strings.Split(r.Header.Get("Traceparent"), "-")[2]
		w.WriteHeader(http.StatusTeapot)
	}))
	defer receiver.Close()
	c := tracingtest.Start(t)
	e, err := tracing.Open(t.Context(), tracing.Config{Endpoint: c.URL}, tracing.Process{Name: "a"}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	plain := &http.Transport{}
	defer plain.CloseIdleConnections()
	client := &http.Client{Transport: e.RoundTripper(contextkit.HTTPTransport(plain))}
	req, err := http.NewRequestWithContext(contextkit.NewContext(t.Context(), fresh(t)), http.MethodPost,
		receiver.URL+"/hook?secret=1", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Fatal(err)
	}
	spans := c.Spans()
	if len(spans) != 1 || spans[0].ID != parent || spans[0].GetKind() != tracev1.Span_SPAN_KIND_CLIENT {
		t.Fatalf("the receiver's parent is %s, the spans %v", parent, spans)
	}
	have := attributes(spans[0])
	if have["url.full"] != receiver.URL+"/hook" || have["http.response.status_code"] != "418" ||
		have["error.type"] != "418" || have["server.address"] != "127.0.0.1" {
		t.Errorf("%v", have)
	}
}
