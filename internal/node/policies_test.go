package node

import (
	"os"
	"regexp"
	"slices"
	"strings"
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
	eachMethod(check)
	if tenants < 9 || reasons < 9 {
		t.Errorf("%d operations on tenants and %d with a reason were found", tenants, reasons)
	}
}

// eachMethod calls do for each method of every service.
func eachMethod(do func(protoreflect.MethodDescriptor)) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			methods := f.Services().Get(i).Methods()
			for j := range methods.Len() {
				do(methods.Get(j))
			}
		}
		return true
	})
}

// What can be granted is documented, and what is printed for operators to try everything has all of it.
func TestRights_OfPoliciesAreDocumentedAndPrinted(t *testing.T) {
	var rights []string
	eachMethod(func(m protoreflect.MethodDescriptor) {
		policy, _ := proto.GetExtension(m.Options(), policyv1.E_Policy).(*policyv1.Policy)
		if policy.GetRight() != "" {
			rights = append(rights, policy.GetRight())
		}
	})
	slices.Sort(rights)
	if rights = slices.Compact(rights); len(rights) < 9 {
		t.Fatalf("the policies have the rights %v", rights)
	}
	page, err := os.ReadFile("../../docs/secure.md")
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../../deploy/local/cluster.sh")
	if err != nil {
		t.Fatal(err)
	}
	operator := regexp.MustCompile(`(?s)\noperator=.*?\)\n`).FindString(string(script))
	for _, right := range rights {
		if !regexp.MustCompile("(?m)^\\| .*`" + regexp.QuoteMeta(right) + "`.* \\|").Match(page) {
			t.Errorf("docs/secure.md has no row for the right %s", right)
		}
		if !strings.Contains(operator, "--right "+right+" ") && !strings.Contains(operator, "--right "+right+")") {
			t.Errorf("the operator's token of deploy/local/cluster.sh lacks %s", right)
		}
		if !slices.Contains(operatorRights, right) {
			t.Errorf("the operator's token of dev lacks %s", right)
		}
	}
}
