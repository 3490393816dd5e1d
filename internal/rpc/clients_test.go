package rpc

import (
	"errors"
	"net"
	"testing"
)

// listening returns a bounded listener on loopback.
func listening(t *testing.T, limit *clientLimit, most int) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bounded := limit.listener(listener, most)
	t.Cleanup(func() { _ = bounded.Close() })
	return bounded
}

// dial returns a client's connection to the listener.
func dial(t *testing.T, listener net.Listener) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

type accepted struct {
	conn net.Conn
	err  error
}

// accept accepts in the background.
func accept(listener net.Listener) <-chan accepted {
	out := make(chan accepted, 1)
	go func() {
		conn, err := listener.Accept()
		out <- accepted{conn, err}
	}()
	return out
}

func TestListener_AConnectionBeyondTheBoundWaitsForAPlace(t *testing.T) {
	listener := listening(t, newClientLimit(10, 0), 1)
	dial(t, listener)
	first := <-accept(listener)
	if first.err != nil {
		t.Fatal(first.err)
	}
	dial(t, listener)
	second := accept(listener)
	select {
	case <-second:
		t.Fatal("accepted beyond the bound")
	default:
	}
	if err := errors.Join(first.conn.Close()); err != nil {
		t.Fatal(err)
	}
	_ = first.conn.Close() // a second Close gives no second place
	got := <-second
	if got.err != nil {
		t.Fatal(got.err)
	}
	defer got.conn.Close()
	if places := len(listener.(*clientListener).places); places != 1 {
		t.Errorf("%d places are taken, want 1", places)
	}
}

func TestListener_CloseEndsAnAcceptThatWaitsForAPlace(t *testing.T) {
	listener := listening(t, newClientLimit(10, 0), 1)
	dial(t, listener)
	first := <-accept(listener)
	if first.err != nil {
		t.Fatal(first.err)
	}
	defer first.conn.Close()
	waiting := accept(listener)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-waiting; !errors.Is(got.err, net.ErrClosed) {
		t.Errorf("Accept failed with %v, want net.ErrClosed", got.err)
	}
}

func TestListener_AConnectionBeyondTheClientsShareIsClosed(t *testing.T) {
	limit := newClientLimit(1, 0)
	listener := listening(t, limit, 10)
	dial(t, listener)
	first := <-accept(listener)
	if first.err != nil {
		t.Fatal(first.err)
	}
	waiting := accept(listener)
	refused := dial(t, listener)
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Error("the connection beyond the client's share is open")
	}
	_ = first.conn.Close()
	dial(t, listener)
	got := <-waiting
	if got.err != nil {
		t.Fatal(got.err)
	}
	_ = got.conn.Close()
	if len(limit.known) != 0 {
		t.Errorf("%d clients are still counted, want 0", len(limit.known))
	}
}
