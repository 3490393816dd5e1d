package latedeadline

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// past is a deadline that has passed, by which net/http ends a read.
var past = time.Unix(1, 0)

// countedConn counts the deadlines that are set on a connection.
type countedConn struct {
	net.Conn

	deadlines []time.Time
	reading   chan struct{} // one for each read that begins
}

func (c *countedConn) SetReadDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return c.Conn.SetReadDeadline(t)
}

func (c *countedConn) Read(p []byte) (int, error) {
	c.reading <- struct{}{}
	return c.Conn.Read(p)
}

// latePair returns both ends of a connection.
func latePair(t *testing.T) (late *Conn, below *countedConn, peer net.Conn) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if peer, err = (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	accepted, err := Listener(listener).Accept()
	if err != nil {
		t.Fatal(err)
	}
	late, _ = accepted.(*Conn)
	below = &countedConn{Conn: late.Conn, reading: make(chan struct{}, 10)}
	late.Conn = below
	t.Cleanup(func() { _, _ = late.Close(), peer.Close() })
	return late, below, peer
}

func TestConn_DeadlineHoldsWheneverItIsSet(t *testing.T) {
	later := func() time.Time { return time.Now().Add(time.Hour) }
	soon := func() time.Time { return time.Now().Add(20 * time.Millisecond) }
	for name, row := range map[string]struct {
		before []func() time.Time // set before the read, one after the other
		during func() time.Time   // set when it waits
		late   bool               // the read passes its deadline; else the peer's byte comes
	}{
		"none":                       {},
		"one that is far":            {before: []func() time.Time{later}},
		"one that is near":           {before: []func() time.Time{soon}, late: true},
		"one that has passed":        {before: []func() time.Time{func() time.Time { return past }}, late: true},
		"a far one after a near one": {before: []func() time.Time{soon, later}},
		"none after a near one":      {before: []func() time.Time{soon, func() time.Time { return time.Time{} }}},
		"a near one after a far one": {before: []func() time.Time{later, soon}, late: true},
		"a near one after none": {
			before: []func() time.Time{func() time.Time { return time.Time{} }, soon},
			late:   true,
		},
		"one that passes while it waits": {
			before: []func() time.Time{later},
			during: func() time.Time { return past },
			late:   true,
		},
		"a far one while it waits": {before: []func() time.Time{soon}, during: later},
		"none while it waits": {
			before: []func() time.Time{soon},
			during: func() time.Time { return time.Time{} },
		},
		"a near one while it waits": {during: soon, late: true},
	} {
		t.Run(name, func(t *testing.T) {
			conn, below, peer := latePair(t)
			for _, deadline := range row.before {
				if err := conn.SetReadDeadline(deadline()); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error, 1)
			go func() {
				_, err := conn.Read(make([]byte, 1))
				done <- err
			}()
			<-below.reading
			if row.during != nil {
				if err := conn.SetReadDeadline(row.during()); err != nil {
					t.Fatal(err)
				}
			}
			if row.late {
				if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the read ends with %v, want its deadline", err)
				}
				return
			}
			if row.during != nil {
				<-below.reading // it has passed the first deadline, and reads on
			}
			if _, err := peer.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("the read ends with %v", err)
			}
		})
	}
}

// A request as net/http serves it: deadlines for idling, for the header and for the body,
// and a read that is ended while the handler runs.
func TestConn_MostDeadlinesOfARequestAreNotApplied(t *testing.T) {
	conn, below, peer := latePair(t)
	one := make([]byte, 1)
	for range 3 {
		if _, err := peer.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		idle, header := time.Now().Add(2*time.Minute), time.Now().Add(5*time.Second)
		_ = conn.SetReadDeadline(idle)
		if _, err := conn.Read(one); err != nil {
			t.Fatal(err)
		}
		for _, deadline := range []time.Time{{}, header, {}, header.Add(time.Minute), {}} {
			_ = conn.SetReadDeadline(deadline)
		}
		ended := make(chan error, 1)
		for len(below.reading) > 0 {
			<-below.reading
		}
		go func() {
			_, err := conn.Read(one)
			ended <- err
		}()
		<-below.reading
		_ = conn.SetReadDeadline(past)
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the read that is ended ends with %v", err)
		}
		_ = conn.SetReadDeadline(time.Time{})
	}
	if got := len(below.deadlines); got != 6 {
		t.Errorf("the connection gets %d deadlines in three requests, want 6: %v", got, below.deadlines)
	}
}
