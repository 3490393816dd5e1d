package streams

import "github.com/headgate/headgate/contextkit"

// Account names whose share of AUDIT and TIMELINE a record counts against. It is what the
// platform has verified, never a tenant that a caller merely names: a tenant's records can
// then displace that tenant's own alone.
type Account string

// Accounts other than the tenants'. No tenant can have these names.
const (
	// AccountPlatform is the account of calls that concern no tenant.
	AccountPlatform Account = platformToken
	// AccountUnauthenticated is the account of callers without a valid credential, and of
	// those whose credential is for no tenant.
	AccountUnauthenticated Account = "_unauthenticated"
)

// platformToken stands for the platform in subjects.
const platformToken = "_platform"

// AccountOf returns a tenant's account, [AccountPlatform] for the zero tenant.
func AccountOf(tenant contextkit.TenantID) Account {
	if tenant.IsZero() {
		return AccountPlatform
	}
	return Account(tenant.String())
}
