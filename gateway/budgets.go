package gateway

import (
	"errors"
	"net/netip"

	"github.com/headgate/headgate/gateway/limit"
)

// budgetScope is the kind of caller whose budget a call is charged to.
type budgetScope uint8

const (
	scopeTenant budgetScope = iota
	// scopePrincipal is charged while the call's tenant is unknown, for calls of the platform, and
	// for operators' calls for a tenant, which must be admitted when the tenant's budget is used
	// up.
	scopePrincipal
	// scopeAddress is charged for calls without a credential.
	scopeAddress
)

// String returns the scope's name in metrics and error details.
func (p budgetScope) String() string { return [...]string{"tenant", "principal", "address"}[p] }

// subject returns the beginning of a sentence about the caller.
func (p budgetScope) subject() string {
	return [...]string{"the tenant has ", "the caller has ", "the client's address has "}[p]
}

// addressesShare is the share of the shared capacity that calls without a credential may use in
// total, from all addresses.
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
		Calls:   config.MaxConcurrent,
		Streams: config.MaxStreams,
		Bytes:   config.MaxBytes,
		Delayed: config.MaxConcurrent / delayedShare,
	})
	if err != nil {
		return nil, err
	}
	b := &budgets{shared: shared}
	rate := config.Limits.WithDefaults().Rate
	var errs [3]error
	b.tenants, errs[0] = limit.NewTenants(shared, config.Limits, config.TenantShare)
	b.principals, errs[1] = limit.NewCallers[string](shared, config.CallerShare, 1, rate)
	b.addresses, errs[2] = limit.NewCallers[netip.Addr](shared, config.CallerShare,
		max(config.CallerShare, addressesShare), rate)
	return b, errors.Join(errs[:]...)
}

// charge is the capacity that a call holds, and the scope that it is charged to. It is the
// [rpc.Meter] of the call's requests.
type charge struct {
	use     limit.Use
	scope   budgetScope
	arrived int64 // bytes of the message that is being received
}

// Reserve implements [rpc.Meter].
func (c *charge) Reserve(n int64) error {
	if err := c.use.Reserve(n); err != nil {
		return limitError(c.scope, err, 0)
	}
	c.arrived += n
	return nil
}

// Hold implements [rpc.Meter].
func (c *charge) Hold(n int64) error {
	if err := c.use.Reserve(n); err != nil {
		return limitError(c.scope, err, 0)
	}
	return nil
}

// chargeMessage charges the memory of a received message beyond the bytes that have arrived: the
// message may have been compressed, or in JSON.
func (c *charge) chargeMessage(size int) error {
	if missing := int64(size) - c.arrived; missing > 0 {
		return c.Reserve(missing)
	}
	return nil
}

// releaseMessage releases the bytes of a message that has been forwarded.
func (c *charge) releaseMessage() {
	c.use.Release(c.arrived)
	c.arrived = 0
}
