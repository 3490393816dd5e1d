package natshealth

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// monitorEvery is the interval between checks of JetStream, and monitorTimeout bounds a check.
	monitorEvery   = 2 * time.Second
	monitorTimeout = 2 * time.Second
	// monitorSilences is the number of consecutive checks without an answer after which JetStream counts as
	// unavailable. An answer with this error counts immediately.
	monitorSilences = 2

	// leaveAfter is the time without an answer of JetStream after which a process connects to another server although
	// its server is reachable: the server may be isolated from the others, which elect another leader within ten
	// seconds. While JetStream answers at no server, the time doubles up to leaveAtMost.
	leaveAfter  = 10 * time.Second
	leaveAtMost = 80 * time.Second

	// faultQuiet is the time without an occurrence after which an error of the client is logged again, and maxFaults
	// bounds the errors that are stored for this.
	faultQuiet = time.Minute
	maxFaults  = 64
)

// OutageCause names what is unavailable during an [Outage]; "": nothing. It contains no address, since clients receive
// it.
type OutageCause string

// Causes of outages.
const (
	NATSUnreachable   OutageCause = "NATS is not reachable"
	JetStreamIsSilent OutageCause = "JetStream does not answer"
)

// Outage is a period without NATS or without JetStream. The state that a process has received from them is that of
// Since.
type Outage struct {
	// Since is when JetStream last answered.
	Since time.Time
	// Cause names what is unavailable. The reason is logged.
	Cause OutageCause
}

// String returns the cause and the age.
func (o Outage) String() string {
	return fmt.Sprintf("%s; JetStream answered last %s ago", o.Cause, time.Since(o.Since).Round(time.Second))
}

// Monitor checks whether this process reaches NATS, and whether JetStream answers for the journal. It logs each change
// once, at level warn, with the cause and the time of the next attempt. Its methods may be called concurrently; Run
// must be called once. It is a [prometheus.Collector] of series without labels of tenants.
type Monitor struct {
	js  jetstream.JetStream
	log zerolog.Logger

	mu       sync.Mutex
	answered time.Time   // when JetStream last answered
	cause    OutageCause // of the outage; "": none
	silences int
	left     time.Time            // when the process last left a server
	patience time.Duration        // time without an answer before it leaves the next server
	faults   map[string]time.Time // error of the client → when it last occurred
	refused  time.Time            // when NATS last refused the user a subject
	lastSeq  uint64               // the journal's last sequence, and its bytes, in the last answer
	bytes    uint64

	disconnects atomic.Int64
	errors      *prometheus.CounterVec
	again       chan struct{} // holds a value when JetStream must be checked immediately
}

// NewMonitor returns the monitor of a connection, and sets the connection's handlers of disconnects, reconnects and
// errors. The previous handler of errors is still called.
func NewMonitor(js jetstream.JetStream, log zerolog.Logger) *Monitor {
	m := &Monitor{
		js:       js,
		log:      log,
		answered: time.Now(),
		patience: leaveAfter,
		faults:   map[string]time.Time{},
		again:    make(chan struct{}, 1),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_nats_errors_total",
			Help: "Errors that the NATS client reported, by kind; slow_consumer: messages were dropped because they " +
				"were not read.",
		}, []string{"kind"}),
	}
	for _, kind := range faultKinds {
		m.errors.WithLabelValues(string(kind))
	}
	conn := js.Conn()
	conn.SetDisconnectErrHandler(m.disconnected)
	conn.SetReconnectHandler(func(conn *nats.Conn) {
		m.log.Warn().Str("server", conn.ConnectedUrlRedacted()).Msg("the connection to NATS is restored")
		select {
		case m.again <- struct{}{}:
		default:
		}
	})
	former := conn.ErrorHandler()
	conn.SetErrorHandler(func(conn *nats.Conn, sub *nats.Subscription, err error) {
		m.failed(conn, sub, err)
		if former != nil {
			former(conn, sub, err)
		}
	})
	return m
}

// disconnected records that the connection is lost.
func (m *Monitor) disconnected(conn *nats.Conn, err error) {
	if conn.IsClosed() {
		return // the process ends
	}
	m.disconnects.Add(1)
	if err == nil {
		err = errors.New("the server closed it")
	}
	m.set(NATSUnreachable, true)
	m.log.Warn().Err(err).Dur("again_in_ms",
		natsclient.ReconnectWait).Msg("the connection to NATS is lost; it is restored when a server answers")
}

// faultKind is the kind of an error that the client reports.
type faultKind string

const (
	faultSlow       faultKind = "slow_consumer" // messages were dropped because they were not read in time
	faultPermission faultKind = "permission"    // the server refuses the process's user a subject
	faultOther      faultKind = "other"
)

var faultKinds = []faultKind{faultSlow, faultPermission, faultOther}

// failed records an error that the client reports asynchronously. It logs the error if it has not occurred within
// faultQuiet.
func (m *Monitor) failed(_ *nats.Conn, sub *nats.Subscription, err error) {
	kind := faultOther
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		kind = faultSlow
	case errors.Is(err, nats.ErrPermissionViolation):
		kind = faultPermission
	}
	m.errors.WithLabelValues(string(kind)).Inc()
	if kind == faultPermission {
		defer func() { // after the log line, to which /ready refers
			m.mu.Lock()
			defer m.mu.Unlock()
			m.refused = time.Now()
		}()
	}
	fault, subject := err.Error(), ""
	if sub != nil {
		subject = sub.Subject
		fault += " " + subject
	}
	if !m.begins(fault, time.Now()) {
		return
	}
	line := m.log.Warn().Err(err).Str("kind", string(kind))
	if subject != "" {
		line = line.Str("subject", subject)
	}
	if kind == faultPermission {
		line.Msg(
			"NATS refuses the process's user a subject: make the servers' configuration again with 'headgate " +
				"nats-config' of this version, and check that nats.nkey and node.id belong to the same node; it is " +
				"logged again after a minute without it",
		)
		return
	}
	line.Msg("NATS client: an error has occurred; it is logged again after a minute without it")
}

// Refused reports whether NATS has refused the process's user a subject within the last minute.
func (m *Monitor) Refused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.refused.IsZero() && time.Since(m.refused) < faultQuiet
}

// begins reports whether a fault has not occurred within faultQuiet.
func (m *Monitor) begins(fault string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, known := m.faults[fault]
	for other, at := range m.faults {
		if now.Sub(at) >= faultQuiet {
			delete(m.faults, other)
		}
	}
	if !known && len(m.faults) >= maxFaults {
		return false // the metric counts them
	}
	m.faults[fault] = now
	return !known || now.Sub(last) >= faultQuiet
}

// Run checks JetStream until ctx ends.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(monitorEvery)
	defer ticker.Stop()
	for {
		m.check(ctx)
		select {
		case <-ticker.C:
		case <-m.again:
		case <-ctx.Done():
			return nil
		}
	}
}

// check requests the state of the journal from JetStream.
func (m *Monitor) check(ctx context.Context) {
	if !m.js.Conn().IsConnected() {
		m.set(NATSUnreachable, false)
		return
	}
	attempt, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	stream, err := m.js.Stream(attempt, streams.Events)
	switch {
	case ctx.Err() != nil:
	case err == nil && natsclient.InContact(stream.CachedInfo().Cluster):
		m.answers(stream.CachedInfo().State, time.Now())
	case err == nil: // or it has just been elected
		m.silent("is cut off from its replicas")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		m.silent("does not answer")
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected):
		m.set(NATSUnreachable, false)
	default:
		m.lose(err)
	}
	m.leave(time.Now())
}

// silent records that the journal's leader did not give a conclusive answer.
func (m *Monitor) silent(why string) {
	m.mu.Lock()
	m.silences++
	silent := m.silences >= monitorSilences
	m.mu.Unlock()
	if silent {
		m.lose(fmt.Errorf("the leader of %s %s", streams.Events, why))
	}
}

// leave connects to another server if JetStream has not answered for long, although the process is connected to one.
func (m *Monitor) leave(now time.Time) {
	conn := m.js.Conn()
	m.mu.Lock()
	since := m.answered
	if m.left.After(since) {
		since = m.left
	}
	leaves := m.cause == JetStreamIsSilent && now.Sub(since) >= m.patience && conn.IsConnected() &&
		len(conn.Servers()) > 1
	if leaves {
		m.left, m.patience = now, min(2*m.patience, leaveAtMost)
	}
	m.mu.Unlock()
	if !leaves {
		return
	}
	m.log.Warn().Str("server",
		conn.ConnectedUrlRedacted()).Msg("JetStream does not answer at this server; connecting to another one")
	if err := conn.ForceReconnect(); err != nil {
		m.log.Warn().Err(err).Msg("connecting to another server of NATS failed; retrying")
	}
}

// answers records an answer of JetStream.
func (m *Monitor) answers(state jetstream.StreamState, now time.Time) {
	m.mu.Lock()
	cause, since := m.cause, m.answered
	m.cause, m.silences, m.answered, m.patience = "", 0, now, leaveAfter
	m.lastSeq, m.bytes = state.LastSeq, state.Bytes
	m.mu.Unlock()
	if cause != "" {
		m.log.Warn().Dur("after_ms", now.Sub(since)).Msg("JetStream answers again")
	}
}

// lose records that JetStream is unavailable although NATS is reachable.
func (m *Monitor) lose(err error) {
	if m.set(JetStreamIsSilent, true) {
		m.log.Warn().Err(err).Dur("again_in_ms", monitorEvery).Msg("JetStream does not answer; retrying")
	}
}

// set records why NATS or JetStream is unavailable. With better, it replaces a recorded cause. It reports whether both
// were available before.
func (m *Monitor) set(cause OutageCause, better bool) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed = m.cause == ""
	if changed || better {
		m.cause = cause
	}
	return changed
}

// Outage returns the current outage; false: there is none.
func (m *Monitor) Outage() (Outage, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Outage{m.answered, m.cause}, m.cause != ""
}

var (
	natsConnected = prometheus.NewDesc("headgate_nats_connected", "1 while the process is connected to NATS.", nil,
		nil)
	natsDisconnect = prometheus.NewDesc("headgate_nats_disconnects_total", "Connections to NATS that were lost.", nil,
		nil)
	jetStreamThere = prometheus.NewDesc(
		"headgate_jetstream_available",
		"1 while JetStream answers for the journal; 0 while NATS or JetStream is unavailable, or the journal has no "+
			"leader.",
		nil, nil,
	)
	natsViewAge = prometheus.NewDesc("headgate_nats_view_age_seconds",
		"Time since JetStream answered last: the age of the state that the process has received over NATS.", nil, nil)
	journalLast = prometheus.NewDesc("headgate_journal_last_sequence",
		"Last sequence of the journal, by JetStream's last answer.", nil, nil)
	journalBytes = prometheus.NewDesc("headgate_journal_bytes",
		"Bytes of the journal's messages, of one replica, by JetStream's last answer.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (m *Monitor) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		natsConnected, natsDisconnect, jetStreamThere, natsViewAge, journalLast, journalBytes,
	} {
		descriptions <- d
	}
	m.errors.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (m *Monitor) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	m.mu.Lock()
	away, age, last, bytes := m.cause != "", time.Since(m.answered), m.lastSeq, m.bytes
	m.mu.Unlock()
	connected := m.js.Conn().IsConnected()
	gauge(natsConnected, one(connected))
	gauge(jetStreamThere, one(connected && !away))
	gauge(natsViewAge, age.Seconds())
	gauge(journalLast, float64(last))
	gauge(journalBytes, float64(bytes))
	metrics <- prometheus.MustNewConstMetric(natsDisconnect, prometheus.CounterValue, float64(m.disconnects.Load()))
	m.errors.Collect(metrics)
}
