package breaker

import (
	"hash/maphash"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// slowSamples is how many answers a method's latency is judged by, at least, and
	// tenantSamples how many of a tenant make its latency count.
	slowSamples, tenantSamples = 20, 5
	// latencyWeight is what each new answer counts in a mean.
	latencyWeight = 0.1
	// slots is how many tenants' latencies are stored.
	slots = 16
)

// latencies are moving means of the times to an answer, each of one tenant. What one tenant
// asks for may take long, which says little of the node.
type latencies struct {
	answers int
	tenants [slots]latency
}

// latency is that of a tenant's calls.
type latency struct {
	tenant contextkit.TenantID
	mean   float64
	count  int
}

var seed = maphash.MakeSeed()

// add notes an answer, and reports whether it is time to judge the node: once in
// slowSamples answers, since that looks at all peers.
func (l *latencies) add(tenant contextkit.TenantID, took time.Duration) (judge bool) {
	l.answers++
	slot := &l.tenants[maphash.String(seed, tenant.String())%slots]
	if slot.tenant != tenant {
		*slot = latency{tenant: tenant}
	}
	slot.count++
	slot.mean = moved(slot.mean, slot.count, took)
	return l.answers%slowSamples == 0
}

func moved(mean float64, count int, took time.Duration) float64 {
	if count == 1 {
		return float64(took)
	}
	return mean + latencyWeight*(float64(took)-mean)
}

// typical returns the median of the tenants' latencies, the lower one of two, and how many
// tenants there are: with two or more, one of them alone cannot raise it. 0: not known.
func (l *latencies) typical() (median float64, tenants int) {
	var buffer [slots]float64
	means := buffer[:0]
	for _, slot := range l.tenants {
		if slot.count >= tenantSamples {
			means = append(means, slot.mean)
		}
	}
	if len(means) == 0 {
		return 0, 0
	}
	slices.Sort(means)
	return means[(len(means)-1)/2], len(means)
}

// busiest returns the tenant with the most answers of those that are stored.
func (l *latencies) busiest() contextkit.TenantID {
	return slices.MaxFunc(l.tenants[:], func(a, b latency) int { return a.count - b.count }).tenant
}

// judge opens the breaker of the call's method if the node is much slower than its peers.
func (p Pass) judge(now time.Time) {
	config, m := &p.set.config, p.method
	m.mu.Lock()
	own, tenants := m.times.typical()
	m.mu.Unlock()
	if own <= float64(config.SlowFloor) {
		return
	}
	median, ok := p.set.peers(p.node, m.procedure)
	if !ok || own <= config.SlowFactor*median {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.openUntil.Load() != 0 {
		return
	}
	m.open(config, tenants > 1, m.times.busiest(), now)
	m.failures, m.times = 0, latencies{} // it is judged anew when it is back
}

// peers returns the median of the method's latencies at the kind's other nodes, if enough
// are known.
func (s *Set) peers(own *node, procedure string) (float64, bool) {
	var all []float64
	for _, n := range *s.nodes.Load() {
		if n == own || n.kind != own.kind {
			continue
		}
		m := (*n.methods.Load())[procedure]
		if m == nil || m.openUntil.Load() != 0 {
			continue
		}
		m.mu.Lock()
		if typical, tenants := m.times.typical(); tenants > 0 {
			all = append(all, typical)
		}
		m.mu.Unlock()
	}
	if len(all) < panicFrom-1 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}
