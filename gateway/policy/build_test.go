package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// methodOf compiles the only method of a file that has a policy. change may alter the method.
func methodOf(
	t *testing.T, p *policyv1.Policy, change func(*descriptorpb.MethodDescriptorProto),
) (*policy.Table, error) {
	t.Helper()
	var description *descriptorpb.FileDescriptorProto
	file(t, p).RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		description = protodesc.ToFileDescriptorProto(fd)
		return true
	})
	change(description.Service[0].Method[0])
	fd, err := protodesc.NewFile(description, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(fd); err != nil {
		t.Fatal(err)
	}
	return policy.Build(files, transcode.NewCompiler(nil))
}

func unchanged(*descriptorpb.MethodDescriptorProto) {}

func readOnly(m *descriptorpb.MethodDescriptorProto) {
	m.Options.IdempotencyLevel = descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()
}

// An anonymous method is served without any check, so that its policy must not look as if there was one; and a field
// that a policy names must be one that the gateway can read.
func TestBuild_ContradictoryPolicyIsRejected(t *testing.T) {
	const tenant, platform = policyv1.TenantScope_TENANT_SCOPE_TENANT, policyv1.TenantScope_TENANT_SCOPE_PLATFORM
	base := func(p *policyv1.Policy) *policyv1.Policy {
		p.Upstream, p.Timeout = "ticker", durationpb.New(time.Second)
		return p
	}
	streaming := func(m *descriptorpb.MethodDescriptorProto) { readOnly(m); m.ServerStreaming = proto.Bool(true) }
	for name, c := range map[string]struct {
		policy *policyv1.Policy
		change func(*descriptorpb.MethodDescriptorProto)
		want   string // "": it is served
	}{
		"anonymous": {
			base(&policyv1.Policy{Anonymous: true, TenantScope: platform}), unchanged, "",
		},
		"anonymous with a right": {
			base(&policyv1.Policy{Anonymous: true, TenantScope: platform, Right: "a.b"}), unchanged, "anonymous",
		},
		"anonymous for a tenant": {
			base(&policyv1.Policy{Anonymous: true, TenantScope: tenant}), unchanged, "anonymous",
		},
		"anonymous without a scope": {base(&policyv1.Policy{Anonymous: true}), unchanged, "anonymous"},
		"a tenant field that is no string": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, TenantField: "count"}), unchanged,
			"not a string field",
		},
		"a tenant field that does not exist": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, TenantField: "tenant"}), unchanged,
			"not a string field",
		},
		"a key field that is no string": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, IdempotencyKeyField: "count"}), unchanged,
			"not a string field",
		},
		"an etag of a read": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, Etag: &policyv1.ETag{}}), readOnly, "",
		},
		"an etag of a change": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, Etag: &policyv1.ETag{}}), unchanged,
			"side effects",
		},
		"an etag of a stream": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, Etag: &policyv1.ETag{}}), streaming,
			"side effects",
		},
		"an etag except a field that is absent": {
			base(&policyv1.Policy{Right: "a.b", TenantScope: tenant, Etag: &policyv1.ETag{ExceptField: "no"}}),
			readOnly, "etag names",
		},
	} {
		table, err := methodOf(t, c.policy, c.change)
		if c.want == "" && (err != nil || len(table.Methods()) != 1) ||
			c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Every option of a policy is in the method that the gateway serves.
func TestBuild_MethodFollowsItsPolicy(t *testing.T) {
	p := &policyv1.Policy{
		Right:       "a.b",
		TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:    "ticker",
		Timeout:     durationpb.New(time.Second),
		Audit:       true,
		TenantField: "tenant_id",
		NodeRights:  []string{"c.d"},
		Priority:    policyv1.Priority_PRIORITY_HIGH,
		Etag:        &policyv1.ETag{ExceptField: "count"},
	}
	table, err := methodOf(t, p, readOnly)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := table.Method("/test.Things/Make")
	if !ok || m != table.Methods()[0] {
		t.Fatal("the method is not found by its procedure")
	}
	if m.Priority != limit.High || !slices.Equal(m.NodeRights, []string{"c.d"}) || !m.Audit || m.ETag == nil ||
		m.ETag.Except != 2 || m.TenantField != 1 || !m.Retriable(false) {
		t.Errorf("%+v", m)
	}
	if !slices.Equal(table.Upstreams(), []contextkit.Kind{"ticker"}) ||
		!slices.Equal(table.TenantUpstreams(), []contextkit.Kind{"ticker"}) {
		t.Errorf("kinds of nodes %v, for tenants %v", table.Upstreams(), table.TenantUpstreams())
	}
	p.Priority, p.TenantScope, p.TenantField, p.Etag = policyv1.Priority_PRIORITY_LOW,
		policyv1.TenantScope_TENANT_SCOPE_PLATFORM, "", nil
	table, err = methodOf(t, p, func(m *descriptorpb.MethodDescriptorProto) {
		m.ServerStreaming, m.ClientStreaming = proto.Bool(true), proto.Bool(true)
	})
	if err != nil {
		t.Fatal(err)
	}
	m = table.Methods()[0]
	if m.Priority != limit.Low || m.Tenant || m.ETag != nil || m.Spec.StreamType != connect.StreamTypeBidi ||
		m.Retriable(false) || !m.Retriable(true) {
		t.Errorf("%+v", m)
	}
	if len(table.TenantUpstreams()) != 0 || !slices.Equal(table.Upstreams(), []contextkit.Kind{"ticker"}) {
		t.Errorf("kinds of nodes %v, for tenants %v", table.Upstreams(), table.TenantUpstreams())
	}
}

// One method with an invalid policy prevents serving all methods.
func TestBuild_ErrorIsReturned(t *testing.T) {
	if _, err := methodOf(t, &policyv1.Policy{Right: "a.b"}, unchanged); err == nil ||
		!strings.Contains(err.Error(), "test.Things.Make") {
		t.Errorf("%v, want an error that names the method", err)
	}
}

// Nor does a valid service after it in the file hide the error.
func TestBuild_ErrorBeforeAValidServiceIsReturned(t *testing.T) {
	var description *descriptorpb.FileDescriptorProto
	file(t, &policyv1.Policy{Right: "a.b"}).RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		description = protodesc.ToFileDescriptorProto(fd)
		return true
	})
	description.Service = append(description.Service, &descriptorpb.ServiceDescriptorProto{Name: proto.String("Empty")})
	fd, err := protodesc.NewFile(description, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	files := &protoregistry.Files{}
	if err := files.RegisterFile(fd); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Build(files, transcode.NewCompiler(nil)); err == nil ||
		!strings.Contains(err.Error(), "test.Things.Make") {
		t.Errorf("%v, want an error that names the method", err)
	}
}
