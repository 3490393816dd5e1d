package audit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/internal/natsclient"
)

// lossReason is the reason that a record was not stored: a [natsclient.Refusal], or one of the constants. Metrics and
// log lines have it as text.
type lossReason string

const (
	reasonQueueFull lossReason = "queue_full"
	reasonEnded     lossReason = "process_ended"
)

// counters are a recorder's counters.
type counters struct {
	lost, retries *prometheus.CounterVec
	suppressed    prometheus.Counter
}

func newCounters() *counters {
	return &counters{
		lost: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: "headgate_audit_lost_total",
				Help: "Audit records that were not stored, by queue and reason; they are in the log.",
			},
			[]string{"queue", "reason"},
		),
		retries: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: "headgate_audit_retries_total",
				Help: "Retries of storing an audit record, by queue.",
			},
			[]string{"queue"},
		),
		suppressed: prometheus.NewCounter(
			prometheus.CounterOpts{
				Name: "headgate_audit_suppressed_total",
				Help: "Denials, and operators' calls for tenants, that were not recorded because their caller or " +
					"account exceeded the rate; the caller's next record has their number.",
			},
		),
	}
}

// collectors returns the counters as collectors.
func (c *counters) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.lost, c.retries, c.suppressed}
}

// begin creates a queue's series at 0.
func (c *counters) begin(queue string) {
	for _, reason := range []lossReason{
		reasonQueueFull, reasonEnded, lossReason(natsclient.RefusedTooLarge), lossReason(natsclient.RefusedInvalid),
	} {
		c.lost.WithLabelValues(queue, string(reason))
	}
	c.retries.WithLabelValues(queue)
}

var (
	queuedRecords = prometheus.NewDesc("headgate_audit_queued", "Audit records that are not stored yet, by queue.",
		[]string{"queue"}, nil)
	queuedBytes = prometheus.NewDesc("headgate_audit_queued_bytes",
		"Memory of the audit records that are not stored yet, by queue.", []string{"queue"}, nil)
	oldestQueued = prometheus.NewDesc("headgate_audit_oldest_seconds",
		"Age of the oldest audit record that is not stored yet, by queue; 0 if there is none.", []string{"queue"}, nil)
)

// states collects the state of the outboxes' queues.
type states []*outbox

// Describe implements [prometheus.Collector].
func (s states) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- queuedRecords
	descriptions <- queuedBytes
	descriptions <- oldestQueued
}

// Collect implements [prometheus.Collector].
func (s states) Collect(metrics chan<- prometheus.Metric) {
	for _, out := range s {
		stats := out.queue.Stats()
		gauge := func(desc *prometheus.Desc, value float64) {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, out.name)
		}
		gauge(queuedRecords, float64(stats.Items))
		gauge(queuedBytes, float64(stats.Bytes))
		gauge(oldestQueued, out.age(time.Now()).Seconds())
	}
}
