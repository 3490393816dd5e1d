package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	_ "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	_ "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	_ "github.com/headgate/headgate/gen/projection/gateway/v1"
	_ "github.com/headgate/headgate/gen/runner/admin/v1"
)

func TestTable_HoldsMethodsOfDescriptors(t *testing.T) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(slices.Values(table.Names()))
	if want := []string{
		"aggregate.gateway.v1.CommandService", "aggregate.gateway.v1.EventService",
		"projection.gateway.v1.QueryService", "runner.admin.v1.RunnerAdmin",
	}; !slices.Equal(names, want) {
		t.Errorf("services %v, want %v: the health service has no policy and is not served", names, want)
	}
	for _, m := range table.Methods() {
		if m.Spec.Procedure != "/projection.gateway.v1.QueryService/Query" {
			continue
		}
		if m.Right != "query.read" || !m.Tenant || m.Upstream != contextkit.KindProjection ||
			m.Timeout != 5*time.Second ||
			m.TenantField != 1 || fmt.Sprint(m.ResourcePath) != "[{2 false}]" ||
			m.KeyField != 0 || m.Spec.IdempotencyLevel != connect.IdempotencyNoSideEffects || len(
			m.Rules,
		) != 2 || !m.Retriable(false) {
			t.Errorf("Query is %+v", m)
		}
		return
	}
	t.Error("Query is not in the table")
}

// file returns a file with one service of one method with the policy.
func file(t *testing.T, p *policyv1.Policy) *protoregistry.Files {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	if p != nil {
		proto.SetExtension(options, policyv1.E_Policy, p)
	}
	fd, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("test/thing.proto"),
		Package: proto.String("test"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Thing"),
			Field: []*descriptorpb.FieldDescriptorProto{
				{
					Name:   proto.String("tenant_id"),
					Number: proto.Int32(1),
					Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
					Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
				{
					Name:   proto.String("count"),
					Number: proto.Int32(2),
					Type:   descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum(),
					Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				},
			},
		}},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("Things"),
			Method: []*descriptorpb.MethodDescriptorProto{
				{
					Name:       proto.String("Make"),
					InputType:  proto.String(".test.Thing"),
					OutputType: proto.String(".test.Thing"),
					Options:    options,
				},
				{
					Name:       proto.String("Break"),
					InputType:  proto.String(".test.Thing"),
					OutputType: proto.String(".test.Thing"),
				},
			},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(fd); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTable_IncompletePolicyIsAnError(t *testing.T) {
	complete := func(change func(*policyv1.Policy)) *policyv1.Policy {
		p := &policyv1.Policy{
			Right:       "thing.make",
			TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
			Upstream:    "aggregate",
			Timeout:     durationpb.New(time.Second),
			TenantField: "tenant_id",
		}
		change(p)
		return p
	}
	cases := []struct {
		name   string
		policy *policyv1.Policy
		want   string
	}{
		{"no right", complete(func(p *policyv1.Policy) { p.Right = "" }), "lacks right"},
		{"no scope", complete(func(p *policyv1.Policy) { p.TenantScope = 0 }), "lacks tenant_scope"},
		{"no upstream", complete(func(p *policyv1.Policy) { p.Upstream = "" }), "lacks upstream"},
		{"invalid upstream", complete(func(p *policyv1.Policy) { p.Upstream = "a.b" }), "policy's upstream: "},
		{"no timeout", complete(func(p *policyv1.Policy) { p.Timeout = nil }), "lacks timeout"},
		{"unknown field", complete(func(p *policyv1.Policy) { p.ResourceField = "view" }), `names the field "view"`},
		{
			"part without a resource", complete(func(p *policyv1.Policy) { p.ResourcePartField = "tenant_id" }),
			"without resource_field",
		},
		{
			"part that is no string",
			complete(func(p *policyv1.Policy) { p.ResourceField, p.ResourcePartField = "tenant_id", "count" }),
			`names the field "count"`,
		},
		{
			"part that does not exist",
			complete(func(p *policyv1.Policy) { p.ResourceField, p.ResourcePartField = "tenant_id", "command" }),
			`names the field "command"`,
		},
		{
			"field that is no string", complete(func(p *policyv1.Policy) { p.ResourceField = "count" }),
			`names the field "count"`,
		},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := policy.Build(file(t, tc.policy), transcode.NewCompiler(nil)); err == nil ||
				!strings.Contains(err.Error(), tc.want) {
				t.Fatalf("err = %v, want %q", err, tc.want)
			}
		})
	}
	t.Run("complete", func(t *testing.T) {
		table, err := policy.Build(file(t, complete(func(*policyv1.Policy) {})), transcode.NewCompiler(nil))
		if err != nil || len(table.Methods()) != 1 || table.Methods()[0].Spec.Procedure != "/test.Things/Make" ||
			table.Methods()[0].Retriable(false) {
			t.Fatalf("%v, %v: want Make alone, which is not repeated", table, err)
		}
	})
	t.Run("none", func(t *testing.T) {
		table, err := policy.Build(file(t, nil), transcode.NewCompiler(nil))
		if err != nil || len(table.Methods()) != 0 || len(table.Names()) != 0 {
			t.Fatalf("got %v, %v; want nil", table, err)
		}
	})
}
