package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc/flood"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

const (
	// handshakeTimeout bounds the handshake of a new connection.
	handshakeTimeout = 5 * time.Second
	// grpcDeadAfter is the idle time after which the server pings a client, and grpcDeadTimeout the time to wait for
	// the reply before it closes the connection.
	grpcDeadAfter, grpcDeadTimeout = time.Minute, 10 * time.Second
	// grpcStreamWindow and grpcConnWindow are the flow control windows in bytes. They are fixed, because grpc-go's
	// bandwidth estimation sends a PING with nearly every message.
	grpcStreamWindow, grpcConnWindow = 256 << 10, 1 << 20
	// grpcWorkers is the number of goroutines that are reused for calls, because their stacks have grown already.
	// Further concurrent calls get a new goroutine.
	grpcWorkers = 64
	// grpcLeastPing is the shortest interval at which a client may send PINGs.
	grpcLeastPing = 5 * time.Second
	// longestMethod bounds the length of a method's name in bytes, because grpc-go quotes names that it cannot parse.
	longestMethod = 1 << 10
)

// grpcPort serves the methods of a connect.Server over grpc-go's HTTP/2 stack, at a separate address. The main address
// serves gRPC too, over net/http, but needs more CPU time per call (docs/decisions/0004-native-grpc-port.md).
//
// grpcPort implements only the transport: the interceptors and handlers are those of the connect.Server.
type grpcPort struct {
	config    Config
	surface   atomic.Pointer[grpcSurface]
	codec     encoding.CodecV2
	json      connect.Codec
	timeout   func(context.Context, connect.Spec) time.Duration // 0: only the caller's deadline applies
	margin    time.Duration                                     // see [HandlerContext]
	resets    *resetLimit                                       // nil: none
	clients   *clientLimit
	accepting *accepting
	slow      func() // called for each call whose request arrives too slowly
	unread    func() // called for each call whose client does not read the answer
	panicked  func(procedure string, panicked any)
	flooded   func(net.Conn, flood.Kind)
	listener  net.Listener // nil: config has no address for gRPC
}

// newGRPCPort returns a port without methods (see adopt). If config has no address for gRPC, the port does nothing.
// flooded is called for each connection that [flood] closes.
func newGRPCPort(
	config Config, codec encoding.CodecV2, json connect.Codec,
	timeout func(context.Context, connect.Spec) time.Duration, margin time.Duration, flooded func(net.Conn, flood.Kind),
) *grpcPort {
	return &grpcPort{
		config:  config,
		codec:   codec,
		json:    json,
		timeout: timeout,
		margin:  margin,
		flooded: flooded,
	}
}

// newServer returns grpc-go's server, and starts its worker goroutines.
func (p *grpcPort) newServer() *grpc.Server {
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(textCodec{p.codec}), grpc.UnknownServiceHandler(p.serve), grpc.InTapHandle(p.bound),
		grpc.MaxConcurrentStreams(uint32(p.config.MaxStreams)),
		grpc.MaxRecvMsgSize(p.config.MaxBodyBytes), grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(
			keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: grpcDeadAfter, Timeout: grpcDeadTimeout},
		),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: grpcLeastPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), grpc.NumStreamWorkers(grpcWorkers),
		grpc.StaticStreamWindowSize(grpcStreamWindow), grpc.StaticConnWindowSize(grpcConnWindow),
	}
	secure := insecure.NewCredentials()
	if p.config.TLS != nil {
		server := p.config.TLS.Server(p.config.ClientAuthorities)
		secure = credentials.NewTLS(
			&tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: server.GetConfigForClient},
		)
	}
	secure = watchedCredentials{secure, p.clients, p.flooded}
	if p.resets != nil {
		secure = countedCredentials{secure, p.resets}
	}
	return grpc.NewServer(append(options, grpc.Creds(secure))...)
}

// grpcSurface holds the served methods.
type grpcSurface struct {
	rpc   *connect.Server
	specs map[string]connect.Spec
}

// adopt replaces the served methods by those of rpc. Calls in flight finish with the previous methods.
func (p *grpcPort) adopt(rpc *connect.Server) {
	next := &grpcSurface{rpc: rpc, specs: map[string]connect.Spec{}}
	for spec := range rpc.Specs() {
		next.specs[spec.Procedure] = spec
	}
	p.surface.Store(next)
}

// listen binds the address.
func (p *grpcPort) listen(ctx context.Context) error {
	if p.config.GRPC == "" {
		return nil
	}
	listener, err := p.config.Sockets.take(ctx, p.config.GRPC)
	if err != nil {
		return fmt.Errorf("%s: gRPC: %w", p.config.Name, err)
	}
	p.listener = p.clients.listener(p.config.FastPaths.Listener(p.accepting.listener(listener)),
		p.config.MaxConnections)
	return nil
}

// addr returns the bound address; "": none.
func (p *grpcPort) addr() string {
	if p.listener == nil {
		return ""
	}
	return p.listener.Addr().String()
}

// run serves calls until ctx ends, and then waits for the calls in flight, for at most the shutdown timeout.
func (p *grpcPort) run(ctx context.Context) error {
	if p.listener == nil {
		return nil
	}
	server, failed := p.newServer(), make(chan error, 1)
	go func() { failed <- server.Serve(p.listener) }()
	select {
	case err := <-failed:
		server.Stop()
		return fmt.Errorf("%s: gRPC: %w", p.config.Name, err)
	case <-ctx.Done():
	}
	hard := time.AfterFunc(p.config.ShutdownTimeout, server.Stop)
	server.GracefulStop()
	err := <-failed
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil // the server was stopped before Serve was called
	}
	if !hard.Stop() {
		return errors.Join(fmt.Errorf("%s: gRPC: calls in flight were cut off", p.config.Name), err)
	}
	return err
}

// admitted is the state of a call whose headers have arrived.
type admitted struct {
	header   metadata.MD
	cancel   context.CancelFunc // releases the context with the time limit
	chosen   bool               // see [HandlerContext]
	arriving *grpcArrival
}

// grpcArrival is a call's context, and the meter to which its requests are charged.
type grpcArrival struct {
	lazydeadline.Context

	meter Meter // nil: requests are not charged
	late  atomic.Bool
}

// Err implements [context.Context]. grpc-go derives the status of a failed Receive from this error: a request that
// arrives too slowly fails with DEADLINE_EXCEEDED.
func (a *grpcArrival) Err() error {
	if a.late.Load() {
		return context.DeadlineExceeded
	}
	return a.Context.Err()
}

// bound sets a call's time limit before its messages are read, and retains its headers, because grpc-go returns only
// copies of them later.
func (p *grpcPort) bound(ctx context.Context, info *tap.Info) (context.Context, error) {
	if len(info.FullMethodName) > longestMethod {
		return nil, status.Errorf(codes.Unimplemented, "the method is not served: its name is longer than %d bytes",
			longestMethod)
	}
	call := admitted{header: info.Header, arriving: &grpcArrival{}}
	call.arriving.Plain = p.config.FastPaths.Deadlines.IsPlain()
	longest := p.timeout(ctx, p.surface.Load().specs[info.FullMethodName])
	deadline, given := ctx.Deadline()
	switch {
	case longest > 0:
		call.chosen = beginHandler(ctx, &call.arriving.Context, time.Now(), longest, p.margin)
		ctx, call.cancel = call.arriving, call.arriving.Cancel
	case given:
		beforeReset(ctx, &call.arriving.Context, deadline)
		ctx, call.cancel = call.arriving, call.arriving.Cancel
	default:
		ctx, call.cancel = context.WithCancel(ctx)
	}
	return contextkit.Carry(ctx, call), nil
}

// serve runs the handler of a call.
func (p *grpcPort) serve(_ any, stream grpc.ServerStream) (err error) {
	defer p.catch(&err)
	ctx := stream.Context()
	call, _ := contextkit.Carried[admitted](ctx) // see bound
	defer call.cancel()
	var (
		gone <-chan struct{}
		from string
	)
	if p.resets != nil {
		if resets, ok := resetsOf(ctx); ok {
			gone, from = resets.gone, resets.peer
			defer resets.ended(ctx, time.Now())
		}
	}
	procedure, _ := grpc.MethodFromServerStream(stream)
	served := p.surface.Load()
	spec, ok := served.specs[procedure]
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s is not served", excerpt.Text(procedure, excerpt.Name))
	}
	codec, ok := grpcCodecOf(call.header)
	if !ok {
		return status.Errorf(
			codes.Unimplemented, "messages are application/grpc+proto or application/grpc+json, not %s",
			excerpt.Text(strings.Join(call.header.Get("content-type"), ", "), excerpt.Name),
		)
	}
	info := &connect.CallInfo{
		Spec:     spec,
		PeerAddr: from,
		Protocol: connect.ProtocolNameGRPC,
		Codec:    codec,
	}
	grpcmeta.Into(info.RequestHeader(), call.header)
	if from, ok := peer.FromContext(ctx); ok {
		info.TransportInfo = from
	}
	if p.config.Proxies != nil {
		leave, err := p.clients.forwarded(info)
		if err != nil {
			return grpcStatus(err)
		}
		defer leave()
	}
	st := &grpcStream{
		grpc:   stream,
		info:   info,
		call:   call,
		config: &p.config,
		gone:   gone,
		single: spec.StreamType&connect.StreamTypeServer == 0,
	}
	if codec == connect.CodecNameJSON {
		st.json = p.json
	}
	err = served.rpc.Call(ctx, procedure, info, st)
	if call.arriving.late.Load() {
		p.slow()
	}
	if st.unread.Load() {
		p.unread()
	}
	if !st.opened {
		_ = stream.SetHeader(grpcmeta.From(info.ResponseHeader())) // an error means that the headers were sent already
	}
	stream.SetTrailer(grpcmeta.From(info.ResponseTrailer()))
	if err == nil {
		return nil
	}
	return grpcStatus(Public(err))
}

// catch recovers from a panic outside of a handler; handlers recover from their own panics. It must be deferred
// directly, because recover has no effect elsewhere.
func (p *grpcPort) catch(err *error) {
	if r := recover(); r != nil {
		p.panicked("", r)
		*err = grpcStatus(ErrUnfinished)
	}
}

// grpcCodecOf returns the name of the codec of a call's messages by its content type, protobuf by default, and whether
// it is supported.
func grpcCodecOf(md metadata.MD) (string, bool) {
	for _, contentType := range md.Get("content-type") {
		_, name, named := strings.Cut(contentType, "+")
		if named {
			return name, name == connect.CodecNameProto || name == connect.CodecNameJSON
		}
	}
	return connect.CodecNameProto, true
}

// grpcStatus converts an error to grpc-go's status error.
func grpcStatus(err *connect.Error) error {
	out := &spb.Status{Code: int32(err.Code()), Message: err.Message()}
	for _, detail := range err.Details() {
		out.Details = append(out.Details,
			&anypb.Any{TypeUrl: "type.googleapis.com/" + detail.Type, Value: detail.Value})
	}
	return status.ErrorProto(out)
}
