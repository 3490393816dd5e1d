package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

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
	s.flooding.Warn().Stringer("client", conn.RemoteAddr()).Str("frame", string(kind)).Msg(message)
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
	unread := l.server.Metrics.unread.WithLabelValues(portMain).Inc
	if l.tls == nil {
		return l.server.clients.watch(conn, l.server.flooded).Answers(unread), nil
	}
	secured := tls.Server(conn, l.tls)
	return &securedConn{l.server.clients.watch(secured, l.server.flooded).Answers(unread), secured}, nil
}

// securedConn is a TLS connection that net/http treats as clear text: it speaks HTTP/2 with prior
// knowledge or HTTP/1.1 on it, as the client has negotiated by ALPN.
type securedConn struct {
	*flood.Conn

	tls *tls.Conn
}

// watchedContext adds a connection, and its TLS, to the context of its requests; see [securedRequests].
func watchedContext(ctx context.Context, conn net.Conn) context.Context {
	switch conn := conn.(type) {
	case *flood.Conn:
		return contextkit.Carry(ctx, conn)
	case *securedConn:
		return contextkit.Carry(contextkit.Carry(ctx, conn.Conn), conn.tls)
	}
	return ctx
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

// watchedClient is the connection of a client, which its calls share.
type watchedClient struct {
	credentials.AuthInfo

	conn *flood.Conn
}

// watchedConn returns the connection of a call at a port for gRPC alone; nil: it is unknown.
func watchedConn(ctx context.Context) *flood.Conn {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	client, _ := unwrapAuth[watchedClient](from.AuthInfo)
	return client.conn
}

// unwrapAuth returns what a handshake of this package has learned about a client.
func unwrapAuth[T credentials.AuthInfo](info credentials.AuthInfo) (found T, ok bool) {
	for {
		if found, ok = info.(T); ok {
			return found, true
		}
		switch wrapped := info.(type) {
		case countedClient:
			info = wrapped.AuthInfo
		case watchedClient:
			info = wrapped.AuthInfo
		default:
			return found, false
		}
	}
}

// ServerHandshake implements [credentials.TransportCredentials].
func (c watchedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	watched := c.clients.watch(conn, c.flooded)
	return watched, watchedClient{info, watched}, nil
}
