package gateway

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
)

// admission acquires a slot in the caller's budget and in the shared capacity until the call ends,
// and charges its requests as they arrive.
func (g *Gateway) admission(ctx context.Context, call *Call) (context.Context, error) {
	stream, priority := call.Method.Spec.StreamType&connect.StreamTypeServer != 0, call.Method.Priority
	var err error
	switch call.scope = call.budgetScope(); call.scope {
	case scopeTenant:
		err = g.tenants.Acquire(call.Tenant, &call.use, stream, priority)
	case scopePrincipal:
		err = g.principals.Acquire(call.Principal.Subject, &call.use, stream, priority)
	case scopeAddress:
		err = g.addresses.Acquire(rpc.Client(call.Info), &call.use, stream, priority)
	}
	if err != nil {
		return ctx, g.refuseOverLimit(call, err, 0)
	}
	rpc.Receiving(ctx, &call.charge)
	return ctx, nil
}

// budgetScope returns the scope that the call is charged to, as far as its tenant is known.
func (c *Call) budgetScope() budgetScope {
	switch {
	case c.Principal == nil || c.Principal == anonymous:
		return scopeAddress
	case c.Tenant.IsZero(), c.Method.Priority == limit.High && c.Principal.AnyTenant:
		return scopePrincipal
	}
	return scopeTenant
}

// recharge charges the call to its tenant, if only the request has named the tenant.
func (g *Gateway) recharge(call *Call) error {
	if call.scope == scopeTenant || call.budgetScope() != scopeTenant {
		return nil
	}
	call.scope = scopeTenant
	if err := g.tenants.Move(call.Tenant, &call.use); err != nil {
		return g.refuseOverLimit(call, err, 0)
	}
	return nil
}
