package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/flood"
)

// flooded counts and logs a connection that is closed because its client sends frames without
// effect, or holds too many streams.
func (s *Server) flooded(conn net.Conn, kind flood.Kind) {
	s.Metrics.floods.WithLabelValues(string(kind)).Inc()
	message := "the client floods its HTTP/2 connection with frames without effect: the connection is closed"
	if kind == flood.Headers {
		message = "the client's address has too many calls whose answers have not been sent to their end: the " +
			"connection is closed"
	}
	s.log.Warn().Stringer("client", conn.RemoteAddr()).Str("frame", string(kind)).Msg(message)
}

// watchedListener watches the frames of its connections. The first read performs the TLS
// handshake, if there is one, within the time for a request's headers.
type watchedListener struct {
	net.Listener

	server *Server
	tls    *tls.Config // nil: clear text
}

// Accept implements [net.Listener].
func (l watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.tls == nil {
		return l.server.clients.watch(conn, l.server.flooded), nil
	}
	secured := tls.Server(conn, l.tls)
	return &securedConn{l.server.clients.watch(secured, l.server.flooded), secured}, nil
}

// securedConn is a TLS connection that net/http treats as clear text: it speaks HTTP/2 with prior
// knowledge or HTTP/1.1 on it, as the client has negotiated by ALPN.
type securedConn struct {
	*flood.Conn

	tls *tls.Conn
}

// securedContext adds a connection's TLS to the context of its requests; see
// [securedRequests].
func securedContext(ctx context.Context, conn net.Conn) context.Context {
	secured, ok := conn.(*securedConn)
	if !ok {
		return ctx
	}
	return contextkit.Carry(ctx, secured.tls)
}

// securedRequests sets the TLS field of requests, which net/http leaves nil.
func securedRequests(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if secured, ok := contextkit.Carried[*tls.Conn](r.Context()); ok {
			state := secured.ConnectionState()
			r.TLS = &state
		}
		next.ServeHTTP(w, r)
	})
}

// watchedCredentials watches the frames of a gRPC server's connections, on top of TLS.
type watchedCredentials struct {
	credentials.TransportCredentials

	clients *clientLimit
	flooded func(net.Conn, flood.Kind)
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c watchedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return c.clients.watch(conn, c.flooded), info, nil
}
