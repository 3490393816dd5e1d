package tail_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/tail"
)

// lossyNetwork dials connections on which messages of the journal can be lost.
type lossyNetwork struct {
	lose atomic.Int64 // how many are lost from now on
	lost atomic.Int64
}

// Dial implements [nats.CustomDialer].
func (n *lossyNetwork) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: conn, network: n, from: bufio.NewReader(conn)}, nil
}

// lossyConn reads the protocol of NATS, and leaves out messages of the journal.
type lossyConn struct {
	net.Conn

	network *lossyNetwork
	from    *bufio.Reader
	rest    []byte
}

func (c *lossyConn) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		line, err := c.from.ReadBytes('\n')
		if err != nil {
			return 0, err
		}
		c.rest = line
		fields := bytes.Fields(line)
		if len(fields) < 4 || string(fields[0]) != "MSG" && string(fields[0]) != "HMSG" {
			continue
		}
		size, err := strconv.Atoi(string(fields[len(fields)-1]))
		if err != nil {
			return 0, err
		}
		payload := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(c.from, payload); err != nil {
			return 0, err
		}
		c.rest = slices.Concat(line, payload)
		if bytes.HasPrefix(fields[1], []byte("events.")) && c.network.lose.Add(-1) >= 0 {
			c.network.lost.Add(1)
			c.rest = nil
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// A message that is lost on its way is read again, also if none follows that would show the gap.
func TestTail_ReadsLostMessagesAgain(t *testing.T) {
	nats1 := natstest.Server(t, &server.Options{})
	js := natstest.Connect(t, nats1)
	network := &lossyNetwork{}
	conn, err := natsclient.Connect(nats1.ClientURL(), t.Name(), nats.SetCustomDialer(network))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	lossy, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t:       t,
		js:      js,
		journal: eventLog,
		tail:    tail.New(lossy, eventLog, tail.Config{Name: "test"}),
		events:  map[string][]uint64{},
	}
	w.tail.CheckLoss(20*time.Millisecond, 20*time.Millisecond)
	w.run()
	acme := natstest.Tenant(t, "acme")
	r := newRecorder(t, acme)
	w.tail.Subscribe(acme, r, tail.Options{})
	w.append(acme)
	r.has(w.want(acme))

	for lost := range int64(3) {
		network.lose.Store(1)
		w.append(acme)
		r.has(w.want(acme))
		if n := network.lost.Load(); n != lost+1 {
			t.Fatalf("%d messages were lost, want %d", n, lost+1)
		}
	}

	// A bounded read, whose last message is lost.
	network.lose.Store(1)
	var read []uint64
	want := w.want(acme)
	if err := w.tail.Read(t.Context(), acme, 0, want[len(want)-1], func(event journal.Event) error {
		read = append(read, event.Sequence)
		return nil
	}); err != nil || len(read) != len(want) {
		t.Errorf("read %v, want %v; %v", read, want, err)
	}
	if n := network.lost.Load(); n != 4 {
		t.Errorf("%d messages were lost, want 4", n)
	}
}
