package events

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

// reads bounds the reads of the journal. A read waits for one of its tenant before it waits for one of another tenant,
// so that a tenant occupies at most its own share of the queue for the node.
type reads struct {
	node    chan struct{} // holds a value for each running read
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

var readsMetric = prometheus.NewDesc(
	"headgate_event_reads",
	"Reads of the journal for clients, by state: running or waiting.",
	[]string{"state"},
	nil,
)

func newReads() *reads {
	return &reads{
		node:    make(chan struct{}, nodeReads),
		tenants: map[contextkit.TenantID]*tenantSlots{},
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "headgate_event_reads_refused_total",
			Help: "Reads of the journal for clients that were refused because too many were running.",
		}),
	}
}

func (r *reads) describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- readsMetric
	r.refused.Describe(descriptions)
}

func (r *reads) collect(metrics chan<- prometheus.Metric) {
	r.mu.Lock()
	waiting := r.waiting
	r.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(readsMetric, prometheus.GaugeValue, float64(len(r.node)), "running")
	metrics <- prometheus.MustNewConstMetric(readsMetric, prometheus.GaugeValue, float64(waiting), "waiting")
	r.refused.Collect(metrics)
}

// enter begins a read, which ends when leave is called. Errors: RESOURCE_EXHAUSTED, and ctx's.
func (r *reads) enter(ctx context.Context, tenant contextkit.TenantID) (leave func(), err error) {
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
func (r *reads) waited() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
}

func (r *reads) refuse() error {
	r.refused.Inc()
	return rpc.WithDetails(
		connect.NewError(connect.CodeResourceExhausted, "too many reads of the tenant's journal: retry later"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(readAgain)},
		rpc.Reason(rpc.ReasonTooManyEventReads),
	)
}
