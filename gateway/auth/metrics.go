package auth

import "github.com/prometheus/client_golang/prometheus"

var (
	revocationsDesc = prometheus.NewDesc("headgate_auth_revocations", "Revocations of tokens in use, by source.",
		[]string{"source"}, nil)
	revocationsAwayDesc = prometheus.NewDesc("headgate_auth_revocations_away",
		"1 if the source of revocations cannot be read, else 0.", []string{"source"}, nil)
	listsExpireDesc = prometheus.NewDesc("headgate_auth_crl_next_update_timestamp_seconds",
		"When the first of an authority's certificate revocation lists expires.", []string{"authority"}, nil)
	issuedKeysDesc = prometheus.NewDesc("headgate_auth_issued_api_keys",
		"Valid API keys that the platform has issued.", nil, nil)
	issuedBytesDesc = prometheus.NewDesc("headgate_auth_issued_api_key_bytes",
		"Memory of the API keys that the platform has issued, estimated.", nil, nil)
	cachedCertificatesDesc = prometheus.NewDesc("headgate_auth_cached_certificates",
		"Verified certificates of clients in the cache.", nil, nil)
	cachedTokensDesc = prometheus.NewDesc("headgate_auth_cached_tokens", "Verified tokens in the cache.", nil, nil)
	cachedBytesDesc  = prometheus.NewDesc("headgate_auth_cached_bytes",
		"Memory of the verified tokens in the cache, estimated.", nil, nil)
	keyReadsDesc = prometheus.NewDesc("headgate_auth_key_reads_total", "Reads of an issuer's key set, by outcome.",
		[]string{"issuer", "outcome"}, nil)
	keyWaitersDesc = prometheus.NewDesc("headgate_auth_key_waiters",
		"Calls that wait for a read of an issuer's key set.", []string{"issuer"}, nil)
	keysAwayDesc = prometheus.NewDesc("headgate_auth_keys_away",
		"1 if the last read of an issuer's key set failed, else 0.", []string{"issuer"}, nil)
)

// Describe implements [prometheus.Collector].
func (v *Verifier) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- cachedTokensDesc
	descriptions <- cachedBytesDesc
	descriptions <- cachedCertificatesDesc
	descriptions <- keyReadsDesc
	descriptions <- keyWaitersDesc
	descriptions <- keysAwayDesc
	descriptions <- revocationsDesc
	descriptions <- revocationsAwayDesc
	descriptions <- listsExpireDesc
	descriptions <- issuedKeysDesc
	descriptions <- issuedBytesDesc
}

// Collect implements [prometheus.Collector].
func (v *Verifier) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value int, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	tokens, bytes := v.known.size()
	gauge(cachedTokensDesc, tokens)
	gauge(cachedBytesDesc, bytes)
	certificates, _ := v.certificates.size()
	gauge(cachedCertificatesDesc, certificates)
	gauge(issuedKeysDesc, len(*v.issued.Load()))
	gauge(issuedBytesDesc, int(v.issuedBytes.Load()))
	for _, issuer := range v.issuers {
		keys, away := issuer.Keys, 0
		keys.mu.Lock()
		waiting := keys.waiting
		keys.mu.Unlock()
		if _, _, failed := keys.outage(); failed {
			away = 1
		}
		gauge(keyWaitersDesc, waiting, issuer.label())
		gauge(keysAwayDesc, away, issuer.label())
		for outcome, reads := range map[string]int64{
			"changed": keys.changed.Load(), "unchanged": keys.unchanged.Load(), "failed": keys.failed.Load(),
		} {
			metrics <- prometheus.MustNewConstMetric(keyReadsDesc, prometheus.CounterValue, float64(reads),
				issuer.label(), outcome)
		}
	}
	v.revoked.mu.Lock()
	defer v.revoked.mu.Unlock()
	for source, set := range v.revoked.sources {
		away := 0
		if _, unread := v.revoked.away[source]; unread {
			away = 1
		}
		gauge(revocationsDesc, set.size, source)
		gauge(revocationsAwayDesc, away, source)
	}
	for _, authority := range v.authorities {
		lists := authority.Certificates.lists
		if lists == nil {
			continue
		}
		lists.mu.Lock()
		size, next, away := lists.lists.size, lists.lists.nextUpdate(), 0
		if !lists.away.IsZero() {
			away = 1
		}
		lists.mu.Unlock()
		source := "certificates " + authority.Name
		gauge(revocationsDesc, size, source)
		gauge(revocationsAwayDesc, away, source)
		metrics <- prometheus.MustNewConstMetric(listsExpireDesc, prometheus.GaugeValue, float64(next.Unix()),
			authority.Name)
	}
}
