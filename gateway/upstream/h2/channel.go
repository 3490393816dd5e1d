package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc/flood"
)

// Channel is the path to one peer: at most one connection that accepts calls, and previous ones
// until their last call has ended. It is safe for concurrent use.
type Channel struct {
	address string
	config  channels.Config
	live    atomic.Pointer[conn] // accepts calls; nil: there is none

	ctx    context.Context //nolint:containedctx // of attempts to connect; ends with the channel
	cancel context.CancelFunc

	mu        sync.Mutex
	attempt   *attempt           // in progress; nil: none
	conns     map[*conn]struct{} // not ended
	failures  int                // consecutive failed attempts to connect
	notBefore time.Time          // earliest time of the next attempt
	failure   error              // error of the last attempt
	pingAfter time.Duration
	closed    bool

	running sync.WaitGroup
}

// attempt is an attempt to connect, for all calls that wait for it.
type attempt struct {
	done chan struct{}
	err  error // set when done is closed
}

// NewChannel returns a channel to an address (host:port). The first call connects it.
func NewChannel(address string, config channels.Config) *Channel {
	c := &Channel{
		address:   address,
		config:    config,
		conns:     map[*conn]struct{}{},
		pingAfter: config.PingAfter,
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close closes the channel. Calls in flight fail with a [channels.BrokenError] whose cause is [channels.ErrClosed].
func (c *Channel) Close() {
	c.cancel()
	c.mu.Lock()
	c.closed = true
	conns := make([]*conn, 0, len(c.conns))
	for one := range c.conns {
		conns = append(conns, one)
	}
	c.mu.Unlock()
	for _, one := range conns {
		one.end(channels.ErrClosed)
	}
	c.running.Wait()
}

// Answered returns when a part of any call's answer was last read, the zero time if none was read
// on the current connections.
func (c *Channel) Answered() (last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for one := range c.conns {
		if since := one.answered.Load(); since > 0 {
			if at := one.began.Add(time.Duration(since)); at.After(last) {
				last = at
			}
		}
	}
	return last
}

// Open begins a call. ctx bounds the wait for a connection and for a free stream on it, and its
// deadline, less the deadline margin (see [contextkit.CalleeTime]), is sent as the call's. Errors:
// that of ctx, [*channels.BrokenError], [channels.ErrHeadersTooLarge].
func (c *Channel) Open(ctx context.Context, request channels.Request) (*Stream, error) {
	for range maxConnections {
		conn, err := c.connection(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := conn.open(ctx, request)
		if !errors.Is(err, errDraining) {
			return stream, err
		}
	}
	return nil, &channels.BrokenError{Refused: true, Cause: errDraining}
}

// maxConnections bounds the connections that a call tries if the peer closes each before it has
// begun the call.
const maxConnections = 3

// connection returns a connection that accepts calls.
func (c *Channel) connection(ctx context.Context) (*conn, error) {
	for {
		if live := c.live.Load(); live != nil {
			return live, nil
		}
		current, err := c.try()
		if err != nil {
			return nil, &channels.BrokenError{Unreached: true, Cause: err}
		}
		if err := lazydeadline.Await(ctx, current.done); err != nil {
			return nil, err
		}
		if current.err != nil {
			return nil, &channels.BrokenError{Unreached: true, Cause: current.err}
		}
	}
}

// try returns the attempt in progress, or begins one.
func (c *Channel) try() (*attempt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, channels.ErrClosed
	case c.attempt != nil:
		return c.attempt, nil
	case c.live.Load() != nil: // it has just succeeded
		return &attempt{done: ended}, nil
	case time.Now().Before(c.notBefore):
		return nil, c.failure
	}
	c.attempt = &attempt{done: make(chan struct{})}
	c.running.Go(c.connect)
	return c.attempt, nil
}

// ended is the done channel of a closed channel.
var ended = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// connect runs the attempt.
func (c *Channel) connect() {
	ctx, cancel := context.WithTimeout(c.ctx, c.config.ConnectTimeout)
	defer cancel()
	made, err := c.dial(ctx)
	if err == nil {
		c.live.Store(made)
		if made.isDraining() { // it has ended in the meantime
			c.retire(made)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	current := c.attempt
	c.attempt = nil
	defer close(current.done)
	if err == nil {
		c.failures = 0
		return
	}
	c.failure, current.err = err, err
	c.failures++
	delays := backoff.Delays{First: c.config.FirstBackoff, Longest: c.config.MaxBackoff}
	c.notBefore = time.Now().Add(backoff.Around(delays.After(c.failures), 0.2))
}

// dial returns a connection whose peer has sent its SETTINGS: a connection that only the peer's
// kernel accepted is not sufficient.
func (c *Channel) dial(ctx context.Context) (*conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	raw = c.config.FastPaths.Conn(raw)
	if c.config.TLS != nil {
		if raw, err = c.secure(ctx, raw); err != nil {
			return nil, err
		}
	}
	made := newConn(c, flood.Client(raw, func(net.Conn, flood.Kind) {})) // the connection's error reports it
	if err := c.track(made); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	made.start()
	select {
	case <-made.greeted:
		return made, nil
	case <-made.done:
		return nil, made.cause()
	case <-ctx.Done():
		made.end(ctx.Err())
		return nil, fmt.Errorf("the peer sent no SETTINGS: %w", ctx.Err())
	}
}

// track adds a connection to the ones that Close ends.
func (c *Channel) track(made *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return channels.ErrClosed
	}
	c.conns[made] = struct{}{}
	made.pingAfter = c.pingAfter
	return nil
}

// secure runs the TLS handshake.
func (c *Channel) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	config, err := c.config.ClientTLS(c.address)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	secured := tls.Client(raw, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	if protocol := secured.ConnectionState().NegotiatedProtocol; protocol != http2.NextProtoTLS {
		return nil, errors.Join(fmt.Errorf("the peer speaks %q instead of HTTP/2", protocol), secured.Close())
	}
	return secured, nil
}

// retire reports that a connection accepts no further calls.
func (c *Channel) retire(conn *conn) { c.live.CompareAndSwap(conn, nil) }

// forget reports that a connection has ended.
func (c *Channel) forget(conn *conn) {
	c.retire(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// slowPings doubles the PING interval of future connections, because the peer complained (gRFC A8).
func (c *Channel) slowPings() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pingAfter *= 2
}
