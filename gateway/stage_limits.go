package gateway

import (
	"context"
	"time"
)

// limits bounds the tenant's rate. Admission bounds its calls in flight.
func (g *Gateway) limits(ctx context.Context, call *Call) (context.Context, error) {
	call.entered = time.Since(call.end.Started)
	if call.Tenant.IsZero() || call.payer != payerTenant {
		return ctx, nil // operators' calls
	}
	if wait, err := call.use.Budget().Spend(call.enteredAt()); err != nil {
		return ctx, g.exceed(call, err, wait)
	}
	return ctx, nil
}
