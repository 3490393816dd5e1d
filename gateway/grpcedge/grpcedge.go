// Package grpcedge serves gRPC on grpc-go's HTTP/2 stack, on a port of its own:
// the same methods and the same pipeline as the edge's main port, where net/http
// speaks gRPC too, at less CPU a call
// (docs/decisions/0004-native-grpc-port.md).
//
// It is a transport and nothing else: it hands each call to a connect.Server.
package grpcedge

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/grpcmeta"
	"golang.org/x/net/netutil"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// handshakeTimeout bounds a new connection's first words.
	handshakeTimeout = 5 * time.Second
	// maxHeaderBytes bounds a call's headers, as on the main port.
	maxHeaderBytes = 64 << 10
	// idleTimeout ends a connection without calls.
	idleTimeout = 2 * time.Minute
	// deadAfter and deadTimeout find a client that is gone.
	deadAfter, deadTimeout = time.Minute, 10 * time.Second
	// streamWindow and connWindow are the bytes of requests that may be under way:
	// fixed, since finding them out asks the client for a PING with nearly every one.
	streamWindow, connWindow = 256 << 10, 1 << 20
	// streamWorkers answer calls one after the other, each on a stack that has grown
	// already; calls beyond them get a goroutine of their own.
	streamWorkers = 64
	// leastPing is how often a client may ask for a sign of life.
	leastPing = 5 * time.Second
)

// Server serves the calls of a connect.Server.
type Server struct {
	config   chassis.Config
	surface  atomic.Pointer[surface]
	json     connect.Codec
	timeout  func(procedure string) time.Duration
	server   *grpc.Server
	listener net.Listener
}

// New returns a server for the methods that rpc has now. timeout bounds a
// procedure's calls, also those whose message never comes.
func New(config chassis.Config, rpc *connect.Server, timeout func(procedure string) time.Duration) *Server {
	s := &Server{config: config.WithDefaults(), json: frame.JSONCodec(), timeout: timeout}
	s.Adopt(rpc)
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(frame.GRPCCodec{}), grpc.UnknownServiceHandler(s.serve), grpc.InTapHandle(s.bound),
		grpc.MaxConcurrentStreams(uint32(s.config.MaxStreams)), //nolint:gosec // a bound of thousands
		grpc.MaxRecvMsgSize(s.config.MaxBodyBytes), grpc.MaxHeaderListSize(maxHeaderBytes), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout, Time: deadAfter, Timeout: deadTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: leastPing, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true), grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(connWindow),
	}
	if s.config.TLS != nil {
		server := s.config.TLS.Server()
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: server.GetConfigForClient})))
	}
	s.server = grpc.NewServer(options...)
	return s
}

// surface is what is served.
type surface struct {
	rpc   *connect.Server
	specs map[string]connect.Spec
}

// Adopt serves rpc's methods from the next call on. Calls in flight end as they
// began.
func (s *Server) Adopt(rpc *connect.Server) {
	next := &surface{rpc: rpc, specs: map[string]connect.Spec{}}
	for spec := range rpc.Specs() {
		next.specs[spec.Procedure] = spec
	}
	s.surface.Store(next)
}

// Listen binds the address.
func (s *Server) Listen(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.config.Addr)
	if err != nil {
		return fmt.Errorf("%s: %w", s.config.Name, err)
	}
	s.listener = netutil.LimitListener(listener, s.config.MaxConnections)
	return nil
}

// Addr returns the bound address, host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve answers calls until ctx ends, then lets those in flight finish within
// the shutdown timeout.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("%s: %w", s.config.Name, err)
	case <-ctx.Done():
	}
	hard := time.AfterFunc(s.config.ShutdownTimeout, s.server.Stop)
	s.server.GracefulStop()
	if !hard.Stop() {
		return errors.Join(fmt.Errorf("%s: calls in flight were cut off", s.config.Name), <-failed)
	}
	return <-failed
}

type admittedKey struct{}

// admitted is a call whose headers have come.
type admitted struct {
	header metadata.MD
	cancel context.CancelFunc // ends its longest time
}

// bound gives a call its longest time before anything of it is read, and keeps its
// headers: what grpc-go gives of them later is a copy.
func (s *Server) bound(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout(info.FullMethodName))
	return context.WithValue(ctx, admittedKey{}, &admitted{info.Header, cancel}), nil
}

// serve hands a call over.
func (s *Server) serve(_ any, grpcStream grpc.ServerStream) error {
	ctx := grpcStream.Context()
	procedure, _ := grpc.MethodFromServerStream(grpcStream)
	served := s.surface.Load()
	spec, ok := served.specs[procedure]
	if !ok {
		return status.Errorf(codes.Unimplemented, "%s is not served", procedure)
	}
	call := ctx.Value(admittedKey{}).(*admitted)
	defer call.cancel()
	md := call.header
	codec, ok := codecOf(md)
	if !ok {
		return status.Errorf(codes.Unimplemented, "messages are application/grpc+proto or application/grpc+json, not %s", md.Get("content-type"))
	}
	info := &connect.CallInfo{Spec: spec, Protocol: connect.ProtocolNameGRPC, Codec: codec}
	if from, ok := peer.FromContext(ctx); ok {
		info.PeerAddr = from.Addr.String()
	}
	grpcmeta.Into(info.RequestHeader(), md)
	st := &stream{grpc: grpcStream, info: info, single: spec.StreamType&connect.StreamTypeServer == 0, maxBytes: s.config.MaxBodyBytes}
	if codec == connect.CodecNameJSON {
		st.json = s.json
	}
	err := served.rpc.Call(ctx, procedure, info, st)
	if !st.opened {
		_ = grpcStream.SetHeader(grpcmeta.From(info.ResponseHeader())) // it only fails when they have been sent
	}
	grpcStream.SetTrailer(grpcmeta.From(info.ResponseTrailer()))
	if err == nil {
		return nil
	}
	return toStatus(chassis.Public(err))
}

// codecOf returns how the call's messages are written: protobuf unless its
// content type says JSON.
func codecOf(md metadata.MD) (string, bool) {
	for _, contentType := range md.Get("content-type") {
		_, name, named := strings.Cut(contentType, "+")
		if named {
			return name, name == connect.CodecNameProto || name == connect.CodecNameJSON
		}
	}
	return connect.CodecNameProto, true
}

// toStatus renders an error as gRPC does.
func toStatus(err *connect.Error) error {
	out := &spb.Status{Code: int32(err.Code()), Message: err.Message()} //nolint:gosec // 16 codes
	for _, detail := range err.Details() {
		out.Details = append(out.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + detail.Type, Value: detail.Value})
	}
	return status.ErrorProto(out)
}

// stream is a gRPC call as Connect sees it.
type stream struct {
	grpc     grpc.ServerStream
	info     *connect.CallInfo
	single   bool          // one answer
	json     connect.Codec // nil: messages are protobuf
	opened   bool
	received bool
	maxBytes int
}

// Receive implements [connect.ServerStream]. A method of one request is called
// with exactly one (gRPC's "cardinality violations" are UNIMPLEMENTED).
func (s *stream) Receive(msg any) error {
	if s.info.Spec.StreamType&connect.StreamTypeClient != 0 {
		return s.receive(msg)
	}
	if s.received {
		return io.EOF
	}
	s.received = true
	if err := s.receive(msg); errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeUnimplemented, "the call has no message")
	} else if err != nil {
		return err
	}
	if err := s.read(&frame.Frame{}); err == nil {
		return connect.NewError(connect.CodeUnimplemented, "the call has more than one message")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receive reads a message, whichever codec it is in.
func (s *stream) receive(msg any) error {
	if s.json == nil {
		return s.read(msg)
	}
	var text frame.Frame
	if err := s.read(&text); err != nil {
		return err
	}
	return s.json.UnmarshalRead(s.grpc.Context(), bytes.NewReader(text.Data), msg)
}

func (s *stream) read(msg any) error {
	err := s.grpc.RecvMsg(msg)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return err
	case s.grpc.Context().Err() != nil:
		return s.grpc.Context().Err()
	}
	st := status.Convert(err)
	if st.Code() == codes.ResourceExhausted {
		return connect.Errorf(connect.CodeResourceExhausted, "the message is larger than %d bytes", s.maxBytes)
	}
	return connect.NewError(connect.Code(st.Code()), "the message cannot be read").WithCause(err)
}

// SendHeaders implements [connect.ServerStream].
func (s *stream) SendHeaders() error {
	if s.opened {
		return nil
	}
	s.opened = true
	return s.grpc.SendHeader(grpcmeta.From(s.info.ResponseHeader()))
}

// Send implements [connect.ServerStream].
func (s *stream) Send(msg any) error {
	if s.json != nil {
		var text bytes.Buffer
		if err := s.json.MarshalWrite(s.grpc.Context(), &text, msg); err != nil {
			return connect.NewError(connect.CodeInternal, "the answer has no JSON form").WithCause(err)
		}
		msg = &frame.Frame{Data: text.Bytes()}
	}
	if !s.opened {
		s.opened = true
		s.compress(msg)
		// The headers go with the message.
		if err := s.grpc.SetHeader(grpcmeta.From(s.info.ResponseHeader())); err != nil {
			return err
		}
	}
	return s.grpc.SendMsg(msg)
}
