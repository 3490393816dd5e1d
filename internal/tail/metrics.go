package tail

import "github.com/prometheus/client_golang/prometheus"

// counts are totals since the start. They are guarded by the tail's mu.
type counts struct{ applied, dropped, read, overdue uint64 }

var (
	positionMetric      = metric("position", "Journal sequence up to which the tail has read.")
	subscriptionsMetric = metric("subscriptions", "Subscriptions of tenants' events, by state.", "state")
	consumersMetric     = metric("readers",
		"Consumers that read what subscriptions did not take from the tail, by kind.", "kind")
	bytesMetric   = metric("queue_bytes", "Bytes of events that are queued or applied.")
	appliedMetric = metric("applied_total", "Events that were applied.")
	droppedMetric = metric("dropped_total", "Events that a subscription did not take, and that are read again.")
	readMetric    = metric("read_total", "Events that were read beside the tail.")
	overdueMetric = metric("overdue_total",
		"Calls to handlers that lasted so long that they are no longer counted as sessions.")
)

func metric(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("headgate_tail_"+name, help, append([]string{"tail"}, labels...), nil)
}

// Describe implements [prometheus.Collector].
func (t *Tail) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		positionMetric, subscriptionsMetric, consumersMetric, bytesMetric, appliedMetric, droppedMetric, readMetric,
		overdueMetric,
	} {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector]. There is no series per tenant.
func (t *Tail) Collect(metrics chan<- prometheus.Metric) {
	t.mu.Lock()
	var total, behind, failing int
	for _, entry := range t.tenants {
		for _, s := range entry.subs {
			total++
			switch {
			case s.failures > 0:
				failing++
			case s.known && !s.caughtUp():
				behind++
			}
		}
	}
	position, used, c := t.position, t.used, t.counts
	states := map[string]int{
		"all": total, "behind": behind, "failing": failing, "overdue": t.overdue, "applying": t.sessions,
		"starting": t.asking + t.toAsk.len(),
	}
	kinds := map[string]int{"group": t.groups, "single": t.solos, "read": t.readers}
	t.mu.Unlock()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value,
			append([]string{t.config.Name}, labels...)...)
	}
	count := func(d *prometheus.Desc, value uint64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), t.config.Name)
	}
	gauge(positionMetric, float64(position))
	gauge(bytesMetric, float64(used))
	for state, n := range states {
		gauge(subscriptionsMetric, float64(n), state)
	}
	for kind, n := range kinds {
		gauge(consumersMetric, float64(n), kind)
	}
	count(appliedMetric, c.applied)
	count(droppedMetric, c.dropped)
	count(readMetric, c.read)
	count(overdueMetric, c.overdue)
}
