package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"connectrpc.com/grpcreflect/v2"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/headgate/headgate/contextkit"
)

// Bounds of a listener.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	// DefaultMaxBodyBytes bounds a decompressed message.
	DefaultMaxBodyBytes = 1 << 20
	// DefaultBodyTimeout bounds the time in which the body of a request must arrive.
	DefaultBodyTimeout = 20 * time.Second
	// DefaultMinBodyRate is the rate at which a request must arrive, in bytes per second.
	DefaultMinBodyRate = 1 << 10
	// DefaultWriteTimeout bounds the time for which each 64 KiB of a response may wait for the client to read.
	DefaultWriteTimeout = 30 * time.Second
	// streamBuffer and connBuffer bound the request bytes that net/http buffers for handlers, per stream and per
	// connection of HTTP/2.
	streamBuffer, connBuffer = 256 << 10, 1 << 20
	// DefaultMaxStreams bounds the concurrent calls on one HTTP/2 connection.
	DefaultMaxStreams = 1000
	// DefaultServiceStreams is DefaultMaxStreams for a service, since a gateway sends all calls on one connection.
	DefaultServiceStreams = 20_000
	// DefaultMaxClientStreams bounds the calls of one client address at an edge whose responses are not sent
	// completely. It is the number of calls that an edge may have in flight by default.
	DefaultMaxClientStreams = 20_480
	// DefaultMaxConnections bounds a listener's connections; further ones wait to be accepted.
	DefaultMaxConnections = 16_384
	// DefaultShutdownTimeout bounds the time for which a stopping server waits for calls in flight.
	DefaultShutdownTimeout = 10 * time.Second
)

// Readiness returns the reason why the process cannot serve a tenant's calls, or any calls if tenant is zero; nil: it
// is ready.
type Readiness func(ctx context.Context, tenant contextkit.TenantID) error

// Degraded returns the degraded parts of the process for a tenant, or for all tenants if tenant is zero, each with the
// reason. A process with degraded parts may be ready.
type Degraded func(ctx context.Context, tenant contextkit.TenantID) map[string]string

// Server serves the handlers of a process. Handlers must be registered before Listen.
type Server struct {
	// RPC receives the registrations of the process's RPC handlers.
	RPC *connect.Server
	// HTTP receives the registrations of plain HTTP handlers.
	HTTP *http.ServeMux
	// Metrics is the registry of the process's metrics.
	Metrics *Metrics

	config    Config
	front     func(http.Handler) http.Handler // wraps all handlers; nil: none
	fallback  http.Handler                    // see Fallback; nil: none
	stopping  chan struct{}                   // closed when the server begins to stop
	ready     Readiness
	degraded  Degraded                                       // nil: the server has no such parts
	mayAsk    func(*http.Request, contextkit.TenantID) error // nil: every client may ask
	log       zerolog.Logger
	panics    zerolog.Logger // sampled log of panics
	rejects   zerolog.Logger // sampled log of calls by wrong roles
	flooding  zerolog.Logger // sampled log of connections that were closed for a flood
	accepting *accepting
	listen    func(ctx context.Context, addr string) (net.Listener, error)
	listener  net.Listener
	server    *http.Server
	options   []connecthttp.Option
	handler   atomic.Pointer[http.Handler]
	grpc      *grpcPort
	resets    *resetLimit // nil: none
	watches   *watches    // streams of the health service
	clients   *clientLimit
	slow      func()              // called for each request that is cut off because it arrives too slowly
	within    *semaphore.Weighted // bounds the calls from within the process
	admin     *Server             // for operators of a service; nil: none
	renew     func() *Server      // see Renew; only of an edge
}

// NewServer returns a server for a service. Its calls pass through recovery, the transport contract, a deadline,
// observation, the bound of errors and validation, in this order.
func NewServer(config Config, ready Readiness, log zerolog.Logger) *Server {
	if config.MaxStreams == 0 {
		config.MaxStreams = DefaultServiceStreams
	}
	s := newServer(config, NewMetrics(config.Name), ready, log)
	s.degraded = config.Degraded
	s.Metrics.Registerer(config.Name).MustRegister(newFastPaths(config.FastPaths))
	if config.Admin == "" {
		s.mountMetrics()
	} else {
		s.admin = newServiceAdmin(config, s, ready, log)
	}
	interceptors := []connect.ServerInterceptor{s.recovered}
	if config.Callers != nil || config.Direct != nil {
		interceptors = append(interceptors, s.admitCallers, s.recovered)
	}
	s.RPC = connect.NewServer(append(interceptors,
		contextkit.ServerInterceptor,
		Deadline,
		eachMessage,
		s.endStreams,
		s.Metrics.Observe(s.log, zerolog.DebugLevel),
		s.reportEnded,
		boundErrors,
		undecodable,
		Validate,
	)...)
	jsonCodec := connectproto.NewJSONCodec()
	jsonCodec.UnmarshalOptions.DiscardUnknown = false // a misspelled field is an error of the caller
	binaryCodec := connectproto.NewBinaryCodec()
	binaryCodec.MarshalOptions.Deterministic = true // equal responses have equal bytes
	s.options = []connecthttp.Option{
		connecthttp.WithCodecs(binaryCodec, jsonCodec),
		connecthttp.WithReadMaxBytes(s.config.MaxBodyBytes),
	}
	s.watches = newWatches(s.Metrics.Registerer(config.Name))
	timeout := func(ctx context.Context, spec connect.Spec) time.Duration {
		return s.watches.grpcTime(spec.Procedure, unaryTime(ctx, spec))
	}
	s.grpc = newGRPCPort(s.config, messageCodec{}, jsonCodec, timeout, 0, s.flooded)
	s.grpc.clients, s.grpc.accepting, s.grpc.slow = s.clients, s.accepting, s.slow
	s.grpc.unread, s.grpc.panicked = s.Metrics.unread.WithLabelValues(portGRPC).Inc, s.panicked
	grpcreflect.Register(s.RPC)
	registerHealth(s.RPC, health{ready: s.ready, ofTenants: true, watches: s.watches})
	return s
}

// mount returns the handler of the process.
func (s *Server) mount() *http.Handler {
	connecthttp.Mount(rpcMux{s.HTTP, s}, s.RPC, s.options...)
	handler := boundQuoted(boundBodies(s.config, s.slow, s.Metrics.unread.WithLabelValues(portMain).Inc,
		s.recoveredHTTP(s.root())))
	if s.front != nil {
		handler = s.front(handler)
	}
	if s.config.LocalHosts {
		handler = localHosts(handler)
	}
	if s.config.Proxies != nil {
		handler = s.clients.behindProxies(handler)
	}
	return &handler
}

// root returns the handler of all paths.
func (s *Server) root() http.Handler {
	if s.fallback == nil {
		return s.HTTP
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isUnclean(r.URL.Path) && isUnclean(r.URL.EscapedPath()) {
			s.fallback.ServeHTTP(w, r)
			return
		}
		s.HTTP.ServeHTTP(w, r)
	})
}

// isUnclean reports whether a path has empty or dot segments, so that [http.ServeMux] would redirect it.
func isUnclean(path string) bool {
	for i := 0; i < len(path); i++ {
		if path[i] != '/' {
			continue
		}
		switch rest := path[i+1:]; {
		case rest == "":
		case rest[0] == '/', rest[0] == '.' &&
			(len(rest) == 1 || rest[1] == '/' || rest[1] == '.' && (len(rest) == 2 || rest[2] == '/')):
			return true
		}
	}
	return false
}

// Fallback registers the handler of requests that no other handler serves: unknown paths, paths with empty or dot
// segments, which [http.ServeMux] would redirect, and requests below a service's path that are not RPCs. Without a
// fallback, [http.ServeMux] answers them.
func (s *Server) Fallback(handler http.Handler) {
	s.HTTP.Handle("/", handler)
	s.fallback = handler
}

// Guard registers methods whose calls pass through interceptor first.
func (s *Server) Guard(interceptor connect.ServerInterceptor, register func(*connect.Server)) {
	collected := connect.NewServer(interceptor, undecodable)
	register(collected)
	for spec := range collected.Specs() {
		s.RPC.Register(
			connect.Method{
				Spec: spec,
				Handler: func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
					info, _ := connect.CallInfoForServerContext(ctx)
					return collected.Call(ctx, spec.Procedure, info, stream)
				},
			},
		)
	}
}

func newServer(config Config, metrics *Metrics, ready Readiness, log zerolog.Logger) *Server {
	s := &Server{
		HTTP:     http.NewServeMux(),
		Metrics:  metrics,
		grpc:     &grpcPort{},
		within:   semaphore.NewWeighted(int64(config.WithDefaults().MaxStreams)),
		stopping: make(chan struct{}),
		config:   config.WithDefaults(),
		ready:    ready,
		log:      log.With().Str("process", config.Name).Logger(),
		clients:  newClientLimit(config.WithDefaults().MaxClientConnections, config.MaxClientStreams),
		slow:     func() {},
	}
	s.panics, s.rejects, s.flooding = provoked(s.log), provoked(s.log), provoked(s.log)
	s.clients.proxies = config.Proxies
	s.accepting = &accepting{failures: metrics.accepts, log: s.log}
	s.ready = s.accepting.ready(ready)
	s.listen = config.Sockets.take
	s.standardEndpoints()
	return s
}

// MaxBodyBytes returns the maximum size of a request message in bytes.
func (s *Server) MaxBodyBytes() int { return s.config.MaxBodyBytes }

// Listen binds the address and mounts the handlers.
func (s *Server) Listen(ctx context.Context) error {
	listener, err := s.listen(ctx, s.config.Addr)
	if err != nil {
		return fmt.Errorf("%s: %w", s.config.Name, err)
	}
	if s.admin != nil {
		if err := s.admin.Listen(ctx); err != nil {
			return errors.Join(err, listener.Close())
		}
	}
	if err := s.grpc.listen(ctx); err != nil {
		if s.admin != nil {
			err = errors.Join(err, s.admin.listener.Close())
		}
		return errors.Join(err, listener.Close())
	}
	s.handler.Store(s.mount())
	s.grpc.adopt(s.RPC)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP2(true)
	accepted := s.clients.listener(s.config.FastPaths.Listener(s.accepting.listener(listener)), s.config.MaxConnections)
	watched := watchedListener{Listener: accepted, server: s}
	if s.config.TLS != nil {
		watched.tls = s.config.TLS.Server(s.config.ClientAuthorities)
	}
	s.listener = watched
	s.server = &http.Server{
		Handler: s.config.FastPaths.Handler(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*s.handler.Load()).ServeHTTP(w, r) }),
		),
		Protocols:         protocols,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          s.config.MaxStreams,
			MaxReceiveBufferPerStream:     streamBuffer,
			MaxReceiveBufferPerConnection: connBuffer,
			WriteByteTimeout:              s.config.WriteTimeout,
		},
		ErrorLog: stdLogger(s.log),
	}
	if s.resets != nil {
		s.server.Handler = s.resets.count(s.server.Handler)
	}
	if s.config.TLS != nil {
		s.server.Handler = securedRequests(s.server.Handler)
	}
	s.server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		if s.resets != nil {
			ctx = s.resets.connContext(ctx, conn)
		}
		return watchedContext(ctx, conn)
	}
	return nil
}

// Ready returns the reason why the process is not ready; nil: it is ready.
func (s *Server) Ready(ctx context.Context) error { return s.ready(ctx, contextkit.TenantID{}) }

// Stopping returns a channel that is closed when the server begins to stop.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

// Addr returns the bound address, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// GRPCAddr returns the bound address of the separate gRPC server, host:port; "": there is none.
func (s *Server) GRPCAddr() string { return s.grpc.addr() }

// AdminURL returns the base URL of the server for the operators of a service; "": there is none.
func (s *Server) AdminURL() string {
	if s.admin == nil {
		return ""
	}
	return s.admin.URL()
}

// URL returns the base URL of the server. If it listens on all addresses, the host is the loopback address.
func (s *Server) URL() string {
	host, port, _ := net.SplitHostPort(s.Addr())
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if s.config.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Serve serves calls until ctx ends. Then it waits for calls in flight, for at most the shutdown timeout. It returns
// nil after a graceful shutdown.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.grpc.run(ctx) })
	group.Go(func() error { return s.serveMain(ctx) })
	group.Go(func() error { return s.endWithin(ctx) })
	if s.admin != nil {
		group.Go(func() error { return s.admin.Serve(ctx) })
	}
	return group.Wait()
}

// serveMain is Serve for the main address.
func (s *Server) serveMain(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", s.config.Name, err)
	case <-ctx.Done():
	}
	close(s.stopping)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownTimeout)
	defer cancel()
	err := s.server.Shutdown(grace)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	if err != nil {
		return fmt.Errorf("%s: calls in flight were cut off: %w", s.config.Name, err)
	}
	return nil
}

// serviceOf returns the full name of a procedure's service.
func serviceOf(procedure string) string {
	service, _, _ := strings.Cut(strings.TrimPrefix(procedure, "/"), "/")
	return service
}
