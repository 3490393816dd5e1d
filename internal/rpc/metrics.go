package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/flood"
)

// Metrics is a process's registry with the rate, errors and duration (RED) of its calls.
type Metrics struct {
	registry *prometheus.Registry
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
	floods   *prometheus.CounterVec
	accepts  prometheus.Counter // that failed
	unread   *prometheus.CounterVec
	panics   prometheus.Counter
	window   window
	// counted is called for each call that counts as the process's load; nil: it is not.
	counted func(ended time.Time, took time.Duration, stream, failed bool)
}

// Ports of a process, in metrics.
const (
	portMain = "main"
	portGRPC = "grpc"
)

// NewMetrics returns a registry whose series all have the process's name as a label.
func NewMetrics(process string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "headgate_rpc_duration_seconds",
			Help:    "Time from a call's headers to its end, by procedure, protocol and code.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"procedure", "protocol", "code"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "headgate_rpc_in_flight",
			Help: "Calls being answered now, by procedure.",
		}, []string{"procedure"}),
		floods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_flood_connections_total",
			Help: "HTTP/2 connections closed because their clients sent too many frames without effect, by the " +
				"frames' type; HEADERS: their address had too many calls whose responses were not sent completely.",
		}, []string{"frame"}),
	}
	m.unread = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "headgate_unread_answers_total",
		Help: "Answers, and streams of answers, that were ended because their clients did not read them within " +
			"write_timeout, by port: main, or grpc for the port for gRPC alone.",
	}, []string{"port"})
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_panics_total",
		Help: "Calls and requests whose handler panicked: a bug; the log has the stack.",
	})
	m.unread.WithLabelValues(portMain)
	m.unread.WithLabelValues(portGRPC)
	m.accepts = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_accept_failures_total",
		Help: "Attempts to accept a connection that failed because the process, or the system, had too many " +
			"open files.",
	})
	for _, kind := range flood.Kinds() {
		m.floods.WithLabelValues(string(kind)) // the series exists from the start, at 0
	}
	m.Registerer(process).MustRegister(m.duration, m.inFlight, m.floods, m.accepts, m.unread, m.panics,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Count calls counted for each call that ends and counts as the process's load, concurrently. It must not block. It is
// called before the process serves.
func (m *Metrics) Count(counted func(ended time.Time, took time.Duration, stream, failed bool)) {
	m.counted = counted
}

// Registerer registers further collectors of the process.
func (m *Metrics) Registerer(process string) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"process": process}, m.registry)
}

// Calls counts and times the calls of one procedure. Its series are cached since finding
// one by its labels costs as much as counting.
type Calls struct {
	metrics   *Metrics
	procedure string
	load      bool // they count as the process's load
	inFlight  prometheus.Gauge
	outcomes  atomic.Pointer[[]outcome] // outcomes so far: at most one per protocol and code
}

// outcome is a series of calls that ended in one way.
type outcome struct {
	protocol, code string
	duration       prometheus.Observer
}

// Calls returns the counters of a procedure.
func (m *Metrics) Calls(procedure string) *Calls {
	return &Calls{
		metrics:   m,
		procedure: procedure,
		load:      counts(procedure),
		inFlight:  m.inFlight.WithLabelValues(procedure),
	}
}

// Begin counts a call that begins. End is called once when it has ended.
func (c *Calls) Begin() {
	c.inFlight.Inc()
	c.metrics.window.inFlight.Add(1)
}

// End counts a call that has ended, with its trace id as the exemplar. If Took is 0, the duration
// is the time since Started.
func (c *Calls) End(ended *Outcome, kind connect.StreamType, trace contextkit.TraceID) {
	if ended.Took == 0 {
		ended.Took = time.Since(ended.Started)
	}
	c.metrics.window.inFlight.Add(-1)
	c.inFlight.Dec()
	if c.load {
		at, stream, failed := ended.Started.Add(ended.Took), kind != connect.StreamTypeUnary, ended.OwnFault()
		c.metrics.window.observe(at, ended.Took, stream, failed)
		if c.metrics.counted != nil {
			c.metrics.counted(at, ended.Took, stream, failed)
		}
	}
	observe(c.outcome(ended.Protocol, CodeName(ended.Err)), ended.Took, trace)
}

// outcome returns the series of calls with the outcome.
func (c *Calls) outcome(protocol, code string) prometheus.Observer {
	seen := c.outcomes.Load()
	if seen != nil {
		for _, one := range *seen {
			if one.protocol == protocol && one.code == code {
				return one.duration
			}
		}
	}
	found := c.metrics.duration.WithLabelValues(c.procedure, protocol, code)
	next := []outcome{{protocol, code, found}}
	if seen != nil {
		next = append(next, *seen...)
	}
	c.outcomes.CompareAndSwap(seen, &next) // a concurrent addition may be lost, and is repeated
	return found
}

// Observe measures every call and writes one log line per call at level, or at error level when the
// call failed by the process's own fault.
func (m *Metrics) Observe(log zerolog.Logger, level zerolog.Level) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		var known atomic.Pointer[Calls] // a handler has one procedure, except the one for unknown procedures
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			calls := known.Load()
			if calls == nil || calls.procedure != spec.Procedure {
				calls = m.Calls(spec.Procedure)
				known.Store(calls)
			}
			info, _ := connect.CallInfoForServerContext(ctx)
			rc := contextkit.In(ctx)
			ended := Outcome{
				Procedure: spec.Procedure,
				Protocol:  info.Protocol,
				Started:   rc.Began(),
				Err:       ErrUnfinished,
			}
			calls.Begin()
			defer func() {
				ended.Took = time.Since(ended.Started)
				calls.End(&ended, spec.StreamType, rc.TraceID)
				if event := log.WithLevel(LineLevel(level, ended.Err)); event.Enabled() {
					if principal := contextkit.Principal(info.RequestHeader()); principal != "" {
						event = event.Str("principal", principal)
					}
					Took(
						Identify(event, rc), ended.Took,
					).Str("procedure", spec.Procedure).Str("protocol", info.Protocol).Str("codec", info.Codec).
						Str("code", CodeName(ended.Err)).AnErr("error", ended.Err).AnErr("cause",
						errors.Unwrap(ended.Err)).Msg("call")
				}
			}()
			ended.Err = next(ctx, spec, stream)
			return ended.Err
		}
	}
}

// exemplarFrom is the duration from which a call gets an exemplar, by which operators find the
// trace of a slow call.
const exemplarFrom = 50 * time.Millisecond

func observe(observer prometheus.Observer, elapsed time.Duration, trace contextkit.TraceID) {
	if elapsed >= exemplarFrom && trace != (contextkit.TraceID{}) {
		observer.(prometheus.ExemplarObserver).ObserveWithExemplar(elapsed.Seconds(),
			prometheus.Labels{"trace_id": trace.String()})
		return
	}
	observer.Observe(elapsed.Seconds())
}

// LineLevel is the level of a call's log line: the given one, or error when the call failed by the
// process's own fault.
func LineLevel(level zerolog.Level, err error) zerolog.Level {
	if err == nil {
		return level
	}
	switch connect.CodeOf(err) {
	case connect.CodeInternal, connect.CodeDataLoss, connect.CodeUnknown:
		if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return zerolog.ErrorLevel
		}
	}
	return level
}

// ownFault reports whether the process, or an upstream of it, is the cause of a call's failure.
func ownFault(err error) bool {
	return err != nil &&
		(LineLevel(zerolog.Disabled, err) == zerolog.ErrorLevel || connect.CodeOf(err) == connect.CodeUnavailable ||
			connect.CodeOf(err) == connect.CodeDeadlineExceeded)
}
