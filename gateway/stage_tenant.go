package gateway

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/frame"
)

// tenant checks that the request agrees with credential, x-tenant-id header and path on the tenant,
// and fills in an absent tenant field. A call whose tenant only the request names is checked and
// charged here.
func (g *Gateway) tenant(ctx context.Context, call *Call) (context.Context, error) {
	var named string
	if call.Method.TenantField != 0 && call.First != nil {
		var err error
		if named, err = call.First.Text(call.Method.TenantField, call.Tenant.String()); err != nil {
			if errors.Is(err, frame.ErrContradiction) {
				return ctx, call.denyTenant("the request names two tenants")
			}
			return ctx, call.fieldError(call.Method.TenantField, err)
		}
	}
	switch {
	case !call.Method.Tenant:
		return ctx, nil
	case named == "" && call.Tenant.IsZero():
		return ctx, connect.Errorf(connect.CodeInvalidArgument,
			"%s is missing: the credential is not for exactly one tenant", contextkit.HeaderTenantID)
	case named == "":
		if call.Method.TenantField != 0 && call.First != nil {
			call.First.AppendText(call.Method.TenantField, call.Tenant.String())
		}
		return ctx, nil
	case named == call.Tenant.String():
		return ctx, nil
	}
	tenant, err := contextkit.ParseTenantID(named)
	switch {
	case err != nil:
		return ctx, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	case !call.Tenant.IsZero() && call.Info.RequestHeader().Get(contextkit.HeaderTenantID) != "":
		return ctx, call.denyTenant("the request and its header name different tenants")
	case !call.Tenant.IsZero():
		return ctx, call.denyTenant("the credential is not for this tenant")
	}
	if ctx, err = g.enterTenant(ctx, call, tenant); err != nil {
		return ctx, err
	}
	return ctx, g.recharge(call)
}

func (c *Call) denyTenant(message string) error {
	return c.deny(ReasonTenantMismatch, connect.NewError(connect.CodePermissionDenied, message))
}
