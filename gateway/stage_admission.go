package gateway

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"
)

// payer is the kind of caller whose budget a call is charged to.
type payer uint8

const (
	payerTenant payer = iota
	// payerPrincipal pays while the call's tenant is not known, for calls of the platform, and
	// for operators' calls for a tenant, which must be admitted when the tenant's budget is
	// used up.
	payerPrincipal
	// payerAddress pays for calls without a credential.
	payerAddress
)

// String returns the payer's name in metrics and error details.
func (p payer) String() string { return [...]string{"tenant", "principal", "address"}[p] }

// subject returns the beginning of a sentence about the payer.
func (p payer) subject() string {
	return [...]string{"the tenant has ", "the caller has ", "the client's address has "}[p]
}

// addressesShare is the share of the shared capacity that calls without a credential may use
// together, from any number of addresses.
const addressesShare = 0.5

// budgets are the budgets of all callers.
type budgets struct {
	shared     *limit.Shared
	tenants    *limit.Tenants
	principals *limit.Budgets[string]
	addresses  *limit.Budgets[netip.Addr]
}

func newBudgets(config *Config) (*budgets, error) {
	shared, err := limit.NewShared(limit.Capacity{
		Calls: config.MaxConcurrent, Streams: config.MaxStreams, Bytes: config.MaxBytes, Held: config.MaxConcurrent / heldShare,
	})
	if err != nil {
		return nil, err
	}
	b := &budgets{shared: shared}
	rate := config.Limits.WithDefaults().Rate
	var errs [3]error
	b.tenants, errs[0] = limit.NewTenants(shared, config.Limits, config.TenantShare)
	b.principals, errs[1] = limit.NewCallers[string](shared, config.CallerShare, 1, rate)
	b.addresses, errs[2] = limit.NewCallers[netip.Addr](shared, config.CallerShare, max(config.CallerShare, addressesShare), rate)
	return b, errors.Join(errs[:]...)
}

// charge is the capacity that a call holds, and its payer. It is the [rpc.Meter] of the
// call's requests.
type charge struct {
	use     limit.Use
	payer   payer
	arrived int64 // bytes of the message that is being received
}

// Reserve implements [rpc.Meter].
func (c *charge) Reserve(n int64) error {
	if err := c.use.Reserve(n); err != nil {
		return exceeded(c.payer, err, 0)
	}
	c.arrived += n
	return nil
}

// Hold implements [rpc.Meter].
func (c *charge) Hold(n int64) error {
	if err := c.use.Reserve(n); err != nil {
		return exceeded(c.payer, err, 0)
	}
	return nil
}

// settle charges the memory of a message beyond the bytes that have arrived: the message may
// have been compressed, or in JSON.
func (c *charge) settle(size int) error {
	if missing := int64(size) - c.arrived; missing > 0 {
		return c.Reserve(missing)
	}
	return nil
}

// sent releases the bytes of a message that has been forwarded.
func (c *charge) sent() {
	c.use.Release(c.arrived)
	c.arrived = 0
}

// standing refuses, before anything of the request is read, the calls of suspended tenants
// and those for tenants that are not the caller's, as far as credential, header and path
// name the tenant.
func (g *Gateway) standing(ctx context.Context, call *Call) (context.Context, error) {
	if !call.Method.Tenant {
		// A call of the platform affects every tenant: a right for some tenants does not
		// suffice.
		if !call.Method.Anonymous && !call.Principal.AnyTenant {
			return ctx, call.denyTenant("the call concerns the platform, and the credential is not for all tenants")
		}
		// A header that names a tenant is ignored, and not forwarded.
		return contextkit.PlatformContext(ctx), nil
	}
	tenant, err := call.named(ctx)
	if err != nil || tenant.IsZero() {
		return ctx, err
	}
	return g.stand(ctx, call, tenant)
}

// pathNamer is a stream whose request has fields in its path.
type pathNamer interface {
	PathField(number protowire.Number) string
}

// named returns the tenant that header, path or credential name, zero if only the request
// can.
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

// onlyTenant returns the tenant of a credential that is for exactly one, else zero.
func onlyTenant(principal *auth.Principal) contextkit.TenantID {
	if principal.AnyTenant || len(principal.Tenants) != 1 {
		return contextkit.TenantID{}
	}
	return principal.Tenants[0]
}

// stand makes the call the tenant's, if the caller acts for it and it is not suspended.
func (g *Gateway) stand(ctx context.Context, call *Call, tenant contextkit.TenantID) (context.Context, error) {
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

// admission takes a place in the caller's budget and in the shared capacity, for as long as
// the call lasts, and makes the transport charge requests as they arrive.
func (g *Gateway) admission(ctx context.Context, call *Call) (context.Context, error) {
	stream, priority := call.Method.Spec.StreamType&connect.StreamTypeServer != 0, call.Method.Priority
	var err error
	switch call.payer = call.pays(); call.payer {
	case payerTenant:
		err = g.tenants.Enter(call.Tenant, &call.use, stream, priority)
	case payerPrincipal:
		err = g.principals.Enter(call.Principal.Subject, &call.use, stream, priority)
	case payerAddress:
		err = g.addresses.Enter(rpc.Client(call.Info), &call.use, stream, priority)
	}
	if err != nil {
		return ctx, g.exceed(call, err, 0)
	}
	rpc.Receiving(ctx, &call.charge)
	return ctx, nil
}

// pays returns the payer of the call, as far as its tenant is known.
func (c *Call) pays() payer {
	switch {
	case c.Principal == nil || c.Principal == anonymous:
		return payerAddress
	case c.Tenant.IsZero(), c.Method.Priority == limit.High && c.Principal.AnyTenant:
		return payerPrincipal
	}
	return payerTenant
}

// recharge charges the call to its tenant, if only the request has named it.
func (g *Gateway) recharge(call *Call) error {
	if call.payer == payerTenant || call.pays() != payerTenant {
		return nil
	}
	call.payer = payerTenant
	if err := g.tenants.Move(call.Tenant, &call.use); err != nil {
		return g.exceed(call, err, 0)
	}
	return nil
}

// exceed refuses a call beyond its caller's budget or the shared capacity.
func (g *Gateway) exceed(call *Call, err error, wait time.Duration) error {
	call.limited = !errors.Is(err, limit.ErrFull) // which the caller has not caused
	g.counters.limited.WithLabelValues(limitReason(err), call.payer.String()).Inc()
	if call.limited && call.payer == payerTenant {
		g.counters.limitedTenants.Add(call.Tenant, time.Now())
	}
	return exceeded(call.payer, err, wait)
}

// Reasons of refusals by a limit, in metrics and error details.
const (
	reasonRate        = "RATE_LIMIT"
	reasonConcurrency = "CONCURRENCY_LIMIT"
	reasonStreams     = "STREAM_LIMIT"
	reasonBytes       = "BYTES_LIMIT"
	reasonFull        = "GATEWAY_FULL"
)

// limitReason returns the reason of a [limit] error.
func limitReason(err error) string {
	switch {
	case errors.Is(err, limit.ErrRate):
		return reasonRate
	case errors.Is(err, limit.ErrStreams):
		return reasonStreams
	case errors.Is(err, limit.ErrBytes):
		return reasonBytes
	case errors.Is(err, limit.ErrFull):
		return reasonFull
	}
	return reasonConcurrency
}

// exceeded returns the error of a call that a limit refuses; wait is the time until there is
// probably room, 0 if unknown.
func exceeded(payer payer, err error, wait time.Duration) error {
	if errors.Is(err, limit.ErrLeft) {
		return connect.NewError(connect.CodeCanceled, err.Error())
	}
	reason, message := limitReason(err), err.Error()
	switch reason {
	case reasonFull:
	case reasonRate:
		message = "the tenant's " + message
	default:
		message = payer.subject() + message
	}
	return rpc.WithDetails(connect.NewError(connect.CodeResourceExhausted, message+": try again in a moment"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(max(wait, minRetryDelay))}, rpc.Reason(reason, "scope", payer.String()))
}

// minRetryDelay is the least that a client is asked to wait.
const minRetryDelay = 50 * time.Millisecond

// refused accounts for a call that a stage has refused: a denial counts against its caller's
// rate, and the answers to a caller whose refusals come fast are delayed. During the delay no
// shared capacity is held.
func (g *Gateway) refused(ctx context.Context, call *Call) {
	if call.denied == ruleNone && !call.limited {
		return
	}
	budget := g.budgetOf(call)
	if call.denied != ruleNone {
		budget.Denied(time.Now())
	}
	call.use.LeaveShared()
	if budget.HoldBack(ctx) {
		g.counters.held.Inc()
	}
}

// budgetOf returns the budget that a refusal is charged to: never that of a tenant that the
// caller does not act for.
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
