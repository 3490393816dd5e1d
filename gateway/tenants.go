package gateway

import (
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/fleet"
	"github.com/headgate/headgate/gateway/limit"
)

// TenantState is the state of a tenant that operators have set.
type TenantState = fleet.TenantState

// rightAdminFleet admits a principal to suspended tenants, to repair them.
const rightAdminFleet = "fleet.admin"

// SetTenants replaces the states of all tenants, and applies them to running streams too. Tenants
// without a state have the zero value.
func (g *Gateway) SetTenants(states map[contextkit.TenantID]TenantState) {
	bounds := map[contextkit.TenantID]limit.Config{}
	for tenant, state := range states {
		if state.Limits != (limit.Config{}) {
			bounds[tenant] = state.Limits
		}
	}
	g.tenants.SetBounds(bounds)
	g.standings.Replace(states)
	g.endSuspended(g.live.all()...)
}

// suspended returns the reason that the principal's calls for the tenant are rejected, "" when they
// are not.
func (g *Gateway) suspended(tenant contextkit.TenantID, principal *auth.Principal) string {
	reason := g.standings.Suspension(tenant)
	if reason == "" || principal.Holds(rightAdminFleet) && principal.AnyTenant {
		return ""
	}
	return reason
}
