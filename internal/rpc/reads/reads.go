// Package reads bounds the reads of stored messages that a node makes for clients, such as a page of a search, which
// cost much more than their answers show. At most two of a tenant and sixteen of the node run concurrently; further
// ones wait, for two seconds at most, and are then rejected. A read waits for those of its tenant before it waits for
// those of others, so that a tenant occupies at most its own share of the queue.
//
// The package does not bound what one read reads, nor its answer: see package response.
package reads

import (
	"context"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

const (
	// tenantReads and nodeReads bound the reads of a tenant and of a node that run concurrently, and tenantWaiting the
	// reads of a tenant that wait: for readsWait at most.
	tenantReads, nodeReads, tenantWaiting = 2, 16, 8
	readsWait                             = 2 * time.Second
	// readAgain is the delay after which a refused client may try again.
	readAgain = time.Second
)

// Config describes the reads of a limiter.
type Config struct {
	// Metric is the name of the gauge of reads, to which "_refused_total" is appended for the rejected ones.
	Metric string
	// What is read, for metrics and errors: "reads of the journal".
	What string
	// Reason is the reason of rejections.
	Reason rpc.ErrorReason
}

// Limiter bounds reads that run concurrently. It is also a [prometheus.Collector]. Its methods may be called
// concurrently.
type Limiter struct {
	config  Config
	node    chan struct{} // holds a value for each running read
	running *prometheus.Desc
	refused prometheus.Counter

	mu      sync.Mutex
	tenants map[contextkit.TenantID]*tenantSlots
	waiting int
}

// tenantSlots are the reads of a tenant.
type tenantSlots struct {
	slots chan struct{} // holds a value for each read that runs or waits for the node
	users int           // that run or wait
}

// NewLimiter returns a limiter.
func NewLimiter(config Config) *Limiter {
	return &Limiter{
		config:  config,
		node:    make(chan struct{}, nodeReads),
		tenants: map[contextkit.TenantID]*tenantSlots{},
		running: prometheus.NewDesc(
			config.Metric,
			"Concurrent "+config.What+" for clients, by state: running or waiting.",
			[]string{"state"},
			nil,
		),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: config.Metric + "_refused_total",
			Help: "Calls that were refused because too many " + config.What + " were running.",
		}),
	}
}

// Describe implements [prometheus.Collector].
func (r *Limiter) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- r.running
	r.refused.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (r *Limiter) Collect(metrics chan<- prometheus.Metric) {
	r.mu.Lock()
	waiting := r.waiting
	r.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(r.running, prometheus.GaugeValue, float64(len(r.node)), "running")
	metrics <- prometheus.MustNewConstMetric(r.running, prometheus.GaugeValue, float64(waiting), "waiting")
	r.refused.Collect(metrics)
}

// Enter begins a read for a tenant, zero for the platform, which ends when leave is called. Errors: RESOURCE_EXHAUSTED,
// and ctx's.
func (r *Limiter) Enter(ctx context.Context, tenant contextkit.TenantID) (leave func(), err error) {
	r.mu.Lock()
	entry := r.tenants[tenant]
	if entry == nil {
		entry = &tenantSlots{slots: make(chan struct{}, tenantReads)}
		r.tenants[tenant] = entry
	}
	if entry.users >= tenantReads+tenantWaiting {
		r.mu.Unlock()
		return nil, r.refuse()
	}
	entry.users++
	r.waiting++
	r.mu.Unlock()
	forget := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if entry.users--; entry.users == 0 {
			delete(r.tenants, tenant)
		}
	}
	waiting, cancel := context.WithTimeout(ctx, readsWait)
	defer cancel()
	for n, slots := range []chan struct{}{entry.slots, r.node} {
		select {
		case slots <- struct{}{}:
			continue
		case <-waiting.Done():
		}
		if n > 0 {
			<-entry.slots
		}
		r.waited()
		forget()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, r.refuse()
	}
	r.waited()
	return func() {
		<-r.node
		<-entry.slots
		forget()
	}, nil
}

// waited ends the wait of a read.
func (r *Limiter) waited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

func (r *Limiter) refuse() error {
	r.refused.Inc()
	return rpc.WithDetails(
		connect.NewError(connect.CodeResourceExhausted,
			"too many "+r.config.What+" for the tenant, or at the node: retry later"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(readAgain)},
		rpc.Reason(r.config.Reason),
	)
}
