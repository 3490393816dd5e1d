package limit

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// promptRefusals is the share of a tenant's rate, and of its burst, at which it is
	// refused at once: clients that wait as they are told are not refused more often.
	promptRefusals = 0.1
	// leastHeld and mostHeld are how long a further refusal is held back.
	leastHeld, mostHeld = 50 * time.Millisecond, 150 * time.Millisecond
)

// HoldBack returns when the tenant's client may be told that its call is refused: at
// once as a rule, and after a moment while the tenant's refusals come faster than a tenth
// of its rate. To refuse costs nearly as much as to serve, and a client that calls again
// at once, whatever it was told, would take for it what others need. It reports whether
// it waited. No more than the bound given to [NewTenants] wait, all tenants together, and
// no longer than ctx lasts; the others are told at once.
func (t *Tenants) HoldBack(ctx context.Context, id contextkit.TenantID) bool {
	if t.use(id).refusals.Allow() {
		return false
	}
	if t.held.Add(1) > t.maxHeld {
		t.held.Add(-1)
		return false
	}
	defer t.held.Add(-1)
	timer := time.NewTimer(leastHeld + rand.N(mostHeld-leastHeld)) // not all come back together
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// promptBurst is how many refusals a tenant is told at once after none.
func promptBurst(bounds Config) int { return max(int(float64(bounds.Burst)*promptRefusals), 1) }

// Held returns how many refusals are held back now.
func (t *Tenants) Held() int64 { return t.held.Load() }
