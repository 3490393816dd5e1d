package policy_test

import (
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
)

func TestReflect_ReturnsNodesDescriptors(t *testing.T) {
	known, err := policy.NewCatalog(set(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	node := connect.NewServer(contextkit.ServerInterceptor)
	grpcreflect.Register(
		node, grpcreflect.WithNamer(grpcreflect.NamerFunc(func() []string { return []string{"test.Things"} })),
		grpcreflect.WithDescriptorResolver(known),
	)
	described, err := policy.Reflect(contextkit.PlatformContext(t.Context()),
		contextkit.NewClient(connectinprocess.New(node)))
	if err != nil {
		t.Fatal(err)
	}
	var files descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(described, &files); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files.GetFile() {
		for _, imported := range file.GetDependency() {
			if !seen[imported] {
				t.Errorf("%s precedes its import %s", file.GetName(), imported)
			}
		}
		seen[file.GetName()] = true
	}
	if !seen["test/thing.proto"] {
		t.Fatalf("the node describes %v", seen)
	}
	if _, err := policy.NewCatalog(described); err != nil {
		t.Errorf("the described services cannot be served: %v", err)
	}
	if _, err := policy.Reflect(t.Context(), contextkit.NewClient(connectinprocess.New(node))); err == nil {
		t.Error("the reflection call lacks the contract's headers")
	}
}
