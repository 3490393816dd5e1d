package gateway

import (
	"context"
	"time"
)

// quota enforces the tenant's rate limit of calls. Admission limits its calls in flight.
func (g *Gateway) quota(ctx context.Context, call *Call) (context.Context, error) {
	call.admittedAfter = time.Since(call.end.Started)
	if call.Tenant.IsZero() || call.scope != scopeTenant {
		return ctx, nil // an operator's call
	}
	if wait, err := call.use.Budget().Spend(call.admittedAt()); err != nil {
		return ctx, g.refuseOverLimit(call, err, wait)
	}
	return ctx, nil
}
