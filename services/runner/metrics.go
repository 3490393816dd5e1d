package runner

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/workqueue"
)

const (
	// shownTenants bounds the tenants with their own series.
	shownTenants = 10
	// storedEvery is the maximum age of the counts of stored work, and storedTimeout bounds a read.
	storedEvery, storedTimeout = 15 * time.Second, time.Second
)

var (
	deadLettersMetric = prometheus.NewDesc("headgate_dead_letters",
		"Dead letters of all tenants: failed work that waits for an operator.", nil, nil)
	tenantLettersMetric = prometheus.NewDesc("headgate_tenant_dead_letters",
		"Dead letters of the ten tenants with the most.", []string{"tenant"}, nil)
	workflowsWaiting = prometheus.NewDesc("headgate_workflows_waiting",
		"Workflow instances of all tenants that are scheduled, or due and not driven yet.", nil, nil)
	workflowsFailing = prometheus.NewDesc(
		"headgate_workflows_failing",
		"Workflow instances whose last attempt at this runner failed and will be retried; at most 1,024 per tenant "+
			"are counted.",
		nil, nil,
	)
	workflowsStuck = prometheus.NewDesc("headgate_workflows_stuck",
		"Workflow instances that have been failing for five minutes or longer.", nil, nil)
	workflowsPostponed = prometheus.NewDesc("headgate_workflows_postponed",
		"Workflow instances of all tenants whose next attempt is scheduled.", nil, nil)
	postponedHeld = prometheus.NewDesc(
		"headgate_workflow_retries_held_total",
		"Failed attempts that stay in the window because their tenant has reached the limit of scheduled retries.", nil,
		nil,
	)
	receiversOpen = prometheus.NewDesc("headgate_webhook_receivers_open",
		"Webhook receivers whose breaker is open or half-open.", nil, nil)
	webhooksHeld = prometheus.NewDesc(
		"headgate_webhooks_held_total",
		"Webhooks that were not called because the receiver's breaker was open or its concurrency limit was reached; "+
			"they are retried.",
		nil, nil,
	)
	handedBackMetric = prometheus.NewDesc("headgate_triggers_handed_back_total",
		"Triggers handed back because they were decided by a model that this runner does not use yet.", nil, nil)
	tenantWorkflowsMetric = prometheus.NewDesc(
		"headgate_tenant_workflows_failing",
		"Failing workflow instances of the ten tenants with the most; at most 1,024 per tenant are counted.",
		[]string{"tenant"}, nil,
	)
)

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	s.answers.Describe(descriptions)
	s.reads.Describe(descriptions)
	for _, d := range []*prometheus.Desc{
		deadLettersMetric, tenantLettersMetric, workflowsWaiting, workflowsFailing, workflowsStuck, handedBackMetric,
		tenantWorkflowsMetric, workflowsPostponed, postponedHeld, receiversOpen, webhooksHeld,
	} {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector]. The number of series does not depend on the number of tenants. Counts of
// stored work, which all runners export, are up to 15 s old, and stay while NATS is unavailable.
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.answers.Collect(metrics)
	s.reads.Collect(metrics)
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	metrics <- prometheus.MustNewConstMetric(handedBackMetric, prometheus.CounterValue, float64(s.handedBack.Load()))
	counts := s.stored.read(s.js)
	gauge(deadLettersMetric, counts.letters)
	gauge(workflowsWaiting, counts.waiting)
	gauge(workflowsPostponed, counts.postponed)
	for _, one := range counts.tenants {
		gauge(tenantLettersMetric, one.count, one.tenant)
	}
	open, held := s.webhooks.Receivers()
	gauge(receiversOpen, open)
	metrics <- prometheus.MustNewConstMetric(webhooksHeld, prometheus.CounterValue, float64(held))
	metrics <- prometheus.MustNewConstMetric(postponedHeld, prometheus.CounterValue, float64(s.heldRetries.Load()))
	total, stuck, most := s.failing.counts(shownTenants, time.Now())
	gauge(workflowsFailing, total)
	gauge(workflowsStuck, stuck)
	for _, one := range most {
		gauge(tenantWorkflowsMetric, one.count, one.tenant)
	}
}

// stored counts stored work: dead letters, and scheduled instances.
type stored struct {
	mu     sync.Mutex
	at     time.Time
	counts storedCounts
}

// storedCounts are the numbers of dead letters, of scheduled or due instances, and of those among them that wait for
// a retry.
type storedCounts struct {
	letters, waiting, postponed int
	tenants                     []tenantCount // with the most dead letters
}

// read returns the counts, and renews them from JetStream if they are too old. If that fails, the last counts stay
// until the next read is due.
func (c *stored) read(js jetstream.JetStream) storedCounts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) >= storedEvery {
		c.at = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), storedTimeout)
		defer cancel()
		c.counts.renew(ctx, js)
	}
	return c.counts
}

func (c *storedCounts) renew(ctx context.Context, js jetstream.JetStream) {
	if work, err := js.Stream(ctx, streams.Work); err == nil {
		c.waiting = int(work.CachedInfo().State.Msgs)
	}
	if postponed, err := workqueue.CountRetries(ctx, js, contextkit.TenantID{}); err == nil {
		c.postponed = int(postponed)
	}
	stream, err := js.Stream(ctx, streams.DeadLetters)
	if err != nil {
		return
	}
	if c.letters = int(stream.CachedInfo().State.Msgs); c.letters == 0 {
		c.tenants = nil
		return
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(deadLetters+"*"))
	if err != nil {
		return
	}
	tenants := make(map[string]int, len(info.State.Subjects))
	for subject, count := range info.State.Subjects {
		tenants[strings.TrimPrefix(subject, deadLetters)] = int(count)
	}
	c.tenants = largest(tenants, shownTenants)
}

// deadLetters is the prefix of the subjects of dead letters, see [streams.DeadLetterSubject].
const deadLetters = "deadletters."
