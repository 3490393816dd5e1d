package journal_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
)

// way is a proxy to a server that may fall silent: nothing comes through any more, and
// nothing is closed.
type way struct {
	addr   string
	silent chan struct{} // closed: it is
}

func newWay(t *testing.T, to string) *way {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{addr: listener.Addr().String(), silent: make(chan struct{})}
	ended := make(chan struct{})
	var running sync.WaitGroup
	t.Cleanup(func() {
		close(ended)
		_ = listener.Close()
		running.Wait()
	})
	pipe := func(to, from net.Conn) {
		buffer := make([]byte, 32<<10)
		for {
			n, err := from.Read(buffer)
			select {
			case <-w.silent:
				<-ended
				return
			case <-ended:
				return
			default:
			}
			if err != nil {
				_ = to.Close()
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			running.Go(func() {
				<-ended
				_, _ = client.Close(), server.Close()
			})
			running.Go(func() { pipe(server, client) })
			running.Go(func() { pipe(client, server) })
		}
	})
	return w
}

func TestConnection_SilentServerIsReplaced(t *testing.T) {
	t.Parallel()
	s := natstest.Server(t, &server.Options{})
	ways := map[string]*way{}
	urls := ""
	for range 2 {
		w := newWay(t, s.Addr().String())
		ways[w.addr] = w
		urls += "nats://" + w.addr + ","
	}
	conn, err := natsclient.Connect(urls[:len(urls)-1], t.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	again := conn.StatusChanged(nats.CONNECTED)
	first := conn.ConnectedAddr()
	close(ways[first].silent)
	select {
	case <-again:
	case <-time.After(time.Minute):
		t.Fatal("the client waits for a stopped server")
	}
	if err := conn.FlushTimeout(10 * time.Second); err != nil || conn.ConnectedAddr() == first {
		t.Errorf("connected to %s, %v", conn.ConnectedAddr(), err)
	}
}
