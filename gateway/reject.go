package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
)

// refuseOverLimit counts and returns the error of a call beyond its caller's budget or the shared
// capacity.
func (g *Gateway) refuseOverLimit(call *Call, err error, wait time.Duration) error {
	call.limited = !errors.Is(err, limit.ErrFull) // the caller has not caused ErrFull
	g.counters.limited.WithLabelValues(limitReason(err).String(), call.scope.String()).Inc()
	if call.limited && call.scope == scopeTenant {
		g.counters.limitedTenants.Add(call.Tenant, time.Now())
	}
	return limitError(call.scope, err, wait)
}

// limitError returns the error of a call that a limit rejects. wait is the estimated time until the
// limit admits a call, 0 if unknown.
func limitError(payer budgetScope, err error, wait time.Duration) error {
	if errors.Is(err, limit.ErrReleased) {
		return connect.NewError(connect.CodeCanceled, err.Error())
	}
	reason, message := limitReason(err), err.Error()
	switch reason {
	case ReasonFull:
	case ReasonRate:
		message = "the tenant's " + message
	default:
		message = payer.subject() + message
	}
	return rpc.WithDetails(connect.NewError(connect.CodeResourceExhausted, message+": try again in a moment"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(max(wait, minRetryDelay))},
		rpc.Reason(reason.errorReason(), "scope", payer.String()))
}

// minRetryDelay is the shortest retry delay sent to a client.
const minRetryDelay = 50 * time.Millisecond

// accountRefusal accounts for a call that a stage has rejected: a denial counts against the
// caller's rate, and answers are delayed for a caller whose calls are rejected at a high rate. No
// shared capacity is held during the delay.
func (g *Gateway) accountRefusal(ctx context.Context, call *Call) {
	if call.denied == ReasonNone && !call.limited {
		return
	}
	budget := g.budgetOf(call)
	if call.denied != ReasonNone {
		budget.Denied(time.Now())
	}
	call.use.ReleaseShared()
	if budget.DelayRejection(ctx) {
		g.counters.delayed.Inc()
	}
}

// budgetOf returns the budget to which a rejected call is charged. Callers cannot charge a tenant for
// which they do not act.
func (g *Gateway) budgetOf(call *Call) *limit.Budget {
	if call.Principal == nil || call.Principal == anonymous {
		return g.addresses.Of(rpc.Client(call.Info))
	}
	tenant := call.Tenant
	if tenant.IsZero() {
		tenant = onlyTenant(call.Principal)
	}
	if tenant.IsZero() || call.Principal.AnyTenant {
		return g.principals.Of(call.Principal.Subject)
	}
	return g.tenants.Of(tenant)
}
