package main_test

import (
	"net"
	"sync"
	"testing"
)

// wire is a proxy whose connections the test can cut, or silence.
type wire struct {
	addr string

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	// there and back are closed while data passes to the server, and from it.
	there, back chan struct{}
	ended       chan struct{} // the test has ended
}

func startWire(t *testing.T, to string) *wire {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	passing := make(chan struct{})
	close(passing)
	w := &wire{
		addr:  listener.Addr().String(),
		conns: map[net.Conn]struct{}{},
		there: passing,
		back:  passing,
		ended: make(chan struct{}),
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			w.mu.Lock()
			w.conns[client], w.conns[server] = struct{}{}, struct{}{}
			w.mu.Unlock()
			running.Go(func() { w.pipe(server, client, &w.there) })
			running.Go(func() { w.pipe(client, server, &w.back) })
		}
	})
	t.Cleanup(func() {
		close(w.ended)
		_ = listener.Close()
		w.cut()
		running.Wait()
	})
	return w
}

// pipe copies data while its direction passes.
func (w *wire) pipe(to, from net.Conn, direction *chan struct{}) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		w.mu.Lock()
		passing := *direction
		w.mu.Unlock()
		select {
		case <-passing:
		case <-w.ended:
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	_, _ = to.Close(), from.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, from)
}

// cut closes all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for conn := range w.conns {
		_ = conn.Close()
	}
}

// silence holds the data in one direction or both back, as a network that drops packets does: connections stay open.
// The returned function lets it pass again.
func (w *wire) silence(there, back bool) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := make(chan struct{})
	before, beforeBack := w.there, w.back
	if there {
		w.there = held
	}
	if back {
		w.back = held
	}
	return func() {
		w.mu.Lock()
		w.there, w.back = before, beforeBack
		w.mu.Unlock()
		close(held)
	}
}
