package gateway

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
)

// standing rejects calls for suspended tenants and for tenants that the caller does not act for, if
// credential, header or path name the tenant. It reads nothing of the request's body.
func (g *Gateway) standing(ctx context.Context, call *Call) (context.Context, error) {
	if !call.Method.Tenant {
		// A call of the platform affects every tenant: a right for some tenants is not sufficient.
		if !call.Method.Anonymous && !call.Principal.AnyTenant {
			return ctx, call.denyTenant("the call concerns the platform, and the credential is not for all tenants")
		}
		// A header that names a tenant is ignored and not forwarded.
		return contextkit.PlatformContext(ctx), nil
	}
	tenant, err := call.named(ctx)
	if err != nil || tenant.IsZero() {
		return ctx, err
	}
	return g.enterTenant(ctx, call, tenant)
}

// pathNamer is a stream whose request has fields in its path.
type pathNamer interface {
	PathField(number protowire.Number) string
}

// named returns the tenant that header, path or credential name; zero if only the request body may
// name it.
func (c *Call) named(ctx context.Context) (contextkit.TenantID, error) {
	tenant := contextkit.In(ctx).TenantID
	if path, ok := c.Stream.(pathNamer); ok && c.Method.TenantField != 0 {
		if text := path.PathField(c.Method.TenantField); text != "" {
			named, err := contextkit.ParseTenantID(text)
			if err != nil {
				return tenant, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
			}
			if !tenant.IsZero() && tenant != named {
				return tenant, c.denyTenant("the request and its header name different tenants")
			}
			tenant = named
		}
	}
	if tenant.IsZero() {
		tenant = onlyTenant(c.Principal)
	}
	return tenant, nil
}

// onlyTenant returns the tenant of a credential that is for exactly one tenant, else zero.
func onlyTenant(principal *auth.Principal) contextkit.TenantID {
	if principal.AnyTenant || len(principal.Tenants) != 1 {
		return contextkit.TenantID{}
	}
	return principal.Tenants[0]
}

// enterTenant sets the call's tenant, if the caller acts for it and it is not suspended.
func (g *Gateway) enterTenant(ctx context.Context, call *Call, tenant contextkit.TenantID) (context.Context, error) {
	if !call.Principal.ActsFor(tenant) {
		return ctx, call.denyTenant("the credential is not for this tenant")
	}
	call.Tenant = tenant
	if in := contextkit.In(ctx); in.TenantID != tenant || in.Platform {
		rc := *in
		rc.TenantID, rc.Platform = tenant, false
		ctx = contextkit.NewContext(ctx, rc)
	}
	if reason := g.suspended(tenant, call.Principal); reason != "" {
		return ctx, call.denySuspended(reason)
	}
	return ctx, nil
}
