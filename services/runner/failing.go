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
	// maxFailing bounds the failing instances that are tracked.
	maxFailing = 4096
)

// failing tracks the instances whose last attempt failed and that will be tried again. Its
// methods may be called concurrently.
type failing struct {
	mu    sync.Mutex
	known map[failingKey]failure
}

type failingKey struct {
	tenant       contextkit.TenantID
	workflow, id string
}

// failure is when an instance failed first and last, in a row.
type failure struct{ first, last time.Time }

// note records how an attempt at an instance ended.
func (f *failing) note(i *instance, failed bool, now time.Time) {
	key := failingKey{i.tenant, i.Workflow, i.ID}
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.known[key]
	switch {
	case !failed:
		delete(f.known, key)
	case known:
		f.known[key] = failure{before.first, now}
	case len(f.known) < maxFailing:
		if f.known == nil {
			f.known = map[failingKey]failure{}
		}
		f.known[key] = failure{now, now}
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
	for key, one := range f.known {
		if now.Sub(one.last) > failureKept {
			delete(f.known, key)
			continue
		}
		total++
		tenants[key.tenant.String()]++
		if now.Sub(one.first) >= stuckAfter {
			stuck++
		}
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
