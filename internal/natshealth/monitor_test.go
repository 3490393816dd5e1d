package natshealth_test

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/natstest"
)

// logLines is a log that is read while it is written.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logLines) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// startMonitor runs a monitor until the test ends.
func startMonitor(t *testing.T, js jetstream.JetStream) (*natshealth.Monitor, *logLines) {
	t.Helper()
	lines := &logLines{}
	m := natshealth.NewMonitor(js, zerolog.New(lines))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return m, lines
}

// value returns the value of a metric without labels.
func value(t *testing.T, c prometheus.Collector, name string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			m := family.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// A change is logged once, with its cause and the next attempt, and shown by Outage and metrics.
func TestMonitor_ReportsLossAndReturnOfNATS(t *testing.T) {
	t.Parallel()
	options := server.Options{StoreDir: t.TempDir()}
	bus := natstest.Server(t, &options)
	js := natstest.Connect(t, bus)
	m, lines := startMonitor(t, js)
	natstest.Eventually(
		t,
		"the journal is seen",
		func() bool { return value(t, m, "headgate_jetstream_available") == 1 },
	)
	if outage, away := m.Outage(); away {
		t.Fatalf("at the start: %v", outage)
	}

	options.Port = bus.Addr().(*net.TCPAddr).Port
	bus.Shutdown()
	bus.WaitForShutdown()
	natstest.Eventually(
		t,
		"the loss is logged",
		func() bool { return lines.count("the connection to NATS is lost") > 0 },
	)
	outage, away := m.Outage()
	if !away || !strings.Contains(outage.String(), "NATS is not reachable") || outage.Since.IsZero() {
		t.Errorf("%v, %v", outage, away)
	}
	if lines.count(`"level":"warn"`) != 1 || lines.count(`"again_in_ms"`) != 1 || lines.count(`"error"`) != 1 {
		t.Errorf("want one line of level warn with cause and next attempt:\n%s", lines.text.String())
	}
	if value(t, m, "headgate_nats_connected") != 0 || value(t, m, "headgate_jetstream_available") != 0 ||
		value(t, m, "headgate_nats_disconnects_total") != 1 ||
		value(t, m, "headgate_nats_view_age_seconds") <= 0 {
		t.Error("the metrics do not show it")
	}

	natstest.Server(t, &options)
	natstest.Eventually(t, "JetStream answers again", func() bool { _, away := m.Outage(); return !away })
	for _, text := range []string{
		"the connection to NATS is lost", "the connection to NATS is restored", "JetStream answers again",
	} {
		if n := lines.count(text); n != 1 {
			t.Errorf("%d lines %q, want 1:\n%s", n, text, lines.text.String())
		}
	}
}

// JetStream can be away while NATS is there: a server without a leader, or whose store has failed.
func TestMonitor_ReportsUnavailableJetStream(t *testing.T) {
	t.Parallel()
	bus := natstest.Server(t, &server.Options{StoreDir: t.TempDir()})
	m, lines := startMonitor(t, natstest.Connect(t, bus))
	natstest.Eventually(
		t,
		"the journal is seen",
		func() bool { return value(t, m, "headgate_jetstream_available") == 1 },
	)
	if err := bus.DisableJetStream(); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the loss is logged", func() bool { return lines.count("JetStream does not answer") > 0 })
	if value(t, m, "headgate_nats_connected") != 1 || value(t, m, "headgate_jetstream_available") != 0 {
		t.Error("the metrics do not show it")
	}
	if outage, away := m.Outage(); !away || !strings.Contains(string(outage.Cause), "JetStream does not answer") {
		t.Errorf("%v, %v", outage, away)
	}
	if n := lines.count(`"again_in_ms"`); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, lines.text.String())
	}
}

// A slow consumer is logged once, however many messages it loses.
func TestMonitor_ASlowConsumerIsOneLine(t *testing.T) {
	bus := natstest.Server(t, &server.Options{StoreDir: t.TempDir()})
	js := natstest.Connect(t, bus)
	m, lines := startMonitor(t, js)
	release := make(chan struct{})
	sub, err := js.Conn().Subscribe("slow", func(*nats.Msg) { <-release })
	if err != nil {
		t.Fatal(err)
	}
	defer close(release)
	if err := sub.SetPendingLimits(1, -1); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for range 10 {
			if err := js.Conn().Publish("slow", nil); err != nil {
				t.Fatal(err)
			}
		}
		natstest.Eventually(t, "messages are dropped", func() bool {
			n, err := sub.Dropped()
			return err == nil && n >= 8*(round+1)
		})
	}
	natstest.Eventually(t, "the line is there", func() bool { return lines.count("slow_consumer") > 0 })
	if n := lines.count("slow consumer"); n != 1 {
		t.Errorf("%d lines:\n%s", n, lines.text.String())
	}
	if n := testutil.CollectAndCount(m, "headgate_nats_errors_total"); n != 3 {
		t.Errorf("%d kinds of errors are counted, want 3 from the start", n)
	}
}

// A server that is reachable, and whose JetStream does not answer for the journal, is left for another one: the others
// may have elected a leader without it.
func TestMonitor_LeavesAServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	whole, apart := natstest.Server(t, &server.Options{}), natstest.Server(t, &server.Options{})
	natstest.Connect(t, whole) // makes the streams
	conn, err := natsclient.Connect(apart.ClientURL()+","+whole.ClientURL(), t.Name(), nats.DontRandomize())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	restored := conn.StatusChanged(nats.CONNECTED)
	monitor := natshealth.NewMonitor(js, zerolog.Nop())
	monitor.LeaveAfter(time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = monitor.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	natstest.Await(t, restored, "it connects to another server")
	if url := conn.ConnectedUrl(); url != whole.ClientURL() {
		t.Errorf("it is connected to %s, want %s", url, whole.ClientURL())
	}
	natstest.Eventually(t, "JetStream answers", func() bool {
		_, away := monitor.Outage()
		return !away
	})
}
