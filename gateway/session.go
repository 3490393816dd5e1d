package gateway

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/policy"
	gatewayv1 "github.com/headgate/headgate/gen/gateway/v1"
	"github.com/headgate/headgate/gen/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/excerpt"
)

// session implements SessionService: the caller's principal, and the policies of the methods.
type session struct {
	gatewayv1connect.UnimplementedSessionServiceHandler

	*Gateway
}

// callOf returns the call that [Gateway.local] has authenticated.
func callOf(ctx context.Context) *Call {
	call, _ := ctx.Value(localCall{}).(*Call)
	return call
}

// WhoAmI implements SessionService.
func (s session) WhoAmI(ctx context.Context, _ *gatewayv1.WhoAmIRequest) (*gatewayv1.WhoAmIResponse, error) {
	principal := callOf(ctx).Principal
	res := &gatewayv1.WhoAmIResponse{Subject: principal.Subject, Rights: principal.RightTexts()}
	for _, tenant := range principal.Tenants {
		res.Tenants = append(res.Tenants, tenant.String())
	}
	if principal.AnyTenant {
		res.Tenants = []string{"*"}
	}
	return res, nil
}

// ListMethods implements SessionService.
func (s session) ListMethods(context.Context, *gatewayv1.ListMethodsRequest) (*gatewayv1.ListMethodsResponse, error) {
	res := &gatewayv1.ListMethodsResponse{}
	for _, method := range s.table.Load().Methods() {
		out := &gatewayv1.MethodPolicy{
			Procedure:    method.Spec.Procedure,
			Right:        method.Right,
			TenantScoped: method.Tenant,
			Upstream:     method.Upstream.String(),
			TimeoutMs:    method.Timeout.Milliseconds(),
			Audit:        method.Audit,
			Streams:      method.Spec.StreamType != connect.StreamTypeUnary,
		}
		for _, rule := range method.Rules {
			verb, path := edge.Pattern(rule)
			out.Http = append(out.Http, verb+" "+path)
		}
		res.Methods = append(res.Methods, out)
	}
	return res, nil
}

// rightReadFleet is the right to read the state of nodes and of all tenants.
const rightReadFleet = "fleet.read"

// Decide implements SessionService. It returns a tenant's suspension and node to principals that
// act for the tenant or hold fleet.read, and the node of a call without a tenant to the latter
// only.
func (s session) Decide(ctx context.Context, req *gatewayv1.DecideRequest) (*gatewayv1.DecideResponse, error) {
	call := callOf(ctx)
	seesFleet := call.Principal.Allows(rightReadFleet, "")
	var tenant contextkit.TenantID
	if req.GetTenantId() != "" {
		var err error
		if tenant, err = contextkit.ParseTenantID(req.GetTenantId()); err != nil {
			return nil, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
		}
		if err := call.checkVisible("tenant_id", tenant); err != nil {
			return nil, err
		}
	}
	principal, err := auth.NewPrincipal("", req.GetTenants(), req.GetRights())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, excerpt.Text(err.Error(), excerpt.Message))
	}
	if tenant.IsZero() {
		tenant = onlyTenant(principal) // like a call that names no tenant
		if err := call.checkVisible("tenants", tenant); err != nil {
			return nil, err
		}
	}
	method, ok := s.table.Load().Method(req.GetProcedure())
	if !ok {
		return &gatewayv1.DecideResponse{Reason: "the method is not served: it has no policy, or does not exist"}, nil
	}
	res := &gatewayv1.DecideResponse{}
	res.Allowed, res.Reason = s.decide(method, principal, tenant, req.GetResource())
	if !method.Tenant {
		tenant = contextkit.TenantID{}
	}
	if tenant.IsZero() && !seesFleet {
		return res, nil
	}
	if node, ok := s.routes.Lookup(method.Upstream, tenant); ok {
		res.Node = node.ID
	}
	return res, nil
}

// checkVisible denies the call if it concerns a tenant that the caller does not act for, unless the
// caller holds fleet.read. field is the request's field that names the tenant.
func (c *Call) checkVisible(field string, tenant contextkit.TenantID) error {
	if tenant.IsZero() || c.Principal.Allows(rightReadFleet, "") || c.Principal.ActsFor(tenant) {
		return nil
	}
	c.Resource = tenant.String()
	return c.denyTenant(
		fmt.Sprintf("%s: the credential is not for this tenant, and lacks the right %q", field, rightReadFleet),
	)
}

// decide returns the decision of the pipeline's stages, in their order. For a method with rights
// that its node checks (node_rights), the reason lists the rights that the principal lacks for the
// resource: only the node knows whether the call needs them.
func (s session) decide(
	method *policy.Method, principal *auth.Principal, tenant contextkit.TenantID, resource string,
) (bool, string) {
	switch {
	case method.Anonymous:
		return true, "the method is open to all"
	case !principal.Holds(method.Right):
		return false, fmt.Sprintf("the right %q is missing", method.Right)
	case !method.Tenant && !principal.AnyTenant:
		return false, "the call concerns the platform, which needs a credential for all tenants"
	case method.Tenant && tenant.IsZero():
		return false, "the call is for one tenant, and none is named"
	case method.Tenant && !principal.ActsFor(tenant):
		return false, "the credential is not for tenant " + tenant.String()
	case method.Tenant && s.suspended(tenant, principal) != "":
		return false, "the tenant is suspended"
	case method.ResourcePath != nil && !allowsNamed(method, principal, method.Right, resource):
		return false, fmt.Sprintf("the right %q is narrowed to other resources", method.Right)
	}
	reason := "the right " + strings.TrimSuffix(method.Right+":"+resource, ":") +
		" is held, and the tenant is the caller's"
	for _, action := range method.NodeRights {
		if !allowsNamed(method, principal, action, resource) {
			reason += fmt.Sprintf("; but the right %q is missing for it: the node denies the call if it needs it",
				action)
		}
	}
	return true, reason
}

// allowsNamed reports whether the principal may perform the action on a resource that is named as
// in rights: RESOURCE, or RESOURCE.PART where the method's policy has parts.
func allowsNamed(method *policy.Method, principal *auth.Principal, action, resource string) bool {
	if method.PartField == 0 {
		return principal.Allows(action, resource)
	}
	name, part, _ := strings.Cut(resource, ".")
	return principal.AllowsPart(action, []byte(name), []byte(part))
}
