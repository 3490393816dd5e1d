package rpc

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/internal/backoff"
)

// Bounds of the streams of Health/Watch, which need no credential.
const (
	// maxWatches bounds the streams of a process, and maxAddressWatches those of one client
	// address (IPv6: of a /64 prefix).
	maxWatches, maxAddressWatches = 1024, 64
	// watchLife is the longest life of a stream; the shortest is a tenth less. Its client then
	// calls again; otherwise its place is released.
	watchLife = 30 * time.Minute
	// watchRequestWithin is how long a stream's request may take to arrive.
	watchRequestWithin = 10 * time.Second
)

// watches bounds the streams of Health/Watch of a process, on all of its ports.
type watches struct {
	total, perAddress int
	life              time.Duration
	refused           *prometheus.CounterVec

	mu        sync.Mutex
	open      int
	byAddress map[netip.Addr]int
}

// watchBound is a bound of health watches, in metrics and errors.
type watchBound string

const (
	watchBoundTotal   watchBound = "total"   // of the process
	watchBoundAddress watchBound = "address" // of the client's address
)

func newWatches(metrics prometheus.Registerer) *watches {
	w := &watches{
		total:      maxWatches,
		perAddress: maxAddressWatches,
		life:       watchLife,
		byAddress:  map[netip.Addr]int{},
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_health_watches_refused_total",
			Help: "Calls of grpc.health.v1.Health/Watch that were refused because too many were open, by bound: of " +
				"the process (total) or of the client's address.",
		}, []string{"bound"}),
	}
	w.refused.WithLabelValues(string(watchBoundTotal))
	w.refused.WithLabelValues(string(watchBoundAddress))
	metrics.MustRegister(w.refused, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "headgate_health_watches",
		Help: "Streams of grpc.health.v1.Health/Watch that are open.",
	}, func() float64 {
		w.mu.Lock()
		defer w.mu.Unlock()
		return float64(w.open)
	}))
	return w
}

// enter counts a watch of a client's address until leave is called. It returns
// RESOURCE_EXHAUSTED if the address, or the process, has too many.
func (w *watches) enter(address netip.Addr) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var bound watchBound
	switch {
	case w.byAddress[address] >= w.perAddress:
		bound = watchBoundAddress
	case w.open >= w.total:
		bound = watchBoundTotal
	}
	if bound != "" {
		w.refused.WithLabelValues(string(bound)).Inc()
		return nil, WithDetails(
			connect.NewError(connect.CodeResourceExhausted,
				"too many health watches are open: close some, or call Check"),
			Reason(ReasonTooManyWatches, "bound", string(bound)),
		)
	}
	w.open++
	w.byAddress[address]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open--
		if w.byAddress[address]--; w.byAddress[address] == 0 {
			delete(w.byAddress, address)
		}
	}, nil
}

// lasts returns how long a watch that begins now may last, with jitter, so that watches do not
// end together.
func (w *watches) lasts() time.Duration {
	return backoff.Less(w.life, 0.1)
}

var errWatchEnds = connect.NewError(connect.CodeUnavailable, "the watch has reached its longest time: call again")

// grpcTime returns how long a call of the procedure may take on a port for gRPC alone, even if
// its message never arrives; 0: no bound.
func (w *watches) grpcTime(procedure string, others time.Duration) time.Duration {
	if procedure == healthv1.Health_Watch_FullMethodName {
		return w.life + watchRequestWithin
	}
	return others
}

// clientNetwork returns the address of the call's client, see [Client].
func clientNetwork(ctx context.Context) netip.Addr {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	return Client(info)
}
