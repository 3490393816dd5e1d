package rpc

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/encoding"

	"github.com/headgate/headgate/contextkit"
)

// Edge configures the codecs of an edge and the bounds of its calls.
type Edge struct {
	// Options are the options of the main address, including its codecs.
	Options []connecthttp.Option
	// Codec and JSON are the codecs of the gRPC address.
	Codec encoding.CodecV2
	JSON  connect.Codec
	// Timeout returns the time limit of a procedure's calls at the gRPC address, which includes the time in which the
	// request arrives. Their handlers' context is that of [HandlerContext] with Margin.
	Timeout func(procedure string) time.Duration
	Margin  time.Duration
	// Front wraps the handler of all paths, for example with CORS; nil: the handler is not wrapped.
	Front func(http.Handler) http.Handler
	// Degraded returns the degraded parts for /ready; nil: there are none.
	Degraded Degraded
	// MayAsk returns the error of a request that may not ask for a tenant's readiness (/ready?tenant=), since unknown
	// clients of an edge must not learn which tenants exist and in which state. nil: every client may ask.
	MayAsk func(*http.Request, contextkit.TenantID) error
}

// NewEdge returns a server for external clients, with the codecs of edge, whose calls pass through the interceptors. It
// does not serve metrics, see [NewAdmin].
func NewEdge(
	config Config, ready Readiness, log zerolog.Logger, edge Edge, interceptors ...connect.ServerInterceptor,
) *Server {
	s := newServer(config.WithEdgeDefaults(), NewMetrics(config.Name), ready, log)
	s.front, s.degraded, s.mayAsk = edge.Front, edge.Degraded, edge.MayAsk
	s.watches = newWatches(s.Metrics.Registerer(config.Name))
	s = newEdge(s, edge.Options, interceptors)
	timeout := func(_ context.Context, spec connect.Spec) time.Duration {
		return s.watches.grpcTime(spec.Procedure, edge.Timeout(spec.Procedure))
	}
	s.grpc = newGRPCPort(s.config, edge.Codec, edge.JSON, timeout, edge.Margin, s.flooded)
	s.Metrics.Registerer(config.Name).MustRegister(newFastPaths(config.FastPaths))
	s.resets, s.slow = limitResets(s), countSlow(s)
	countRefused(s)
	s.grpc.resets, s.grpc.clients, s.grpc.accepting, s.grpc.slow = s.resets, s.clients, s.accepting, s.slow
	s.grpc.unread, s.grpc.panicked = s.Metrics.unread.WithLabelValues(portGRPC).Inc, s.panicked
	return s
}

func newEdge(s *Server, options []connecthttp.Option, interceptors []connect.ServerInterceptor) *Server {
	s.renew = func() *Server {
		next := newServer(s.config, s.Metrics, s.ready, s.log)
		next.stopping, next.front, next.degraded, next.mayAsk = s.stopping, s.front, s.degraded, s.mayAsk
		next.watches, next.slow, next.clients = s.watches, s.slow, s.clients
		return newEdge(next, options, interceptors)
	}
	s.RPC = connect.NewServer(
		append([]connect.ServerInterceptor{s.recovered, boundErrors, eachMessage, s.endStreams}, interceptors...)...,
	)
	s.options = append([]connecthttp.Option{connecthttp.WithReadMaxBytes(s.config.MaxBodyBytes)}, options...)
	registerHealth(s.RPC, health{ready: s.ready, watches: s.watches})
	return s
}

// Renew returns an edge with the configuration of s and no handlers, for [Server.Adopt].
func (s *Server) Renew() *Server { return s.renew() }

// Adopt replaces the handlers of s by those of next. Calls in flight continue with the previous handlers.
func (s *Server) Adopt(next *Server) {
	s.handler.Store(next.mount())
	s.grpc.adopt(next.RPC)
}
