package node

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// Of all methods, nodes accept those of their kind, from gateways; and from control what it calls
// itself.
func TestCallers_MethodsAndRoles(t *testing.T) {
	t.Parallel()
	kinds := contextkit.PlatformKinds()
	methods := 0
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				desc := service.Methods().Get(j)
				procedure := "/" + string(service.FullName()) + "/" + string(desc.Name())
				policy, _ := proto.GetExtension(desc.Options(), policyv1.E_Policy).(*policyv1.Policy)
				if policy.GetUpstream() != "" {
					methods++
				}
				for _, kind := range kinds {
					for _, role := range append(kinds, "", "setup") {
						want := policy.GetUpstream() == kind.String() && role == contextkit.KindGateway ||
							kind == contextkit.KindProjection && role == contextkit.KindControl &&
								procedure == "/projection.gateway.v1.QueryService/ListViews"
						if service.FullName() == "grpc.health.v1.Health" ||
							role == contextkit.KindGateway && service.Name() == "ServerReflection" {
							continue
						}
						if got := slices.Contains(callersOf(kind, procedure), role); got != want {
							t.Errorf("%s may call %s of %s: %v, want %v", role, procedure, kind, got, want)
						}
					}
				}
			}
		}
		return true
	})
	if methods < 30 {
		t.Errorf("only %d methods have a policy", methods)
	}
	for _, procedure := range []string{
		"/aggregate.gateway.v1.CommandService/Submit", "/control.v1.TenantService/SuspendTenant", "/none.v1.None/None",
		"/", "",
	} {
		if slices.Contains(callersOf(contextkit.KindAggregate, procedure), contextkit.KindProjection) ||
			slices.Contains(callersOf(contextkit.KindControl, procedure), contextkit.KindProjection) {
			t.Errorf("projection may call %s", procedure)
		}
	}
}

// The role of the certificate decides at both ports. Calls that have not passed a gateway are reported,
// and calls through one are not.
func TestCallers_CertificateOfAnotherRoleIsRejected(t *testing.T) {
	t.Parallel()
	authority := tlstest.NewAuthority(t)
	dir := t.TempDir()
	material := func(name string, roles ...string) *tlsfiles.Material {
		opened, err := tlsfiles.Open(authority.IssueFor(t, dir, name, roles...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	reported := make(chan rpc.Direct, 64)
	config := rpc.Config{
		Name:    contextkit.KindControl.String(),
		Addr:    "127.0.0.1:0",
		GRPC:    "127.0.0.1:0",
		TLS:     material("control", "control"),
		Callers: callerSettings{Gateway: []string{"edge.example.com"}}.callers(contextkit.KindControl),
		Direct:  func(_ contextkit.RequestContext, call rpc.Direct) { reported <- call },
	}
	server := rpc.NewServer(config, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	controlv1connect.RegisterTenantServiceHandler(server.RPC, controlv1connect.UnimplementedTenantServiceHandler{})
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		roles []string
		want  connect.Code
	}{
		"gateway":           {[]string{"gateway"}, connect.CodeUnimplemented},
		"edge.example.com":  {nil, connect.CodeUnimplemented}, // by its configured name
		"both":              {[]string{"projection", "gateway"}, connect.CodeUnimplemented},
		"projection":        {[]string{"projection"}, connect.CodePermissionDenied},
		"another-control":   {[]string{"control"}, connect.CodePermissionDenied},
		"unnamed":           {nil, connect.CodePermissionDenied},
		"nearly":            {[]string{"gateway/x"}, connect.CodePermissionDenied},
		"two-in-one":        {[]string{"projection/role/gateway"}, connect.CodePermissionDenied},
		"escaped":           {[]string{"%67ateway"}, connect.CodePermissionDenied},
		"other.example.com": {[]string{"x"}, connect.CodePermissionDenied},
	} {
		own := material(name, c.roles...)
		for _, addr := range []string{server.Addr(), server.GRPCAddr()} {
			transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: own.Client("control")}
			tenants := controlv1connect.NewTenantServiceClient(
				contextkit.NewClient(
					connecthttp.NewTransport(&http.Client{Transport: transport}, "https://"+addr,
						connecthttp.WithGRPC()),
				),
			)
			suspend := func(ctx context.Context) {
				_, err := tenants.SuspendTenant(contextkit.PlatformContext(ctx),
					&controlv1.SuspendTenantRequest{TenantId: "acme", Reason: "x"})
				if connect.CodeOf(err) != c.want {
					t.Errorf("%s at %s: %v, want %v", name, addr, err, c.want)
				}
			}
			suspend(t.Context())
			select {
			case call := <-reported:
				principal := name
				if len(c.roles) > 0 {
					principal = (&url.URL{
						Scheme: "spiffe",
						Host:   "headgate.test",
						Path:   "/role/" + c.roles[0],
					}).String()
				}
				if call.Procedure != "/control.v1.TenantService/SuspendTenant" || call.Principal != principal ||
					call.ReadOnly ||
					connect.CodeOf(call.Err) != c.want ||
					(call.Refusal != nil) != (c.want == connect.CodePermissionDenied) || rpc.HostOf(
					call.Client,
				) != "127.0.0.1" {
					t.Errorf("%s at %s is reported as %+v", name, addr, call)
				}
			case <-t.Context().Done():
				t.Fatalf("%s at %s is not reported", name, addr)
			}
			// With the headers of a gateway, only the certificates of others are reported.
			asGateway, info := connect.NewClientContext(t.Context())
			info.RequestHeader().Set(contextkit.HeaderPrincipal, "ada")
			suspend(asGateway)
			if c.want == connect.CodePermissionDenied {
				<-reported
			}
			if len(reported) > 0 {
				t.Errorf("%s at %s with a gateway's headers is reported as %+v", name, addr, <-reported)
			}
			transport.CloseIdleConnections()
		}
	}
}
