// Package latedeadline defers the read deadlines of connections until a read would wait for them.
// net/http sets eight read deadlines per request, most of them while nothing reads, and the runtime
// has a timer for each.
package latedeadline

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Listener returns a listener like l. Its connections apply a read deadline once a read waits for it.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

// Accept implements [net.Listener].
func (l listener) Accept() (net.Conn, error) {
	below, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: below}, nil
}

// Conn keeps read deadlines as any connection does, but may leave a sooner one with
// the connection below, for a read to find out that there is more time.
type Conn struct {
	net.Conn

	mu      sync.Mutex
	reading int       // reads under way
	wanted  time.Time // the deadline; zero: none
	applied time.Time // that of the connection below
	expired bool      // applied has passed
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	c.begin()
	defer c.end()
	for {
		n, err := c.Conn.Read(p)
		if err == nil || n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.again() {
			return n, err
		}
	}
}

// begin has a read find a deadline that is not later than the wanted one.
func (c *Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading++
	if c.expired && !c.wanted.Equal(c.applied) || sooner(c.wanted, c.applied) {
		_ = c.apply() // of a closed connection, which the read finds out
	}
}

func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading--
}

// again reports whether a read that has passed its deadline has more time.
func (c *Conn) again() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expired = true
	return !c.wanted.Equal(c.applied) && c.apply() == nil
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
	if c.reading > 0 && sooner(t, c.applied) {
		return c.apply()
	}
	return nil
}

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// apply passes the wanted deadline on. c.mu is held.
func (c *Conn) apply() error {
	c.applied, c.expired = c.wanted, false
	return c.Conn.SetReadDeadline(c.wanted)
}

// sooner reports whether deadline a is before b. The zero time is none.
func sooner(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }
