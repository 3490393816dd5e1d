package runner

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// stuckAfter is how long an instance may fail before it counts as stuck.
	stuckAfter = 5 * time.Minute
	// failureKept is how long after its last failure an instance counts as failing: longer than
	// the longest wait for another attempt and that attempt. One that has become a dead letter,
	// or is another runner's by now, has no further attempt here.
	failureKept = longestRetry + workTimeout + time.Minute
	// maxFailing bounds the failing instances of one tenant that are tracked, so that no tenant
	// hides those of another.
	maxFailing = 1024
)

// failing tracks the instances whose last attempt failed and that will be tried again. Its
// methods may be called concurrently.
type failing struct {
	mu    sync.Mutex
	known map[contextkit.TenantID]map[failingKey]failure // no tenant without an instance
}

// failingKey names an instance of a tenant.
type failingKey struct{ workflow, id string }

// failure is when an instance failed first and last, in a row.
type failure struct{ first, last time.Time }

// note records how an attempt at an instance ended.
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

// counts returns the number of failing instances, that of those which are stuck, and the tenants
// with most failing ones, n at most.
func (f *failing) counts(n int, now time.Time) (total, stuck int, most []tenantCount) {
	f.mu.Lock()
	tenants := map[string]int{}
	for tenant, known := range f.known {
		for key, one := range known {
			if now.Sub(one.last) > failureKept {
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
	return total, stuck, mostOf(tenants, n)
}

// mostOf returns the tenants with the largest counts, n at most.
func mostOf(tenants map[string]int, n int) []tenantCount {
	out := make([]tenantCount, 0, len(tenants))
	for tenant, count := range tenants {
		out = append(out, tenantCount{tenant, count})
	}
	slices.SortFunc(out, func(a, b tenantCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.tenant, b.tenant))
	})
	return out[:min(n, len(out))]
}
