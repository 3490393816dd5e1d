package runner

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// stuckAfter is the time of failures after which an instance counts as stuck.
	stuckAfter = 5 * time.Minute
	// failureRetention is the time after its last failure for which an instance counts as failing: longer than the
	// longest retry delay and that attempt. An instance that has become a dead letter, or has moved to another
	// runner, has no further attempt here.
	failureRetention = longestRetry + workTimeout + time.Minute
	// maxFailing bounds the tracked failing instances per tenant, so that no tenant hides those of another.
	maxFailing = 1024
)

// failing tracks the instances whose last attempt failed and that will be retried. Its methods may be called
// concurrently.
type failing struct {
	mu    sync.Mutex
	known map[contextkit.TenantID]map[failingKey]failure // has no tenant without an instance
}

// failingKey identifies an instance of a tenant.
type failingKey struct{ workflow, id string }

// failure contains the times of the first and last of consecutive failures of an instance.
type failure struct{ first, last time.Time }

// note records the result of an attempt at an instance.
func (f *failing) note(i *instance, failed bool, now time.Time) {
	key := failingKey{i.Workflow, i.ID}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.known[i.tenant]
	before, again := known[key]
	switch {
	case !failed:
		delete(known, key)
		if len(known) == 0 {
			delete(f.known, i.tenant)
		}
	case again:
		known[key] = failure{before.first, now}
	case known == nil:
		if f.known == nil {
			f.known = map[contextkit.TenantID]map[failingKey]failure{}
		}
		f.known[i.tenant] = map[failingKey]failure{key: {now, now}}
	case len(known) < maxFailing:
		known[key] = failure{now, now}
	}
}

// tenantCount is a tenant with a count.
type tenantCount struct {
	tenant string
	count  int
}

// counts returns the number of failing instances, the number of stuck ones among them, and the n tenants with the
// most failing ones.
func (f *failing) counts(n int, now time.Time) (total, stuck int, most []tenantCount) {
	f.mu.Lock()
	tenants := map[string]int{}
	for tenant, known := range f.known {
		for key, one := range known {
			if now.Sub(one.last) > failureRetention {
				delete(known, key)
			} else if now.Sub(one.first) >= stuckAfter {
				stuck++
			}
		}
		if len(known) == 0 {
			delete(f.known, tenant)
			continue
		}
		total += len(known)
		tenants[tenant.String()] = len(known)
	}
	f.mu.Unlock()
	return total, stuck, largest(tenants, n)
}

// largest returns the n tenants with the largest counts.
func largest(tenants map[string]int, n int) []tenantCount {
	out := make([]tenantCount, 0, len(tenants))
	for tenant, count := range tenants {
		out = append(out, tenantCount{tenant, count})
	}
	slices.SortFunc(out, func(a, b tenantCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.tenant, b.tenant))
	})
	return out[:min(n, len(out))]
}
