package gateway

import (
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/prometheus/client_golang/prometheus"
)

// counters are what the pipeline counts as it goes.
type counters struct {
	limited, retried, denied, streams *prometheus.CounterVec
	held                              prometheus.Counter
	// limitedTenants counts the refusals by a tenant's own limit.
	limitedTenants limit.Top
}

func newCounters(metrics prometheus.Registerer) *counters {
	c := &counters{
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_limited_total", Help: "Calls refused by a limit, by reason and by the limit's scope: tenant, principal or address."}, []string{"reason", "scope"}),
		held:    prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_refusals_held_total", Help: "Refusals that were delayed because their caller's come too fast."}),
		retried: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_upstream_retries_total", Help: "Further attempts at a node, and those that a budget forbade."}, []string{"outcome"}),
		streams: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_streams_ended_total", Help: "Streams that were sent to a node and have ended, by reason. completed and client: either side ended it; credential, suspended: what admitted it ended; exhausted: a bound, such as for a client that does not read; node: the node was lost or ended it as UNAVAILABLE; deadline; error: any other."}, []string{"reason"}),
		denied:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "headgate_denied_total", Help: "Calls denied, by rule."}, []string{"rule"}),
	}
	for _, rule := range denialRules {
		c.denied.WithLabelValues(rule.String())
	}
	for counter, values := range map[*prometheus.CounterVec][]string{c.retried: retryOutcomes, c.streams: streamEnds} {
		for _, value := range values {
			counter.WithLabelValues(value)
		}
	}
	c.limited.WithLabelValues(reasonRate, payerTenant.String())
	for _, payer := range []payer{payerTenant, payerPrincipal, payerAddress} {
		for _, reason := range limitReasons {
			c.limited.WithLabelValues(reason, payer.String())
		}
	}
	metrics.MustRegister(c.limited, c.held, c.retried, c.denied, c.streams)
	return c
}

// shownTenants bounds the tenants with series of their own.
const shownTenants = 10

// The values of the counters' labels. Their series exist from the start, at 0: a rate over a
// series that begins with its first event would not show that event.
var (
	limitReasons  = []string{reasonConcurrency, reasonStreams, reasonBytes, reasonFull} // of every payer
	retryOutcomes = []string{"sent", "forbidden", "refused by the node"}
)

// Reasons of a stream's end.
const (
	endCompleted  = "completed"
	endClient     = "client"
	endCredential = "credential"
	endSuspended  = "suspended"
	endExhausted  = "exhausted"
	endNode       = "node"
	endDeadline   = "deadline"
	endError      = "error"
)

var streamEnds = []string{endCompleted, endClient, endCredential, endSuspended, endExhausted, endNode, endDeadline, endError}

// streamEnd returns the reason that a stream has ended with err.
func (c *Call) streamEnd(err error) string {
	switch c.denied {
	case ruleCredential:
		return endCredential
	case ruleSuspended:
		return endSuspended
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

// collector shows the state of the parts when it is asked for.
type collector struct{ *Gateway }

var (
	describe = func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	roomInFlight     = describe("headgate_in_flight", "Calls in the gateway now.")
	streamsInFlight  = describe("headgate_streams_in_flight", "Streams of answers in the gateway now.")
	refusalsHeld     = describe("headgate_refusals_held", "Refusals that are held back now.")
	roomShed         = describe("headgate_shed_total", "Calls refused because the gateway was nearly full, by priority.", "priority")
	messageBytes     = describe("headgate_message_bytes", "Bytes of messages in memory now.")
	budgetsTracked   = describe("headgate_budgets", "Callers with a budget of their own, by kind.", "scope")
	budgetsFull      = describe("headgate_budgets_overflow_total", "Calls of callers that had to share a budget because too many are tracked.", "scope")
	poolChannels     = describe("headgate_upstream_channels", "Channels to nodes that are kept.")
	poolCalls        = describe("headgate_upstream_in_flight", "Calls on the channels now.")
	poolMade         = describe("headgate_upstream_channels_made_total", "Channels made.")
	poolEvicted      = describe("headgate_upstream_channels_evicted_total", "Channels given up: idle, or least recently used.")
	breakerOpen      = describe("headgate_breaker_open", "1 while the calls of all tenants are diverted from the node.", "kind", "endpoint")
	methodOpen       = describe("headgate_method_breaker_open", "1 while all tenants' calls of the method are diverted from the node.", "kind", "endpoint", "procedure")
	singleOpen       = describe("headgate_single_tenant_breakers_open", "Breakers that refuse the calls of one tenant alone.")
	breakerLatency   = describe("headgate_upstream_latency_seconds", "Moving mean of the node's time to an answer.", "kind", "endpoint")
	nodeReady        = describe("headgate_node_ready", "1 while the node takes calls; 0 while it is lost, too: it fell silent without a goodbye and does not answer.", "kind", "node")
	kindDegraded     = describe("headgate_kind_degraded", "1 while no node of the kind takes calls, so that its methods are refused.", "kind")
	tenantLimited    = describe("headgate_tenant_limited", "Calls of the tenant that its own limits refused in the last half to one minute, of the ten tenants with most.", "tenant")
	routingRevision  = describe("headgate_routing_revision", "Changes of the routing table.")
	probesMade       = describe("headgate_probes_total", "Nodes asked whether they take calls.")
	everyDescription = []*prometheus.Desc{
		roomInFlight, streamsInFlight, refusalsHeld, roomShed, messageBytes, budgetsTracked, budgetsFull, poolChannels, poolCalls, poolMade, poolEvicted,
		breakerOpen, methodOpen, singleOpen, breakerLatency, nodeReady, kindDegraded, tenantLimited, routingRevision, probesMade,
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
	gauge(roomInFlight, float64(calls.Used()))
	gauge(streamsInFlight, float64(streams.Used()))
	gauge(messageBytes, float64(c.shared.Bytes().Used()))
	gauge(refusalsHeld, float64(c.shared.Held()))
	tracked := func(scope payer, budgets int, overflow int64) {
		gauge(budgetsTracked, float64(budgets), scope.String())
		counter(budgetsFull, overflow, scope.String())
	}
	tracked(payerTenant, c.tenants.Tracked(), c.tenants.Overflowed())
	tracked(payerPrincipal, c.principals.Tracked(), c.principals.Overflowed())
	tracked(payerAddress, c.addresses.Tracked(), c.addresses.Overflowed())
	for _, priority := range []limit.Priority{limit.Low, limit.Normal, limit.High} {
		counter(roomShed, calls.Shed(priority)+streams.Shed(priority)+c.shared.Bytes().Shed(priority), priority.String())
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
		open := number(state.Open && !state.Single)
		if state.Procedure != "" {
			gauge(methodOpen, open, state.Kind, state.Endpoint, state.Procedure)
			continue
		}
		gauge(breakerOpen, open, state.Kind, state.Endpoint)
		gauge(breakerLatency, state.Latency.Seconds(), state.Kind, state.Endpoint)
	}
	gauge(singleOpen, float64(single))
	for _, node := range c.routes.Nodes() {
		gauge(nodeReady, number(node.Ready), node.Kind, node.ID)
	}
	for _, node := range c.routes.Lost() {
		gauge(nodeReady, 0, node.Kind, node.ID)
	}
	for _, kind := range c.table.Load().Upstreams() {
		gauge(kindDegraded, number(len(c.routes.Ready(kind)) == 0), kind)
	}
	for _, top := range c.counters.limitedTenants.Most(shownTenants, time.Now()) {
		gauge(tenantLimited, float64(top.Count), top.Tenant.String())
	}
	gauge(routingRevision, float64(c.routes.Revision()))
	counter(probesMade, c.prober.Probes())
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
