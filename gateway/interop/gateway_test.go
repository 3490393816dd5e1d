package interop_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
)

// startNode starts grpc-go's test server and returns its address.
func startNode(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := grpc.NewServer(orca.CallMetricsServerOption(nil))
	testgrpc.RegisterTestServiceServer(node, interop.NewTestServer())
	done := make(chan error, 1)
	go func() { done <- node.Serve(listener) }()
	t.Cleanup(func() {
		node.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// testServices is a descriptor set of the test services, in which every method of the
// TestService has a policy under which anyone may call it; the UnimplementedService has
// none. Its file has a different name, because the one without policies is linked in.
func testServices(t *testing.T) []byte {
	t.Helper()
	file := protodesc.ToFileDescriptorProto(testgrpc.File_grpc_testing_test_proto)
	file.Name = proto.String("interop/test.proto")
	for _, service := range file.GetService() {
		if service.GetName() != "TestService" {
			continue
		}
		for _, method := range service.GetMethod() {
			method.Options = &descriptorpb.MethodOptions{}
			proto.SetExtension(method.GetOptions(), policyv1.E_Policy, &policyv1.Policy{
				Anonymous:   true,
				TenantScope: policyv1.TenantScope_TENANT_SCOPE_PLATFORM,
				Upstream:    "interop",
				Timeout:     durationpb.New(30 * time.Second),
			})
		}
	}
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// startGateway starts a gateway in front of the node and returns the addresses of its ports.
func startGateway(t *testing.T, node string) (mainPort, grpcPort string) {
	t.Helper()
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := policy.NewCatalog(testServices(t))
	if err != nil {
		t.Fatal(err)
	}
	routes := route.NewTable()
	if err := routes.Replace(
		[]route.Node{{ID: "interop-1", Kind: "interop", Endpoint: node, Ready: true}}, nil,
	); err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{
		Listen: rpc.Config{Name: "gateway", Addr: "127.0.0.1:0", GRPC: "127.0.0.1:0"},
		Auth:   accepted,
	}, catalog, routes, natstest.Start(t), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Serve(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return g.Addr(), g.GRPCAddr()
}
