package aggregate

import "github.com/prometheus/client_golang/prometheus"

// cacheMetrics are the metrics of a service's caches, labelled by their content.
type cacheMetrics struct{ entries, bytes, evicted *prometheus.Desc }

func newCacheMetrics() cacheMetrics {
	label := []string{"cache"}
	return cacheMetrics{
		entries: prometheus.NewDesc("headgate_aggregate_cache_entries", "Aggregates, or chapters of their commands' keys, in memory.", label, nil),
		bytes:   prometheus.NewDesc("headgate_aggregate_cache_bytes", "Estimated memory of the entries.", label, nil),
		evicted: prometheus.NewDesc("headgate_aggregate_cache_evictions_total", "Entries that made room for others.", label, nil),
	}
}

func (m cacheMetrics) describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- m.entries
	descriptions <- m.bytes
	descriptions <- m.evicted
}

func (m cacheMetrics) collect(metrics chan<- prometheus.Metric, cache string, stats cacheStats) {
	metrics <- prometheus.MustNewConstMetric(m.entries, prometheus.GaugeValue, float64(stats.entries), cache)
	metrics <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(stats.bytes), cache)
	metrics <- prometheus.MustNewConstMetric(m.evicted, prometheus.CounterValue, float64(stats.evicted), cache)
}
