package gateway

import (
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/limit"
)

// TenantState is what operators have decided about a tenant.
type TenantState struct {
	// Suspended says that its calls are refused; Reason why, its callers are told.
	Suspended bool
	Reason    string
	// Limits bound it; the zero value: as all others.
	Limits limit.Config
}

// rightOperate lets a principal through to a suspended tenant, to help it.
const rightOperate = "fleet.admin"

// SetTenants puts what operators have decided about tenants in force, for streams that
// run too. Tenants that are not named have nothing decided.
func (g *Gateway) SetTenants(states map[contextkit.TenantID]TenantState) {
	bounds := map[contextkit.TenantID]limit.Config{}
	for tenant, state := range states {
		if state.Limits != (limit.Config{}) {
			bounds[tenant] = state.Limits
		}
	}
	g.tenants.SetBounds(bounds)
	g.decided.Store(&states)
	g.endSuspended(g.live.all()...)
}

// suspended returns why the principal's calls for the tenant are refused, "" when
// they are not.
func (g *Gateway) suspended(tenant contextkit.TenantID, principal *auth.Principal) string {
	states := g.decided.Load()
	if states == nil {
		return ""
	}
	state := (*states)[tenant]
	if !state.Suspended || principal.Holds(rightOperate) && principal.AnyTenant {
		return ""
	}
	reason := "tenant " + tenant.String() + " is suspended"
	if state.Reason != "" {
		reason += ": " + state.Reason
	}
	return reason
}
