package node

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// An operator's right may be narrowed to a tenant ("fleet.admin:acme"), so the resource of an operation on a tenant
// is that tenant. Text that the caller is free to choose, such as a reason, must not be the resource: a narrowed
// right would cover the call if the caller chooses the right's resource as its text.
func TestPolicies_OperationsHaveTenantResourceAndReason(t *testing.T) {
	tenants, reasons := 0, 0
	check := func(m protoreflect.MethodDescriptor) {
		p, _ := proto.GetExtension(m.Options(), policyv1.E_Policy).(*policyv1.Policy)
		options, _ := m.Options().(*descriptorpb.MethodOptions)
		if p == nil || !p.GetAudit() || options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			return
		}
		fields := m.Input().Fields()
		if fields.ByName("reason") != nil {
			reasons++
			if p.GetReasonField() != "reason" {
				t.Errorf("%s: the audit record has no reason: reason_field is %q", m.FullName(), p.GetReasonField())
			}
		}
		if p.GetResourceField() != "" && p.GetResourceField() == p.GetReasonField() ||
			p.GetResourceField() == "reason" {
			t.Errorf("%s: the resource is the caller's reason", m.FullName())
		}
		if p.GetTenantScope() == policyv1.TenantScope_TENANT_SCOPE_PLATFORM && fields.ByName("tenant_id") != nil {
			tenants++
			if p.GetResourceField() != "tenant_id" {
				t.Errorf("%s: the resource is %q, not the tenant", m.FullName(), p.GetResourceField())
			}
		}
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				check(methods.Get(j))
			}
		}
		return true
	})
	if tenants < 9 || reasons < 9 {
		t.Errorf("%d operations on tenants and %d with a reason were found", tenants, reasons)
	}
}
