package rpc

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/binnames"
	"github.com/headgate/headgate/internal/rpc/proxies"
)

// prematureReset is how old a call is at most that its client resets prematurely. Later it
// has waited for an answer, or seen enough of it.
const prematureReset = time.Second

// resetLimit is what an edge's clients may begin and immediately reset on an HTTP/2
// connection, where the bound of open streams bounds nothing (CVE-2023-44487): as many
// calls as they may have open, and one more for each that they let come to its end.
// Beyond that the connection is closed. nil is no limit: a service's callers are edges,
// and pass on what many clients do.
type resetLimit struct {
	most    int64
	proxies *proxies.Set // not limited: a connection of theirs has the calls of many clients
	closed  prometheus.Counter
	log     zerolog.Logger
}

// limitResets returns the limit of a server's clients.
func limitResets(s *Server) *resetLimit {
	closed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_reset_connections_total",
		Help: "HTTP/2 connections closed since their clients reset most calls as soon as they had begun.",
	})
	s.Metrics.Registerer(s.config.Name).MustRegister(closed)
	return &resetLimit{most: int64(s.config.MaxStreams), proxies: s.config.Proxies, closed: closed, log: s.log}
}

// resets are those of a connection.
type resets struct {
	limit *resetLimit
	conn  net.Conn
	peer  string        // the address of its client, host:port
	left  atomic.Int64  // that may still come
	gone  chan struct{} // closed with a gRPC connection
}

func (l *resetLimit) of(conn net.Conn) *resets {
	r := &resets{limit: l, conn: conn, gone: make(chan struct{})}
	r.left.Store(l.most)
	if addr := conn.RemoteAddr(); addr != nil {
		r.peer = addr.String()
		if from, ok := addr.(*net.TCPAddr); ok && l.proxies.Trusts(from.AddrPort().Addr()) {
			r.left.Store(math.MaxInt64)
		}
	}
	return r
}

// ended counts a call that began then. ctx is the client's: canceled when it has left.
func (r *resets) ended(ctx context.Context, began time.Time) {
	if !errors.Is(ctx.Err(), context.Canceled) {
		if left := r.left.Load(); left > 0 && left < r.limit.most {
			r.left.CompareAndSwap(left, left+1) // if not, others have counted theirs
		}
		return
	}
	if time.Since(began) < prematureReset && r.left.Add(-1) == 0 {
		r.limit.closed.Inc()
		r.limit.log.Warn().Stringer("client", r.conn.RemoteAddr()).Int64("resets", r.limit.most).
			Msg("the client resets calls as soon as they have begun: its connection is closed")
		_ = r.conn.Close() // the connection ends in any case
	}
}

// connContext has the calls of an HTTP connection know its resets.
func (l *resetLimit) connContext(ctx context.Context, conn net.Conn) context.Context {
	return contextkit.Carry(ctx, l.of(conn))
}

// count counts the calls that next answers.
func (l *resetLimit) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known, ok := contextkit.Carried[*resets](r.Context())
		if !ok || r.ProtoMajor < 2 {
			next.ServeHTTP(w, r)
			return
		}
		defer known.ended(r.Context(), time.Now())
		next.ServeHTTP(w, r)
	})
}

// countedCredentials count the resets of a gRPC connection and make its calls receive binary
// metadata as the client sent it.
type countedCredentials struct {
	credentials.TransportCredentials

	limit *resetLimit
}

// countedClient is what its calls know of a connection.
type countedClient struct {
	credentials.AuthInfo

	resets *resets
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c countedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	counted := c.limit.of(conn)
	return &endingConn{Conn: binnames.NewConn(conn), gone: counted.gone}, countedClient{info, counted}, nil
}

// endingConn closes a channel when the connection is closed.
type endingConn struct {
	net.Conn

	once sync.Once
	gone chan struct{}
}

// Close implements [io.Closer].
func (c *endingConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return c.Conn.Close()
}

// resetsOf returns those of a gRPC call's connection, if they are limited.
func resetsOf(ctx context.Context) (*resets, bool) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	client, ok := from.AuthInfo.(countedClient)
	return client.resets, ok
}
