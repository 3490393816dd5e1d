package aggregate

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/services/aggregate/tenantcache"
)

// cacheMetrics are the metrics of the service's caches, labelled by cache.
type cacheMetrics struct{ entries, bytes, evicted *prometheus.Desc }

func newCacheMetrics() cacheMetrics {
	label := []string{"cache"}
	return cacheMetrics{
		entries: prometheus.NewDesc("headgate_aggregate_cache_entries",
			"Cached aggregates, or cached block indexes of their idempotency logs.", label, nil),
		bytes: prometheus.NewDesc("headgate_aggregate_cache_bytes", "Estimated memory of the entries.", label, nil),
		evicted: prometheus.NewDesc("headgate_aggregate_cache_evictions_total",
			"Entries evicted to make room for others.", label, nil),
	}
}

func (m cacheMetrics) describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- m.entries
	descriptions <- m.bytes
	descriptions <- m.evicted
}

func (m cacheMetrics) collect(metrics chan<- prometheus.Metric, cache string, stats tenantcache.Stats) {
	metrics <- prometheus.MustNewConstMetric(m.entries, prometheus.GaugeValue, float64(stats.Entries), cache)
	metrics <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(stats.Bytes), cache)
	metrics <- prometheus.MustNewConstMetric(m.evicted, prometheus.CounterValue, float64(stats.Evicted), cache)
}
