package policy_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// set returns a serialized descriptor set of the file with a policy; change may modify it.
func set(t *testing.T, change func(*descriptorpb.FileDescriptorProto)) []byte {
	t.Helper()
	files := file(t, &policyv1.Policy{
		Right:       "thing.make",
		TenantScope: policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:    "thing",
		Timeout:     durationpb.New(time.Second),
		TenantField: "tenant_id",
	})
	var out descriptorpb.FileDescriptorSet
	files.RangeFiles(func(fd protoreflect.FileDescriptor) bool {
		f := protodesc.ToFileDescriptorProto(fd)
		if change != nil {
			change(f)
		}
		out.File = append(out.File, f)
		return true
	})
	data, err := proto.Marshal(&out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestCatalog_ServesDescriptorSet(t *testing.T) {
	catalog, err := policy.NewCatalog(set(t, nil), set(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	table, err := policy.Build(catalog, transcode.NewCompiler(catalog))
	if err != nil {
		t.Fatal(err)
	}
	var served []string
	for _, m := range table.Methods() {
		served = append(served, m.Spec.Procedure)
		if m.Spec.Procedure != "/test.Things/Make" {
			continue
		}
		if m.Right != "thing.make" || m.Upstream != "thing" || m.TenantField != 1 {
			t.Errorf("Make is %+v", m)
		}
		wire, err := m.Input.AppendWire(nil, []byte(`{"tenantId":"acme","count":3}`))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := m.Input.AppendJSON(nil, wire); err != nil || string(text) != `{"tenantId":"acme","count":3}` {
			t.Errorf("%s, %v", text, err)
		}
	}
	if all := strings.Join(served, " "); !strings.Contains(all, "/test.Things/Make") ||
		strings.Contains(all, "/test.Things/Break") || !strings.Contains(all, "QueryService/Query") {
		t.Errorf("served: %s", all)
	}
	if _, err := catalog.FindMessageByName("test.Thing"); err != nil {
		t.Errorf("the type cannot be found for Any: %v", err)
	}
}

func TestCheckServed_SetNeedsMethodWithPolicy(t *testing.T) {
	bare := set(t, func(f *descriptorpb.FileDescriptorProto) {
		for _, service := range f.GetService() {
			for _, method := range service.GetMethod() {
				method.Options = nil
			}
		}
	})
	types := set(t, func(f *descriptorpb.FileDescriptorProto) { f.Service = nil })
	for name, tc := range map[string]struct {
		set  []byte
		want error
	}{
		"one method has a policy": {set(t, nil), nil}, "no method has a policy": {bare, policy.ErrNoPolicy},
		"types alone": {types, nil},
	} {
		if err := policy.CheckServed(tc.set); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	if policy.CheckServed([]byte("hello")) == nil {
		t.Error("malformed descriptor set is valid, want an error")
	}
}

func TestCatalog_InvalidSetIsRejected(t *testing.T) {
	other := set(t,
		func(f *descriptorpb.FileDescriptorProto) { f.MessageType[0].Field[0].JsonName = proto.String("other") })
	broken := set(t, func(f *descriptorpb.FileDescriptorProto) { f.Dependency = append(f.Dependency, "missing.proto") })
	for name, tc := range map[string]struct {
		sets [][]byte
		want string
	}{
		"no set":          {[][]byte{[]byte("hello")}, "not a FileDescriptorSet"},
		"two that differ": {[][]byte{set(t, nil), other}, "test/thing.proto is in two sets and differs"},
		"missing import":  {[][]byte{broken}, "missing.proto"},
	} {
		if _, err := policy.NewCatalog(tc.sets...); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
