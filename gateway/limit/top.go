package limit

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// topWindow is the length of a window of [Top]; a count covers the current window and the
	// one before.
	topWindow = 30 * time.Second
	// topTenants bounds the tenants that are counted in a window.
	topTenants = 1024
)

// Top counts events per tenant over the last 30 to 60 seconds, to show the tenants with the most.
// Its memory is bounded: tenants beyond the first 1,024 of a window are not counted in it. The zero
// value is ready for use. It is safe for concurrent use.
type Top struct {
	mu      sync.Mutex
	began   time.Time
	current map[contextkit.TenantID]int64
	before  map[contextkit.TenantID]int64
}

// TenantCount is a tenant with its count.
type TenantCount struct {
	Tenant contextkit.TenantID
	Count  int64
}

// Add counts an event of a tenant.
func (t *Top) Add(tenant contextkit.TenantID, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rotate(now)
	if _, known := t.current[tenant]; known || len(t.current) < topTenants {
		t.current[tenant]++
	}
}

// rotate begins a new window when the current one has ended. t.mu is held.
func (t *Top) rotate(now time.Time) {
	age := now.Sub(t.began)
	if t.current != nil && age < topWindow {
		return
	}
	if t.before = nil; age < 2*topWindow {
		t.before = t.current
	}
	t.began, t.current = now, map[contextkit.TenantID]int64{}
}

// Most returns the tenants with the largest counts, at most n, the largest first.
func (t *Top) Most(n int, now time.Time) []TenantCount {
	t.mu.Lock()
	t.rotate(now)
	sums := make(map[contextkit.TenantID]int64, len(t.current)+len(t.before))
	for _, window := range []map[contextkit.TenantID]int64{t.current, t.before} {
		for tenant, count := range window {
			sums[tenant] += count
		}
	}
	t.mu.Unlock()
	out := make([]TenantCount, 0, len(sums))
	for tenant, count := range sums {
		out = append(out, TenantCount{tenant, count})
	}
	slices.SortFunc(out, func(a, b TenantCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Tenant.String(), b.Tenant.String()))
	})
	return out[:min(n, len(out))]
}
