package node

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
)

// lockedLog is a log that is read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *lockedLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

func TestNATSLog_SaysWhenNATSIsAwayAndBack(t *testing.T) {
	options := server.Options{StoreDir: t.TempDir()}
	bus := backbonetest.Server(t, &options)
	log := &lockedLog{}
	conn, err := backbone.Connect(bus.ClientURL(), t.Name(), natsLog(zerolog.New(log))...)
	if err != nil {
		t.Fatal(err)
	}
	changes := conn.StatusChanged(nats.RECONNECTING, nats.CONNECTED)
	until := func(want nats.Status, line string) {
		t.Helper()
		for got := nats.DISCONNECTED; got != want; {
			select {
			case got = <-changes:
			case <-time.After(30 * time.Second):
				t.Fatalf("never %v", want)
			}
		}
		tick := time.NewTicker(10 * time.Millisecond) // the handlers run beside
		defer tick.Stop()
		for deadline := time.Now().Add(30 * time.Second); !log.has(line); <-tick.C {
			if time.Now().After(deadline) {
				t.Fatalf("no line %q in:\n%s", line, log.text.String())
			}
		}
	}
	options.Port = bus.Addr().(*net.TCPAddr).Port
	bus.Shutdown()
	bus.WaitForShutdown()
	until(nats.RECONNECTING, "the connection to NATS is lost")
	backbonetest.Server(t, &options)
	until(nats.CONNECTED, "the connection to NATS is restored")
	conn.Close()
}
