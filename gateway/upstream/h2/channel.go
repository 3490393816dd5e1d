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
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/fastpath/rawtcp"
	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc/flood"
)

// Config is what the channels of a pool have in common. All of it is needed.
type Config struct {
	// TLS returns the configuration of the next connection; nil: clear text (h2c, with
	// prior knowledge).
	TLS func() *tls.Config
	// StreamWindow and ConnWindow are the bytes of answers that may be under way, of one
	// stream and of all on a connection, at least 64 KiB.
	StreamWindow, ConnWindow int
	// MaxMessageBytes bounds a message of the peer's.
	MaxMessageBytes int
	// ConnectTimeout bounds an attempt to connect, the peer's first words included.
	ConnectTimeout time.Duration
	// FirstBackoff is the time between two attempts that fail, about; each doubles it, up
	// to MaxBackoff. Calls in between fail at once.
	FirstBackoff, MaxBackoff time.Duration
	// PingAfter is how long a connection with calls on it may be silent before its peer
	// is asked for a sign of life, and PingTimeout how long that may take.
	PingAfter, PingTimeout time.Duration
	// Memory is what answers lie in.
	Memory mem.BufferPool
	// UserAgent is the header of the same name.
	UserAgent string
}

// Channel is the way to one peer: at most one connection that takes calls, and those
// before it until their last call has ended. Its methods may be called concurrently.
type Channel struct {
	address string
	config  Config
	live    atomic.Pointer[conn] // that takes calls; nil: none does

	ctx    context.Context //nolint:containedctx // of attempts to connect; ends with the channel
	cancel context.CancelFunc

	mu        sync.Mutex
	attempt   *attempt           // under way; nil: none is
	conns     map[*conn]struct{} // that have not ended
	failures  int                // in a row, of attempts to connect
	notBefore time.Time          // of the next attempt
	failure   error              // of the last one
	pingAfter time.Duration
	closed    bool

	running sync.WaitGroup
}

// attempt is one to connect, for all who wait for it.
type attempt struct {
	done chan struct{}
	err  error // when done
}

// NewChannel returns the channel to an address (host:port). It connects with its first
// call.
func NewChannel(address string, config Config) *Channel {
	c := &Channel{address: address, config: config, conns: map[*conn]struct{}{}, pingAfter: config.PingAfter}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends the channel, and the calls on it with [ErrClosed] as their [BrokenError]'s cause.
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
		one.end(ErrClosed)
	}
	c.running.Wait()
}

// Answered returns when a part of any call's answer was read last, the zero time if none was
// on a connection that has not ended.
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

// Request is what a call begins with.
type Request struct {
	// Path is the method's, "/service/Method".
	Path string
	// Fields are header fields of the call's own, valid and in lower case; those that
	// HTTP/2 and gRPC ask for are added.
	Fields []hpack.HeaderField
	// Message is the first message, if HasMessage says that there is one, and the last if
	// Last does so. Its memory is used until the call has ended.
	Message          []byte
	HasMessage, Last bool
	// Whole says that one message is awaited at most, of no use before the call has
	// ended.
	Whole bool
	// Meter bounds the memory of the answer's messages together; nil: only MaxMessageBytes
	// bounds each.
	Meter Meter
}

// Open begins a call. ctx bounds the wait for a connection and for a place on it, and its
// deadline, less the deadline margin (see [contextkit.CalleeTime]), travels as the call's.
// Errors: ctx's, [*BrokenError], [ErrHeadersTooLarge].
func (c *Channel) Open(ctx context.Context, request Request) (*Stream, error) {
	for range maxConnections {
		conn, err := c.connection(ctx)
		if err != nil {
			return nil, err
		}
		stream, err := conn.open(ctx, request)
		if !errors.Is(err, errElsewhere) {
			return stream, err
		}
	}
	return nil, &BrokenError{Refused: true, Cause: errElsewhere}
}

// maxConnections is how many a call tries whose peer leaves each before it has begun.
const maxConnections = 3

// connection returns one that takes calls.
func (c *Channel) connection(ctx context.Context) (*conn, error) {
	for {
		if live := c.live.Load(); live != nil {
			return live, nil
		}
		current, err := c.try()
		if err != nil {
			return nil, &BrokenError{Unreached: true, Cause: err}
		}
		if err := lazydeadline.Await(ctx, current.done); err != nil {
			return nil, err
		}
		if current.err != nil {
			return nil, &BrokenError{Unreached: true, Cause: current.err}
		}
	}
}

// try returns the attempt that is under way, or a new one.
func (c *Channel) try() (*attempt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, ErrClosed
	case c.attempt != nil:
		return c.attempt, nil
	case c.live.Load() != nil: // it has just ended well
		return &attempt{done: ended}, nil
	case time.Now().Before(c.notBefore):
		return nil, c.failure
	}
	c.attempt = &attempt{done: make(chan struct{})}
	c.running.Go(c.connect)
	return c.attempt, nil
}

// ended is a channel that is closed.
var ended = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// connect makes the attempt.
func (c *Channel) connect() {
	ctx, cancel := context.WithTimeout(c.ctx, c.config.ConnectTimeout)
	defer cancel()
	made, err := c.dial(ctx)
	if err == nil {
		c.live.Store(made)
		if made.takesNone() { // it has ended meanwhile
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

// dial returns a connection whose peer has said its first words, so that it is there and
// not only its kernel.
func (c *Channel) dial(ctx context.Context) (*conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	raw = rawtcp.Conn(raw)
	if c.config.TLS != nil {
		if raw, err = c.secure(ctx, raw); err != nil {
			return nil, err
		}
	}
	made := newConn(c, flood.Client(raw, func(net.Conn, flood.Kind) {})) // the connection's error reports it
	if err := c.keep(made); err != nil {
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
		return nil, fmt.Errorf("the peer says nothing: %w", ctx.Err())
	}
}

// keep counts a connection among those that end with the channel.
func (c *Channel) keep(made *conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.conns[made] = struct{}{}
	made.pingAfter = c.pingAfter
	return nil
}

// secure makes the TLS handshake.
func (c *Channel) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	config := c.config.TLS().Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(c.address)
		if err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		config.ServerName = host
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

// retire says that a connection takes no further calls.
func (c *Channel) retire(conn *conn) { c.live.CompareAndSwap(conn, nil) }

// forget says that a connection has ended.
func (c *Channel) forget(conn *conn) {
	c.retire(conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, conn)
}

// calm makes the connections to come ask for signs of life half as often: the peer has
// complained.
func (c *Channel) calm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pingAfter *= 2
}
