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

// prematureReset is the age of a call up to which a reset by its client counts as premature. A client that
// resets later has waited for the response, or needs no more of it.
const prematureReset = time.Second

// resetLimit bounds the calls that a client of an edge may begin and reset prematurely on an HTTP/2
// connection: the number of calls that it may have open, plus one for each call that completes. Beyond
// the bound the connection is closed. The bound of open streams does not limit such resets
// (CVE-2023-44487). nil is no limit: the callers of a service are edges, which forward the resets of
// many clients.
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
		Help: "HTTP/2 connections closed since their clients reset more calls prematurely than the limit allows.",
	})
	s.Metrics.Registerer(s.config.Name).MustRegister(closed)
	return &resetLimit{
		most:    int64(s.config.MaxStreams),
		proxies: s.config.Proxies,
		closed:  closed,
		log:     provoked(s.log),
	}
}

// resets counts the premature resets of a connection.
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

// ended counts a call that began at a time. ctx is the client's: it is canceled when the client has
// disconnected.
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
			Msg("the client resets too many calls prematurely; its connection is closed")
		_ = r.conn.Close() // the connection ends in any case
	}
}

// connContext adds the resets of an HTTP connection to the context of its calls.
func (l *resetLimit) connContext(ctx context.Context, conn net.Conn) context.Context {
	return contextkit.Carry(ctx, l.of(conn))
}

// count counts the calls that next serves.
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

// countedClient is the state of a connection that its calls share.
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

// resetsOf returns the resets of a gRPC call's connection; nil: they are not limited.
func resetsOf(ctx context.Context) (*resets, bool) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil, false
	}
	client, ok := from.AuthInfo.(countedClient)
	return client.resets, ok
}
