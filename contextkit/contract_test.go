package contextkit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

func tenant(t *testing.T, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func traceparent(t *testing.T) contextkit.Traceparent {
	t.Helper()
	tp, err := contextkit.ParseTraceparent(validTraceparent)
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

func fullContext(t *testing.T) (context.Context, contextkit.RequestContext) {
	tp := traceparent(t)
	rc := contextkit.RequestContext{
		TenantID:      tenant(t, "acme"),
		CorrelationID: "corr-1",
		Traceparent:   tp,
		Tracestate:    "vendor=1",
		TraceID:       tp.TraceID,
		RequestID:     "req-1",
		CausationID:   "cause-1",
		Depth:         7,
	}
	return contextkit.NewContext(t.Context(), rc), rc
}

func TestTenantID_IsADNSLabel(t *testing.T) {
	for _, good := range []string{"acme", "a", "0", "a-b", "z", "9", "az09", strings.Repeat("a", 63)} {
		if _, err := contextkit.ParseTenantID(good); err != nil {
			t.Errorf("%q is refused: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a.b", "*", ">", "Acme", "-a", "a-", "a_b", "a b", "a/b", "a{", "a:", "..", "ä", strings.Repeat("a", 64),
		strings.Repeat("a", 200),
	} {
		id, err := contextkit.ParseTenantID(bad)
		if !errors.Is(err, contextkit.ErrInvalidTenant) || !id.IsZero() {
			t.Errorf("ParseTenantID(%q) = %q, %v; want ErrInvalidTenant", bad, id, err)
		}
	}
	if _, err := contextkit.ParseTenantID("acMe"); err == nil ||
		!strings.Contains(err.Error(), `"M" is not allowed at position 3`) {
		t.Errorf("acMe: %v, want the character and its position", err)
	}
}

func TestInject_SendsTheCurrentContext(t *testing.T) {
	sent := func(rc contextkit.RequestContext) (traceparent, told string) {
		header, answer := http.Header{}, http.Header{}
		if err := contextkit.Inject(contextkit.NewContext(t.Context(), rc), header); err != nil {
			t.Fatal(err)
		}
		contextkit.InjectResponse(&rc, answer)
		return header.Get("traceparent"), answer.Get("trace-id")
	}
	want := func(rc contextkit.RequestContext) (traceparent, told string) {
		return contextkit.Traceparent{
			TraceID:  rc.Traceparent.TraceID,
			ParentID: rc.SpanID,
			Flags:    rc.Traceparent.Flags,
		}.String(), rc.TraceID.String()
	}
	received, err := contextkit.Extract(http.Header{"X-Tenant-Id": {"acme"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*contextkit.RequestContext){
		"unchanged":       func(*contextkit.RequestContext) {},
		"other span":      func(rc *contextkit.RequestContext) { rc.SpanID = contextkit.NewSpanID() },
		"other trace":     func(rc *contextkit.RequestContext) { rc.Traceparent = contextkit.NewTraceparent() },
		"not sampled":     func(rc *contextkit.RequestContext) { rc.Traceparent.Flags = 0 },
		"a trace id only": func(rc *contextkit.RequestContext) { rc.TraceID[0]++ },
	} {
		rc := received
		change(&rc)
		gotTraceparent, gotTold := sent(rc)
		wantTraceparent, wantTold := want(rc)
		if gotTraceparent != wantTraceparent || gotTold != wantTold {
			t.Errorf("%s: %q and %q, want %q and %q", name, gotTraceparent, gotTold, wantTraceparent, wantTold)
		}
	}
}

func TestExtract_ReplacesInvalidIDsAndRejectsABadTenant(t *testing.T) {
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	cases := []struct {
		name    string
		header  http.Header
		wantErr error
		check   func(contextkit.RequestContext) bool
	}{
		{
			"all given",
			header("x-tenant-id", "acme", "x-correlation-id", "c", "traceparent", validTraceparent, "tracestate", "a=1",
				"tracestate", "b=2", "x-request-id", "r"),
			nil,
			func(rc contextkit.RequestContext) bool {
				return rc.TenantID.String() == "acme" && rc.CorrelationID == "c" && rc.RequestID == "r" &&
					rc.Traceparent.String() == validTraceparent && rc.Tracestate == "a=1,b=2" &&
					rc.TraceID.String() == "4bf92f3577b34da6a3ce929d0e0e4736"
			},
		},
		{"no header", header(), nil, func(rc contextkit.RequestContext) bool {
			return rc.TenantID.IsZero() && !rc.Platform && len(rc.CorrelationID) == 36 && len(rc.RequestID) == 36 &&
				!rc.Traceparent.IsZero()
		}},
		{
			"bad traceparent starts a new trace, tracestate goes with it",
			header("traceparent", "00-zz", "tracestate", "a=1"), nil,
			func(rc contextkit.RequestContext) bool { return !rc.Traceparent.IsZero() && rc.Tracestate == "" },
		},
		{
			"duplicated traceparent starts a new trace",
			header("traceparent", validTraceparent, "traceparent", validTraceparent), nil,
			func(rc contextkit.RequestContext) bool { return rc.Traceparent.String()[:36] != validTraceparent[:36] },
		},
		{"explicit trace id is continued", header("trace-id", "4bf92f3577b34da6a3ce929d0e0e4736"), nil,
			func(rc contextkit.RequestContext) bool {
				return rc.Traceparent.TraceID.String() == "4bf92f3577b34da6a3ce929d0e0e4736"
			}},
		{
			"traceparent wins over trace id",
			header("trace-id", "11111111111111111111111111111111", "traceparent", validTraceparent), nil,
			func(rc contextkit.RequestContext) bool {
				return rc.TraceID.String() == "4bf92f3577b34da6a3ce929d0e0e4736"
			},
		},
		{"duplicated correlation id is replaced", header("x-correlation-id", "a", "x-correlation-id", "b"), nil,
			func(rc contextkit.RequestContext) bool { return len(rc.CorrelationID) == 36 }},
		{"over-long request id is replaced", header("x-request-id", strings.Repeat("r", 129)), nil,
			func(rc contextkit.RequestContext) bool { return len(rc.RequestID) == 36 }},
		{"non-token correlation id is replaced", header("x-correlation-id", "a b\r\nx: y"), nil,
			func(rc contextkit.RequestContext) bool { return len(rc.CorrelationID) == 36 }},
		{"duplicated tenant", header("x-tenant-id", "acme", "x-tenant-id", "acme"), contextkit.ErrDuplicateTenant, nil},
		{"comma-joined tenant", header("x-tenant-id", "acme,globex"), contextkit.ErrInvalidTenant, nil},
		{"empty tenant", header("x-tenant-id", ""), contextkit.ErrInvalidTenant, nil},
		{"wildcard tenant", header("x-tenant-id", ">"), contextkit.ErrInvalidTenant, nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			rc, err := contextkit.Extract(tc.header)
			if !errors.Is(err, tc.wantErr) {
				t.Fatalf("err = %v, want %v", err, tc.wantErr)
			}
			if tc.check != nil && !tc.check(rc) {
				t.Fatalf("unexpected %+v", rc)
			}
		})
	}
}

// contractHeaders checks names and values as they stand on the wire.
func contractHeaders(t *testing.T, get func(string) string, names map[string]string) {
	t.Helper()
	for name, want := range names {
		if got := get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestHTTP_CarriesTheContractBothWays(t *testing.T) {
	ctx, rc := fullContext(t)
	var seen contextkit.RequestContext
	var raw http.Header
	handler := contextkit.HTTPMiddleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw = r.Header
		seen, _ = contextkit.FromContext(r.Context())
	}))
	server := httptest.NewServer(handler)
	defer server.Close()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
	client := http.Client{Transport: contextkit.HTTPTransport(http.DefaultTransport)}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	defer client.CloseIdleConnections()
	contractHeaders(t, raw.Get, map[string]string{
		"x-tenant-id": "acme", "x-correlation-id": "corr-1", "x-request-id": "req-1", "x-causation-id": "cause-1",
		"tracestate": "vendor=1",
	})
	contractHeaders(t, res.Header.Get,
		map[string]string{"x-correlation-id": "corr-1", "x-request-id": "req-1", "trace-id": rc.TraceID.String()})
	if seen.Traceparent.TraceID != rc.TraceID || seen.Traceparent.ParentID == rc.Traceparent.ParentID {
		t.Errorf("traceparent %v: want the same trace with the process's own parent id", seen.Traceparent)
	}
	seen.Traceparent = rc.Traceparent
	if diff := cmp.Diff(
		rc, seen, cmp.AllowUnexported(contextkit.TenantID{}), cmpopts.IgnoreTypes(contextkit.SpanID{}),
		cmpopts.IgnoreUnexported(contextkit.RequestContext{}),
	); diff != "" {
		t.Errorf("context changed on the way (-sent +seen):\n%s", diff)
	}
}

type echoQueries struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
	seen func(context.Context)
}

func (e echoQueries) ListViews(
	ctx context.Context, _ *projectionv1.ListViewsRequest,
) (*projectionv1.ListViewsResponse, error) {
	e.seen(ctx)
	return &projectionv1.ListViewsResponse{}, nil
}

func TestConnect_CarriesTheContractBothWays(t *testing.T) {
	ctx, rc := fullContext(t)
	var seen contextkit.RequestContext
	server := connect.NewServer(contextkit.ServerInterceptor)
	gatewayv1connect.RegisterQueryServiceHandler(server, echoQueries{seen: func(ctx context.Context) {
		seen, _ = contextkit.FromContext(ctx)
	}})
	client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(connectinprocess.New(server)))
	callCtx, info := connect.NewClientContext(ctx)
	if _, err := client.ListViews(callCtx, &projectionv1.ListViewsRequest{}); err != nil {
		t.Fatal(err)
	}
	contractHeaders(t, info.RequestHeader().Get, map[string]string{
		"x-tenant-id": "acme", "x-correlation-id": "corr-1", "x-request-id": "req-1", "x-causation-id": "cause-1",
		"tracestate": "vendor=1",
	})
	contractHeaders(t, info.ResponseHeader().Get,
		map[string]string{"x-correlation-id": "corr-1", "x-request-id": "req-1"})
	if seen.TenantID != rc.TenantID || seen.TraceID != rc.TraceID || seen.CorrelationID != rc.CorrelationID {
		t.Errorf("handler saw %+v, want %+v", seen, rc)
	}
}

func TestNewClient_CallWithoutContextFails(t *testing.T) {
	server := connect.NewServer(contextkit.ServerInterceptor)
	gatewayv1connect.RegisterQueryServiceHandler(server,
		echoQueries{seen: func(context.Context) { t.Error("the handler was reached") }})
	typed := func(client *connect.Client) error {
		_, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(t.Context(),
			&projectionv1.ListViewsRequest{})
		return err
	}
	t.Run("by the client, before it is sent", func(t *testing.T) {
		if err := typed(contextkit.NewClient(connectinprocess.New(server))); !errors.Is(err, contextkit.ErrNoContext) {
			t.Fatalf("err = %v, want ErrNoContext", err)
		}
	})
	t.Run("by the server, when the method is for a tenant", func(t *testing.T) {
		if err := typed(
			connect.NewClient(connectinprocess.New(server)),
		); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Fatalf("err = %v, want INVALID_ARGUMENT", err)
		}
	})
	t.Run("by the server, from a platform client", func(t *testing.T) {
		client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(connectinprocess.New(server)))
		_, err := client.ListViews(contextkit.PlatformContext(t.Context()), &projectionv1.ListViewsRequest{})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Fatalf("err = %v, want INVALID_ARGUMENT", err)
		}
	})
	t.Run("by HTTP, before it is sent", func(t *testing.T) {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:0/", nil)
		res, err := contextkit.HTTPTransport(http.DefaultTransport).RoundTrip(req)
		if !errors.Is(err, contextkit.ErrNoContext) {
			if res != nil {
				res.Body.Close()
			}
			t.Fatalf("err = %v, want ErrNoContext", err)
		}
	})
	t.Run("by NATS, for each thing that is missing", func(t *testing.T) {
		noTrace := contextkit.NewContext(t.Context(), contextkit.RequestContext{TenantID: tenant(t, "acme")})
		noTenant := contextkit.NewContext(t.Context(), contextkit.RequestContext{Traceparent: traceparent(t)})
		for want, ctx := range map[error]context.Context{
			contextkit.ErrNoContext: t.Context(), contextkit.ErrNoTenant: noTenant, contextkit.ErrNoTrace: noTrace,
		} {
			if err := contextkit.InjectNATS(ctx, nats.Header{}); !errors.Is(err, want) {
				t.Errorf("err = %v, want %v", err, want)
			}
		}
	})
}

func TestNATS_CarriesTheContractBothWays(t *testing.T) {
	ctx, rc := fullContext(t)
	header := nats.Header{}
	if err := contextkit.InjectNATS(ctx, header); err != nil {
		t.Fatal(err)
	}
	exact := func(name string) string { return strings.Join(header[name], "|") } // NATS header names are case-sensitive
	contractHeaders(t, exact, map[string]string{
		"tenant-id": "acme", "x-correlation-id": "corr-1", "correlation-id": "corr-1", "trace-id": rc.TraceID.String(),
		"causation-id": "cause-1", "x-request-id": "req-1", "tracestate": "vendor=1",
	})
	got, err := contextkit.ExtractNATS(header)
	if err != nil || got.Traceparent.TraceID != rc.TraceID {
		t.Fatalf("extracted %+v, %v", got, err)
	}
	t.Run("the context of a message is forwarded", func(t *testing.T) {
		onward := nats.Header{}
		if err := contextkit.InjectNATS(contextkit.NewContext(t.Context(), got), onward); err != nil {
			t.Fatal(err)
		}
		position, err := contextkit.ParseTraceparent(onward.Get("traceparent"))
		want := contextkit.Traceparent{TraceID: rc.TraceID, ParentID: got.SpanID, Flags: got.Traceparent.Flags}
		if err != nil || position != want || onward.Get("trace-id") != rc.TraceID.String() {
			t.Errorf("sent on at %+v, %v, want %+v; trace-id %q", position, err, want, onward.Get("trace-id"))
		}
	})
	got.Traceparent = rc.Traceparent
	if diff := cmp.Diff(
		rc, got, cmp.AllowUnexported(contextkit.TenantID{}), cmpopts.IgnoreTypes(contextkit.SpanID{}),
		cmpopts.IgnoreUnexported(contextkit.RequestContext{}),
	); diff != "" {
		t.Errorf("context changed on the way (-sent +seen):\n%s", diff)
	}
	t.Run("either name of the correlation id is read", func(t *testing.T) {
		old, err := contextkit.ExtractNATS(nats.Header{"correlation-id": {"old"}})
		if err != nil || old.CorrelationID != "old" || !old.Platform {
			t.Fatalf("extracted %+v, %v", old, err)
		}
	})
	t.Run("a bad tenant is refused", func(t *testing.T) {
		if _, err := contextkit.ExtractNATS(
			nats.Header{"tenant-id": {"a.b"}},
		); !errors.Is(err, contextkit.ErrInvalidTenant) {
			t.Fatalf("err = %v", err)
		}
	})
}
