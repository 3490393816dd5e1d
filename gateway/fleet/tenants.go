package fleet

import (
	"context"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// TenantState is the state of a tenant that operators have set.
type TenantState struct {
	// Suspended rejects the tenant's calls; callers receive Reason.
	Suspended bool
	Reason    string
	// Limits is the tenant's quota; the zero value: the default of all tenants.
	Limits limit.Config
}

// Tenants holds the states of all tenants. The zero value has none. Its methods may be called concurrently.
type Tenants struct {
	states atomic.Pointer[map[contextkit.TenantID]TenantState]
}

// Replace replaces all states. The caller must not change states afterwards.
func (t *Tenants) Replace(states map[contextkit.TenantID]TenantState) { t.states.Store(&states) }

// Suspension returns the reason that the tenant's calls are rejected, "" if they are not.
func (t *Tenants) Suspension(tenant contextkit.TenantID) string {
	states := t.states.Load()
	if states == nil {
		return ""
	}
	state := (*states)[tenant]
	if !state.Suspended {
		return ""
	}
	reason := "tenant " + tenant.String() + " is suspended"
	if state.Reason != "" {
		reason += ": " + state.Reason
	}
	return reason
}

// TenantSetter applies the states of all tenants.
type TenantSetter interface {
	SetTenants(states map[contextkit.TenantID]TenantState)
}

// LoadTenants applies the stored states of tenants. A gateway must call it before it serves: without them it would
// admit suspended tenants.
func LoadTenants(ctx context.Context, js jetstream.JetStream, gateway TenantSetter) error {
	tenants, err := kv.Open[fleet.Tenant](ctx, js, streams.BucketTenants)
	if err != nil {
		return err
	}
	all, err := tenants.All(ctx)
	if err == nil {
		gateway.SetTenants(tenantStates(all))
	}
	return err
}

// FollowTenants applies changes of tenants' states until ctx ends.
func FollowTenants(ctx context.Context, js jetstream.JetStream, gateway TenantSetter, log zerolog.Logger) {
	apply := func(all map[string]kv.Entry[fleet.Tenant]) { gateway.SetTenants(tenantStates(all)) }
	kv.Follow(ctx, js, streams.BucketTenants, kv.Whole(apply), func(err error) {
		log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg(
			"changes of tenants are not received; suspensions and quotas stay as they were",
		)
	})
}

// tenantStates returns the states of stored tenants. Keys that are not the name of a tenant are ignored.
func tenantStates(all map[string]kv.Entry[fleet.Tenant]) map[contextkit.TenantID]TenantState {
	states := map[contextkit.TenantID]TenantState{}
	for name, stored := range all {
		tenant, err := contextkit.ParseTenantID(name)
		if err != nil {
			continue
		}
		state := TenantState{Suspended: stored.Value.Suspended, Reason: stored.Value.Reason}
		if q := stored.Value.Quota; q != nil {
			state.Limits = limit.Config{
				Rate:       q.Rate,
				Burst:      q.Burst,
				Concurrent: q.Concurrent,
				Streams:    q.Streams,
			}
		}
		states[tenant] = state
	}
	return states
}
