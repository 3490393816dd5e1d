package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/tail"
)

const (
	// maxSubscriptions bounds the subscriptions of a tenant, and maxAllSubscriptions those of a node.
	maxSubscriptions, maxAllSubscriptions = 64, 2048
	// linger is how long the tail runs, and reads a tenant's events, after the last subscription.
	linger = 30 * time.Second
	// maxFiltered bounds the tenants whose events alone are read: for more, all events are.
	maxFiltered = 256
	// feedBytes bounds the events of all subscriptions that the tail holds.
	feedBytes = 32 << 20
)

// feed is the tail that the node's subscriptions share. It reads the tenants that have subscriptions, and nothing
// while there are none.
type feed struct {
	js      jetstream.JetStream
	journal *journal.Journal
	log     zerolog.Logger
	ended   *prometheus.CounterVec
	queued  *queued

	mu      sync.Mutex
	stopped chan struct{}   // closed when run ends
	ctx     context.Context //nolint:containedctx // of run; nil: it does not run
	tail    *tail.Tail      // nil: it does not run
	stop    context.CancelFunc
	running sync.WaitGroup
	counts  map[contextkit.TenantID]int // subscriptions by tenant; 0: there was one within linger
	total   int
}

var subscriptionsMetric = prometheus.NewDesc(
	"headgate_event_subscriptions",
	"Subscriptions of clients to tenants' events.",
	nil,
	nil,
)

var queuedMetric = prometheus.NewDesc(
	"headgate_event_subscription_bytes",
	"Bytes of events that wait for the clients of subscriptions.",
	nil,
	nil,
)

func newFeed(js jetstream.JetStream, journal *journal.Journal, queued *queued, log zerolog.Logger) *feed {
	return &feed{
		queued:  queued,
		js:      js,
		journal: journal,
		log:     log,
		stopped: make(chan struct{}),
		counts:  map[contextkit.TenantID]int{},
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_event_subscriptions_ended_total",
			Help: "Subscriptions of clients to tenants' events that have ended, by reason: client, slow, refused, " +
				"moved, or journal.",
		}, []string{"reason"}),
	}
}

func (f *feed) describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- subscriptionsMetric
	descriptions <- queuedMetric
	f.ended.Describe(descriptions)
	(*tail.Tail)(nil).Describe(descriptions)
}

func (f *feed) collect(metrics chan<- prometheus.Metric) {
	f.mu.Lock()
	current, total := f.tail, f.total
	f.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(subscriptionsMetric, prometheus.GaugeValue, float64(total))
	metrics <- prometheus.MustNewConstMetric(queuedMetric, prometheus.GaugeValue, float64(f.queued.bytes()))
	f.ended.Collect(metrics)
	if current != nil {
		current.Collect(metrics)
	}
}

// run serves subscriptions until ctx ends.
func (f *feed) run(ctx context.Context) error {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	ticker := time.NewTicker(linger)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			close(f.stopped)
			f.mu.Lock()
			f.ctx = nil
			f.end()
			f.mu.Unlock()
			f.running.Wait()
			return nil
		case <-ticker.C:
			f.mu.Lock()
			f.sweep()
			f.mu.Unlock()
		}
	}
}

// sweep forgets tenants without subscriptions, and ends the tail if there are none. f.mu is held.
func (f *feed) sweep() {
	changed := false
	for tenant, count := range f.counts {
		if count == 0 {
			delete(f.counts, tenant)
			changed = true
		}
	}
	switch {
	case len(f.counts) == 0:
		f.end()
	case changed:
		f.tail.SetSubjects(f.subjects())
	}
}

// end ends the tail. f.mu is held.
func (f *feed) end() {
	if f.tail != nil {
		f.stop()
		f.tail = nil
	}
}

// subjects returns what the tail reads. f.mu is held.
func (f *feed) subjects() []string {
	if len(f.counts) > maxFiltered {
		return nil
	}
	subjects := make([]string, 0, len(f.counts))
	for tenant := range f.counts {
		subjects = append(subjects, streams.TenantEvents(tenant))
	}
	return subjects
}

// subscribe begins to deliver a tenant's events to a handler, until leave is called. Errors: errStopping, errMany,
// errManyAll.
func (f *feed) subscribe(
	tenant contextkit.TenantID,
	handler tail.Handler,
	options tail.Options,
) (s *tail.Subscription, leave func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	count, known := f.counts[tenant]
	switch {
	case f.ctx == nil:
		return nil, nil, errStopping
	case count >= maxSubscriptions:
		return nil, nil, errMany
	case f.total >= maxAllSubscriptions:
		return nil, nil, errManyAll
	}
	f.counts[tenant]++
	f.total++
	if f.tail == nil {
		f.start()
	} else if !known {
		f.tail.SetSubjects(f.subjects())
	}
	s = f.tail.Subscribe(tenant, handler, options)
	s.Hasten()
	return s, func() {
		s.Stop()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.counts[tenant]--
		f.total--
	}, nil
}

// start starts the tail. f.mu is held.
func (f *feed) start() {
	f.tail = tail.New(f.js, f.journal, tail.Config{
		Name:        "events",
		Subjects:    f.subjects(),
		QueueEvents: queuedEvents,
		QueueBytes:  queuedBytes,
		TotalBytes:  feedBytes,
		Log:         f.log,
	})
	ctx, cancel := context.WithCancel(f.ctx)
	current := f.tail
	f.stop = cancel
	f.running.Go(func() {
		if err := current.Run(ctx); err != nil {
			f.log.Error().Err(err).Msg("reading events for subscriptions has ended")
		}
	})
}

// endReason is why a subscription has ended, in metrics.
type endReason string

const (
	endedByClient  endReason = "client"  // the client has left
	endedSlow      endReason = "slow"    // the client does not keep up
	endedRefused   endReason = "refused" // it exceeds a bound, or its request is invalid
	endedMoved     endReason = "moved"   // the node no longer serves the tenant, or stops
	endedByJournal endReason = "journal" // the journal is unavailable, or was replaced
)

// count counts a subscription that has ended.
func (f *feed) count(ctx context.Context, err error) {
	reason := endedByJournal
	switch {
	case errors.Is(err, rpc.ErrUnread):
		reason = endedSlow
	case ctx.Err() != nil:
		reason = endedByClient
	case errors.Is(err, errMany), errors.Is(err, errManyAll), connect.CodeOf(err) == connect.CodeInvalidArgument:
		reason = endedRefused
	case errors.Is(err, errMoved), errors.Is(err, errStopping):
		reason = endedMoved
	}
	f.ended.WithLabelValues(string(reason)).Inc()
}
