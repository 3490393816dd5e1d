package usage

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// topTenants bounds the tenants with a metric: the ones with the highest used part of a quota.
const topTenants = 10

var (
	usedRatio = prometheus.NewDesc("headgate_tenant_quota_used_ratio",
		"Used part of a storage quota, for the tenants with the highest used parts.", []string{"tenant", "quota"}, nil)
	nearQuota = prometheus.NewDesc("headgate_tenants_near_quota",
		"Tenants that have used four fifths of a storage quota or more.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (m *Meter) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- usedRatio
	descriptions <- nearQuota
	for _, quota := range Quotas {
		m.refused[quota].Describe(descriptions)
	}
}

// Collect implements [prometheus.Collector].
func (m *Meter) Collect(metrics chan<- prometheus.Metric) {
	type use struct {
		tenant, quota string
		ratio         float64
	}
	var most []use
	near := 0
	m.mu.RLock()
	for _, t := range m.known {
		quota := t.limits.Load()
		if quota == nil {
			continue
		}
		t.mu.Lock()
		values := t.stored.values()
		t.mu.Unlock()
		top := use{tenant: t.name}
		for n, used := range values {
			if ratio := float64(used) / float64(max(quota[n], 1)); quota[n] > 0 && ratio >= top.ratio {
				top.quota, top.ratio = Quotas[n], ratio
			}
		}
		if top.ratio >= warnAt {
			near++
		}
		most = append(most, top)
	}
	m.mu.RUnlock()
	slices.SortFunc(most,
		func(a, b use) int { return cmp.Or(cmp.Compare(b.ratio, a.ratio), cmp.Compare(a.tenant, b.tenant)) })
	for _, u := range most[:min(len(most), topTenants)] {
		metrics <- prometheus.MustNewConstMetric(usedRatio, prometheus.GaugeValue, u.ratio, u.tenant, u.quota)
	}
	if len(most) == 0 { // the metric is there from the start
		metrics <- prometheus.MustNewConstMetric(usedRatio, prometheus.GaugeValue, 0, "", Quotas[0])
	}
	metrics <- prometheus.MustNewConstMetric(nearQuota, prometheus.GaugeValue, float64(near))
	for _, quota := range Quotas {
		m.refused[quota].Collect(metrics)
	}
}
