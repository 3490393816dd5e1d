package auth

import "github.com/prometheus/client_golang/prometheus"

var (
	cachedTokensDesc = prometheus.NewDesc("headgate_auth_cached_tokens", "Verified tokens in the cache.", nil, nil)
	cachedBytesDesc  = prometheus.NewDesc("headgate_auth_cached_bytes",
		"Memory of the verified tokens in the cache, estimated.", nil, nil)
	keyReadsDesc = prometheus.NewDesc("headgate_auth_key_reads_total", "Reads of the key set, by outcome.",
		[]string{"outcome"}, nil)
	keyWaitersDesc = prometheus.NewDesc("headgate_auth_key_waiters", "Calls that wait for a read of the key set.",
		nil, nil)
)

// Describe implements [prometheus.Collector].
func (v *Verifier) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- cachedTokensDesc
	descriptions <- cachedBytesDesc
	descriptions <- keyReadsDesc
	descriptions <- keyWaitersDesc
}

// Collect implements [prometheus.Collector].
func (v *Verifier) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value int) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value))
	}
	tokens, bytes := v.known.size()
	gauge(cachedTokensDesc, tokens)
	gauge(cachedBytesDesc, bytes)
	keys := v.config.Keys
	keys.mu.Lock()
	waiting := keys.waiting
	keys.mu.Unlock()
	gauge(keyWaitersDesc, waiting)
	for outcome, reads := range map[string]int64{
		"changed": keys.changed.Load(), "unchanged": keys.unchanged.Load(), "failed": keys.failed.Load(),
	} {
		metrics <- prometheus.MustNewConstMetric(keyReadsDesc, prometheus.CounterValue, float64(reads), outcome)
	}
}
