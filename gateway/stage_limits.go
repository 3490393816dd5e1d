package gateway

import (
	"context"
	"time"
)

// limits bounds the tenant's rate. Admission bounds its calls in flight.
func (g *Gateway) limits(ctx context.Context, call *Call) (context.Context, error) {
	now := time.Now()
	call.entered = now.Sub(call.end.Started)
	if call.Tenant.IsZero() || call.payer != payerTenant {
		return ctx, nil // operators' calls
	}
	if wait, err := call.use.Budget().Spend(now); err != nil {
		return ctx, g.exceed(call, err, wait)
	}
	return ctx, nil
}
