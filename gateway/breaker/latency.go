package breaker

import (
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// slowSamples is the minimum number of answers for judging a method's latency, and
	// tenantSamples the minimum number of a tenant's answers for its latency to count.
	slowSamples, tenantSamples = 20, 5
	// latencyWeight is the weight of a new answer in a moving average.
	latencyWeight = 0.1
	// slots is the number of tenants whose latencies are stored: those with the most answers.
	slots = 16
	// agingAnswers is the number of answers after which older ones count half.
	agingAnswers = slots * slowSamples
)

// latencies are moving averages of response times, one per tenant: one tenant's calls may be
// expensive, which is no evidence about the node.
type latencies struct {
	answers int
	tenants [slots]latency
}

// latency is the moving average of one tenant's calls.
type latency struct {
	tenant contextkit.TenantID
	mean   float64
	count  int
}

// add records an answer, and reports whether to judge the node now: once per slowSamples answers,
// because judging inspects all peers.
func (l *latencies) add(tenant contextkit.TenantID, took time.Duration) (judge bool) {
	l.answers++
	slot := l.slot(tenant)
	slot.count++
	slot.mean = movingMean(slot.mean, slot.count, took)
	if l.answers%agingAnswers == 0 {
		for i := range l.tenants {
			l.tenants[i].count /= 2
		}
	}
	return l.answers%slowSamples == 0
}

// slot returns the tenant's slot, or that of the tenant with the fewest answers. The platform's slot may be any that is
// empty.
func (l *latencies) slot(tenant contextkit.TenantID) *latency {
	fewest := &l.tenants[0]
	for i := range l.tenants {
		slot := &l.tenants[i]
		if slot.tenant == tenant {
			return slot
		}
		if slot.count < fewest.count {
			fewest = slot
		}
	}
	*fewest = latency{tenant: tenant}
	return fewest
}

func movingMean(mean float64, count int, took time.Duration) float64 {
	if count == 1 {
		return float64(took)
	}
	return mean + latencyWeight*(float64(took)-mean)
}

// medianTenant returns the median of the tenants' latencies, the lower one of two, and the number
// of tenants: with two or more, no single tenant can raise it. 0: unknown.
func (l *latencies) medianTenant() (median float64, tenants int) {
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

// busiest returns the stored tenant with the most answers.
func (l *latencies) busiest() contextkit.TenantID {
	return slices.MaxFunc(l.tenants[:], func(a, b latency) int { return a.count - b.count }).tenant
}

// judge opens the breaker of the call's method if the node is much slower than its peers.
func (p *Pass) judge(now time.Time) {
	config, m := &p.set.config, p.method
	m.mu.Lock()
	own, tenants := m.times.medianTenant()
	m.mu.Unlock()
	if own <= float64(config.SlowFloor) {
		return
	}
	median, ok := p.set.peerLatency(p.node, m.procedure)
	if !ok || own <= config.SlowFactor*median {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.openUntil.Load() != 0 {
		return
	}
	m.open(config, tenants > 1, m.times.busiest(), now)
	m.failures, m.times = 0, latencies{} // the method is judged from new answers once the breaker is closed
}

// peerLatency returns the median of the method's latencies at the other nodes of the kind, and
// false if too few are known.
func (s *Set) peerLatency(own *node, procedure string) (float64, bool) {
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
		if typical, tenants := m.times.medianTenant(); tenants > 0 {
			all = append(all, typical)
		}
		m.mu.Unlock()
	}
	if len(all) < panicMinNodes-1 {
		return 0, false
	}
	slices.Sort(all)
	return all[len(all)/2], true
}
