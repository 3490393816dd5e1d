package gateway

import (
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
)

// counters are the counters that the pipeline increments.
type counters struct {
	limited, retried, denied, streams *prometheus.CounterVec
	delayed                           prometheus.Counter
	// limitedTenants counts the calls that the tenants' own limits rejected.
	limitedTenants limit.Top
}

func newCounters(metrics prometheus.Registerer) *counters {
	c := &counters{
		limited: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: "headgate_limited_total",
				Help: "Calls rejected by a limit, by reason and by the limit's scope: tenant, principal or address.",
			},
			[]string{"reason", "scope"},
		),
		delayed: prometheus.NewCounter(
			prometheus.CounterOpts{
				Name: "headgate_rejections_delayed_total",
				Help: "Rejections whose answer was delayed because their caller's rate of rejected calls is too high.",
			},
		),
		retried: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: "headgate_upstream_retries_total",
				Help: "Retries of upstream calls: sent, denied by a retry budget, or refused by the node.",
			},
			[]string{"outcome"},
		),
		streams: prometheus.NewCounterVec(
			prometheus.CounterOpts{
				Name: "headgate_streams_ended_total",
				Help: "Upstream streams that have ended, by reason. completed and client: the node or the client " +
					"ended it; credential: the credential expired or was revoked; suspended: the tenant was " +
					"suspended; exhausted: a bound was reached; unread: the client did not read within write_timeout; " +
					"node: the node was lost or answered UNAVAILABLE; deadline; error: any other.",
			},
			[]string{"reason"},
		),
		denied: prometheus.NewCounterVec(
			prometheus.CounterOpts{Name: "headgate_denied_total", Help: "Calls denied, by reason."}, []string{"reason"},
		),
	}
	for _, reason := range denialReasons {
		c.denied.WithLabelValues(reason.String())
	}
	for _, outcome := range retryOutcomes {
		c.retried.WithLabelValues(string(outcome))
	}
	for _, end := range streamEnds {
		c.streams.WithLabelValues(string(end))
	}
	c.limited.WithLabelValues(ReasonRate.String(), scopeTenant.String())
	for _, payer := range []budgetScope{scopeTenant, scopePrincipal, scopeAddress} {
		for _, reason := range limitReasons {
			c.limited.WithLabelValues(reason.String(), payer.String())
		}
	}
	metrics.MustRegister(c.limited, c.delayed, c.retried, c.denied, c.streams)
	return c
}

// shownTenants bounds the tenants that have their own series.
const shownTenants = 10

// Values of the counters' labels. Their series exist from the start, at 0: rate() does not see the
// first event of a series that begins with it.
var (
	limitReasons  = []Reason{ReasonConcurrency, ReasonStreams, ReasonBytes, ReasonFull} // in all scopes
	retryOutcomes = []retryOutcome{retrySent, retryOverBudget, retryRefusedByNode}
	streamEnds    = []streamEnd{
		endCompleted,
		endClient,
		endCredential,
		endSuspended,
		endExhausted,
		endUnread,
		endNode,
		endDeadline,
		endError,
	}
)

// retryOutcome is the decision on the retry of an upstream call.
type retryOutcome string

// Outcomes of retries.
const (
	retrySent          retryOutcome = "sent"
	retryOverBudget    retryOutcome = "over_budget"     // a retry budget is used up
	retryRefusedByNode retryOutcome = "refused_by_node" // the node forbids retries (gRFC A6 pushback)
)

// streamEnd is the reason of a stream's end.
type streamEnd string

// Reasons of the ends of streams.
const (
	endCompleted  streamEnd = "completed"
	endClient     streamEnd = "client"
	endCredential streamEnd = "credential"
	endSuspended  streamEnd = "suspended"
	endExhausted  streamEnd = "exhausted"
	endUnread     streamEnd = "unread"
	endNode       streamEnd = "node"
	endDeadline   streamEnd = "deadline"
	endError      streamEnd = "error"
)

// streamEnd returns the reason that a stream has ended with err.
func (c *Call) streamEnd(err error) streamEnd {
	switch {
	case c.denied.isCredential():
		return endCredential
	case c.denied == ReasonTenantSuspended:
		return endSuspended
	case errors.Is(err, rpc.ErrUnread):
		return endUnread
	}
	switch rpc.CodeName(err) {
	case "ok":
		return endCompleted
	case connect.CodeCanceled.String():
		return endClient
	case connect.CodeDeadlineExceeded.String():
		return endDeadline
	case connect.CodeResourceExhausted.String():
		return endExhausted
	case connect.CodeUnavailable.String():
		return endNode
	}
	return endError
}

// collector collects the gauges of the gateway's parts.
type collector struct{ *Gateway }

var (
	describe = func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	callsInFlight   = describe("headgate_in_flight", "Calls in flight.")
	streamsInFlight = describe("headgate_streams_in_flight", "Server streams in flight.")
	refusalsDelayed = describe("headgate_rejections_delayed", "Rejections whose answer is being delayed.")
	callsShed       = describe("headgate_shed_total",
		"Calls rejected because the gateway's shared capacity was nearly used up, by priority.", "priority")
	messageBytes   = describe("headgate_message_bytes", "Bytes of messages in memory.")
	budgetsTracked = describe("headgate_budgets", "Callers with their own budget, by scope.", "scope")
	budgetsFull    = describe("headgate_budgets_overflow_total",
		"Calls charged to a shared budget because too many callers are tracked, by scope.", "scope")
	poolChannels = describe("headgate_upstream_channels", "Open channels to nodes.")
	poolCalls    = describe("headgate_upstream_in_flight", "Upstream calls in flight.")
	poolMade     = describe("headgate_upstream_channels_made_total", "Channels opened.")
	poolEvicted  = describe("headgate_upstream_channels_evicted_total",
		"Channels evicted: idle, or least recently used.")
	breakerOpen = describe("headgate_breaker_open", "1 while the node's circuit breaker is open for all tenants.",
		"kind", "endpoint")
	methodOpen = describe("headgate_method_breaker_open",
		"1 while the circuit breaker of the node's method is open for all tenants.", "kind", "endpoint", "procedure")
	singleOpen = describe("headgate_single_tenant_breakers_open",
		"Open circuit breakers that reject the calls of one tenant only.")
	breakerLatency = describe("headgate_upstream_latency_seconds", "Moving average of the node's response time.",
		"kind", "endpoint")
	nodeReady = describe(
		"headgate_node_ready",
		"1 while the node is ready; 0 while it is not ready, or lost: its announcements stopped without a shutdown "+
			"and it does not answer.",
		"kind", "node",
	)
	kindDegraded = describe("headgate_kind_degraded",
		"1 while no node of the kind is ready, so that its methods are rejected.", "kind")
	tenantLimited = describe(
		"headgate_tenant_limited",
		"Calls of the tenant rejected by its own limits in the last 30 to 60 seconds, for the ten tenants with the "+
			"most.",
		"tenant",
	)
	routingEpoch     = describe("headgate_routing_epoch", "Change counter of the routing table.")
	probesMade       = describe("headgate_probes_total", "Probes sent to nodes.")
	everyDescription = []*prometheus.Desc{
		callsInFlight, streamsInFlight, refusalsDelayed, callsShed, messageBytes, budgetsTracked, budgetsFull,
		poolChannels, poolCalls, poolMade, poolEvicted,
		breakerOpen, methodOpen, singleOpen, breakerLatency, nodeReady, kindDegraded, tenantLimited, routingEpoch,
		probesMade,
	}
)

// Describe implements [prometheus.Collector].
func (c collector) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range everyDescription {
		descriptions <- d
	}
}

// Collect implements [prometheus.Collector]. The number of series is bounded by the nodes and
// their called methods.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	counter := func(d *prometheus.Desc, value int64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(value), labels...)
	}
	calls, streams := c.shared.Calls(), c.shared.Streams()
	gauge(callsInFlight, float64(calls.Used()))
	gauge(streamsInFlight, float64(streams.Used()))
	gauge(messageBytes, float64(c.shared.Bytes().Used()))
	gauge(refusalsDelayed, float64(c.shared.Delayed()))
	tracked := func(scope budgetScope, budgets int, overflow int64) {
		gauge(budgetsTracked, float64(budgets), scope.String())
		counter(budgetsFull, overflow, scope.String())
	}
	tracked(scopeTenant, c.tenants.Tracked(), c.tenants.Overflowed())
	tracked(scopePrincipal, c.principals.Tracked(), c.principals.Overflowed())
	tracked(scopeAddress, c.addresses.Tracked(), c.addresses.Overflowed())
	for _, priority := range []limit.Priority{limit.Low, limit.Normal, limit.High} {
		counter(callsShed, calls.Shed(priority)+streams.Shed(priority)+c.shared.Bytes().Shed(priority),
			priority.String())
	}
	pool := c.pool.Stats()
	gauge(poolChannels, float64(pool.Channels))
	gauge(poolCalls, float64(pool.Calls))
	counter(poolMade, pool.Made)
	counter(poolEvicted, pool.Evicted)
	single := 0
	for _, state := range c.breakerStates() {
		if state.Open && state.Single {
			single++
		}
		open := boolGauge(state.Open && !state.Single)
		if state.Procedure != "" {
			gauge(methodOpen, open, state.Kind.String(), state.Endpoint, state.Procedure)
			continue
		}
		gauge(breakerOpen, open, state.Kind.String(), state.Endpoint)
		gauge(breakerLatency, state.Latency.Seconds(), state.Kind.String(), state.Endpoint)
	}
	gauge(singleOpen, float64(single))
	for _, node := range c.routes.Nodes() {
		gauge(nodeReady, boolGauge(node.Ready), node.Kind.String(), node.ID)
	}
	for _, node := range c.routes.Lost() {
		gauge(nodeReady, 0, node.Kind.String(), node.ID)
	}
	for _, kind := range c.table.Load().Upstreams() {
		gauge(kindDegraded, boolGauge(len(c.routes.Ready(kind)) == 0), kind.String())
	}
	for _, top := range c.counters.limitedTenants.Most(shownTenants, time.Now()) {
		gauge(tenantLimited, float64(top.Count), top.Tenant.String())
	}
	gauge(routingEpoch, float64(c.routes.Epoch()))
	counter(probesMade, c.prober.Probes())
}

func boolGauge(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
