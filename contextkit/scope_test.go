package contextkit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/contextkit"
	_ "github.com/headgate/headgate/gen/control/v1"
	_ "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// A platform call made while a tenant's call is served is not the tenant's, and the other way round: both continue the
// trace and the correlation.
func TestScope_PlatformAndTenantExcludeEachOther(t *testing.T) {
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	of := func(rc contextkit.RequestContext, _ bool) contextkit.RequestContext { return rc }
	tenant := contextkit.TenantContext(t.Context(), acme)
	platform := contextkit.PlatformContext(tenant)
	back := contextkit.TenantContext(platform, acme)
	first, second, third := of(
		contextkit.FromContext(tenant),
	), of(contextkit.FromContext(platform)), of(contextkit.FromContext(back))
	if first.TenantID != acme || first.Platform {
		t.Errorf("the tenant's call: %+v", first)
	}
	if !second.TenantID.IsZero() || !second.Platform {
		t.Errorf("the platform's call is %q's", second.TenantID)
	}
	if third.TenantID != acme || third.Platform {
		t.Errorf("the tenant's second call: %+v", third)
	}
	for _, rc := range []contextkit.RequestContext{second, third} {
		if rc.CorrelationID != first.CorrelationID || rc.TraceID != first.TraceID || rc.CorrelationID == "" {
			t.Errorf("correlation %q and trace %v, want %q and %v", rc.CorrelationID, rc.TraceID, first.CorrelationID,
				first.TraceID)
		}
	}
	header := nats.Header{}
	if err := contextkit.InjectNATS(platform, header); err != nil || header.Get(contextkit.NATSTenantID) != "" {
		t.Errorf("a platform message has the tenant %q, %v", header.Get(contextkit.NATSTenantID), err)
	}
	if header.Get(contextkit.NATSCausationDepth) != "" {
		t.Errorf("depth of a message outside workflows: %q", header.Get(contextkit.NATSCausationDepth))
	}
}

// Identifiers have at most 128 characters, and what is not valid is replaced.
func TestValidID_BoundIs128Characters(t *testing.T) {
	for length, want := range map[int]bool{0: false, 1: true, 128: true, 129: false} {
		if got := contextkit.ValidID(strings.Repeat("x", length)); got != want {
			t.Errorf("%d characters: %v", length, got)
		}
	}
}

// The ids that a context lacks are made, each for itself: one that was received stays.
func TestComplete_MakesTheMissingIDsAlone(t *testing.T) {
	for _, rc := range []contextkit.RequestContext{
		{CorrelationID: "c"},
		{RequestID: "r"},
		{CorrelationID: "c", RequestID: "r"},
		{},
	} {
		made, _ := contextkit.FromContext(contextkit.PlatformContext(contextkit.NewContext(t.Context(), rc)))
		if rc.CorrelationID != "" && made.CorrelationID != rc.CorrelationID ||
			rc.RequestID != "" && made.RequestID != rc.RequestID {
			t.Errorf("%+v became %+v", rc, made)
		}
		if !contextkit.ValidID(made.CorrelationID) || !contextkit.ValidID(made.RequestID) ||
			made.CorrelationID == made.RequestID {
			t.Errorf("ids %q and %q", made.CorrelationID, made.RequestID)
		}
		header := nats.Header{}
		if err := contextkit.InjectNATS(contextkit.NewContext(t.Context(), made), header); err != nil {
			t.Fatal(err)
		}
		if _, err := contextkit.ParseTraceparent(header.Get(contextkit.NATSTraceparent)); err != nil {
			t.Errorf("%+v: traceparent %q: %v", rc, header.Get(contextkit.NATSTraceparent), err)
		}
	}
}

// A message without a usable correlation id has the one that its reader gives; a traceparent is read byte for byte.
func TestExtractNATSOf_CorrelationIsTheReadersIfAbsent(t *testing.T) {
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for header, want := range map[string]string{"": "given", "own": "own", "not an id": "given"} {
		h := nats.Header{contextkit.NATSTraceparent: {traceparent}}
		if header != "" {
			h[contextkit.NATSCorrelationID] = []string{header}
		}
		rc, err := contextkit.ExtractNATSOf(h, acme, "given")
		if err != nil || rc.CorrelationID != want || rc.TenantID != acme || rc.Traceparent.String() != traceparent {
			t.Errorf("%q: correlation %q, traceparent %v, %v", header, rc.CorrelationID, rc.Traceparent, err)
		}
	}
}

// Depths beyond the bound are written as the bound, and read as it.
func TestDepth_IsBounded(t *testing.T) {
	for depth, want := range map[int]string{
		-1: "", 0: "", 1: "1", contextkit.MaxDepth: "1000000", contextkit.MaxDepth + 1: "1000000",
	} {
		header := nats.Header{}
		rc, _ := contextkit.FromContext(contextkit.PlatformContext(t.Context()))
		rc.Depth = depth
		if err := contextkit.InjectNATS(contextkit.NewContext(t.Context(), rc), header); err != nil ||
			header.Get(contextkit.NATSCausationDepth) != want {
			t.Errorf("%d is written as %q, %v", depth, header.Get(contextkit.NATSCausationDepth), err)
		}
		if _, written := header[contextkit.NATSCausationDepth]; written != (want != "") {
			t.Errorf("%d: the header is written: %v", depth, written)
		}
	}
}

// A call by plain HTTP without a tenant is the platform's, and one with a tenant is not.
func TestHTTPMiddleware_CallWithoutTenantIsThePlatforms(t *testing.T) {
	for _, tenant := range []string{"", "acme"} {
		handler := contextkit.HTTPMiddleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if rc, ok := contextkit.FromContext(r.Context()); !ok || rc.Platform != (tenant == "") ||
				rc.TenantID.String() != tenant {
				t.Errorf("tenant %q: %+v", tenant, rc)
			}
		}))
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if tenant != "" {
			req.Header.Set(contextkit.HeaderTenantID, tenant)
		}
		handler.ServeHTTP(httptest.NewRecorder(), req)
	}
}

// A request with a malformed or duplicate tenant is answered with 400, and is not handled.
func TestHTTPMiddleware_InvalidTenantIsRejected(t *testing.T) {
	for _, tenants := range [][]string{{"Not a tenant"}, {"acme", "globex"}} {
		handler := contextkit.HTTPMiddleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Errorf("the request for %q is handled", tenants)
		}))
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		req.Header[http.CanonicalHeaderKey(contextkit.HeaderTenantID)] = tenants
		res := httptest.NewRecorder()
		handler.ServeHTTP(res, req)
		if res.Code != http.StatusBadRequest {
			t.Errorf("%q: status %d, want 400", tenants, res.Code)
		}
	}
}

// A method without a policy that asks for a tenant is called for the platform; one with such a policy is refused by a
// node, and admitted by a gateway, whose credential may name the tenant.
func TestServerInterceptor_TenantIsRequiredByThePolicyAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		interceptor func(connect.ServerFunc) connect.ServerFunc
		method      string
		code        connect.Code // 0: it is served
		platform    bool
	}{
		"node: tenant's": {
			contextkit.ServerInterceptor, "projection.gateway.v1.QueryService.Query", connect.CodeInvalidArgument,
			false,
		},
		"node: platform's":    {contextkit.ServerInterceptor, "control.v1.TenantService.ListTenants", 0, true},
		"node: no schema":     {contextkit.ServerInterceptor, "", 0, true},
		"gateway: tenant's":   {contextkit.EdgeInterceptor, "projection.gateway.v1.QueryService.Query", 0, false},
		"gateway: platform's": {contextkit.EdgeInterceptor, "control.v1.TenantService.ListTenants", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary}
			if tc.method != "" {
				desc, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(tc.method))
				if err != nil {
					t.Fatal(err)
				}
				spec.Schema = desc
			}
			served := false
			server := connect.NewServer(tc.interceptor)
			server.Register(
				connect.Method{
					Spec: spec,
					Handler: func(ctx context.Context, _ connect.Spec, _ connect.ServerStream) error {
						served = true
						if rc, ok := contextkit.FromContext(ctx); !ok || rc.Platform != tc.platform {
							t.Errorf("%+v, want the platform: %v", rc, tc.platform)
						}
						return nil
					},
				},
			)
			err := server.Call(t.Context(), spec.Procedure, nil, nil)
			if served != (tc.code == 0) || err != nil && connect.CodeOf(err) != tc.code {
				t.Errorf("served %v, %v; want code %v", served, err, tc.code)
			}
		})
	}
}
