package rpc

import (
	"context"
	"fmt"
	"io"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/internal/lazydeadline"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// ProtocolInProcess is the protocol in the [connect.CallInfo] of an in-process call.
const ProtocolInProcess = "in-process"

// InProcess is a [connect.Transport] to a service in the same process. It calls the same methods and interceptors as
// gRPC does, without its frames, goroutines and system calls (docs/decisions/0010-in-process-hop.md). As over gRPC,
// only headers and encoded messages are passed: the caller and the service share no message and no context value.
type InProcess struct {
	server *Server
	codec  encoding.CodecV2 // of the caller's messages
}

// InProcess returns a transport to the server's methods for callers in this process; codec encodes and decodes the
// callers' messages. A unary call runs on the caller's goroutine and ends with its handler. The transport rejects calls
// with UNAVAILABLE before the server listens, after the server has begun to stop (which waits for calls in flight), and
// beyond the number of concurrent calls that an HTTP/2 connection may have. It does not bound messages, because the
// process itself sends them.
func (s *Server) InProcess(codec encoding.CodecV2) InProcess { return InProcess{s, codec} }

// NewClientStream implements [connect.Transport].
func (t InProcess) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok {
		ctx, info = connect.NewClientContext(ctx)
	}
	info.Spec = spec
	return t.Open(ctx, info, grpcmeta.Of(info.RequestHeader()))
}

// Open begins a call of the procedure info.Spec with the headers, and writes the headers and trailers of the response
// to info.
func (t InProcess) Open(
	ctx context.Context, info *connect.CallInfo, header grpcmeta.Header,
) (connect.ClientStream, error) {
	info.Protocol, info.Codec = ProtocolInProcess, connect.CodecNameProto
	if info.Spec.StreamType == connect.StreamTypeUnary {
		return &inProcessUnary{inProcessCall: inProcessCall{
			InProcess: t,
			ctx:       ctx,
			info:      info,
			header:    header,
			meter:     grpcmeta.MeterOf(header),
		}}, nil
	}
	return newInProcessStream(ctx, t, info, header), nil
}

// inProcessCall is the state of an in-process call that both sides share.
type inProcessCall struct {
	InProcess

	ctx    context.Context      //nolint:containedctx // the stream is the call
	info   *connect.CallInfo    // of the caller
	header grpcmeta.Header      // headers of the caller
	meter  grpcmeta.Meter       // the caller's meter, to which responses are charged
	served connect.CallInfo     // of the service
	until  lazydeadline.Context // context of the handler
}

// hand passes the caller's headers to the service.
func (c *inProcessCall) hand() error {
	c.served.Spec, c.served.Protocol, c.served.Codec = c.info.Spec, ProtocolInProcess, connect.CodecNameProto
	fields, err := grpcmeta.Write(c.ctx, c.header)
	if err != nil {
		return err
	}
	defer fields.Free()
	fields.Into(c.served.RequestHeader())
	return nil
}

// serve runs the service's handler on its side of the stream. It returns the public error, see [Public].
func (c *inProcessCall) serve(stream connect.ServerStream) error {
	surface := c.server.grpc.surface.Load()
	if surface == nil || !c.server.within.TryAcquire(1) {
		return connect.Errorf(connect.CodeUnavailable, "%s takes no more calls now: try again in a moment",
			c.server.config.Name)
	}
	defer c.server.within.Release(1)
	c.until.Plain = c.server.config.FastPaths.Deadlines.IsPlain()
	ctx, cancel := lazydeadline.Detach(c.ctx, &c.until)
	defer cancel()
	err := surface.rpc.Call(ctx, c.info.Spec.Procedure, &c.served, stream)
	if err == nil {
		return nil
	}
	public := Public(err)
	verdict := connect.NewError(public.Code(), public.Message()) // without the cause
	for _, detail := range public.Details() {
		verdict = verdict.WithDetail(detail)
	}
	return verdict.WithRemote()
}

// put encodes a message of the caller.
func (c *inProcessCall) put(msg any) (mem.BufferSlice, error) { return encode(c.codec, msg) }

// take decodes a response for the caller.
func (c *inProcessCall) take(data mem.BufferSlice, msg any) error { return decode(c.codec, data, msg) }

func encode(codec encoding.CodecV2, msg any) (mem.BufferSlice, error) {
	data, err := codec.Marshal(msg)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, "the message cannot be written").WithCause(err)
	}
	return data, nil
}

func decode(codec encoding.CodecV2, data mem.BufferSlice, msg any) error {
	defer data.Free()
	if err := codec.Unmarshal(data, msg); err != nil {
		return connect.NewError(connect.CodeInternal, "the message cannot be read").WithCause(err)
	}
	return nil
}

// decodeRequest decodes a caller's message for the service. The error of an invalid message is the caller's.
func decodeRequest(data mem.BufferSlice, msg any) error {
	return Undecodable(decode(messageCodec{}, data, msg))
}

// passHeader copies a header.
func passHeader(to, from *connect.Header) {
	for key, values := range from.All() {
		to.SetValues(key, values)
	}
}

// inProcessUnary is both sides of a unary call. The handler runs when the caller receives the response. It must be used
// by one goroutine, as [connect.Client.CallUnary] does.
type inProcessUnary struct {
	inProcessCall

	request, answer mem.BufferSlice
	sent, ended     bool
}

// SendHeaders implements [connect.ClientStream]. The headers are sent with the request.
func (u *inProcessUnary) SendHeaders() error { return nil }

// Send implements [connect.ClientStream].
func (u *inProcessUnary) Send(msg any) (err error) {
	u.request, err = u.put(msg)
	u.sent = err == nil
	return err
}

// CloseSend implements [connect.ClientStream].
func (u *inProcessUnary) CloseSend() error { return nil }

// Receive implements [connect.ClientStream].
func (u *inProcessUnary) Receive(msg any) error {
	if u.ended {
		return io.EOF
	}
	u.ended = true
	if err := u.hand(); err != nil {
		return err
	}
	err := u.serve((*inProcessService)(u))
	passHeader(u.info.ResponseHeader(), u.served.ResponseHeader())
	passHeader(u.info.ResponseTrailer(), u.served.ResponseTrailer())
	switch {
	case err != nil:
		return err
	case u.answer == nil:
		return connect.NewError(connect.CodeInternal, "the service ended the call without an answer")
	}
	// The response is charged until the call ends, which releases all charges.
	if err := u.meter.Reserve(int64(u.answer.Len())); err != nil {
		return err
	}
	answer := u.answer
	u.answer = nil
	return u.take(answer, msg)
}

// Close implements [connect.ClientStream].
func (u *inProcessUnary) Close() error {
	u.ended = true
	u.request.Free()
	u.answer.Free()
	u.request, u.answer = nil, nil
	return nil
}

// inProcessService is the service's side of a unary call.
type inProcessService inProcessUnary

// Receive implements [connect.ServerStream].
func (s *inProcessService) Receive(msg any) error {
	if !s.sent {
		return io.EOF
	}
	s.sent = false
	request := s.request
	s.request = nil
	return decodeRequest(request, msg)
}

// SendHeaders implements [connect.ServerStream]. The headers are sent with the response.
func (s *inProcessService) SendHeaders() error { return nil }

// Send implements [connect.ServerStream].
func (s *inProcessService) Send(msg any) (err error) {
	s.answer.Free()
	s.answer, err = encode(messageCodec{}, msg)
	return err
}

// endWithin waits until ctx ends, and then for the in-process calls in flight, for at most the shutdown timeout.
// Further calls are rejected.
func (s *Server) endWithin(ctx context.Context) error {
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.ShutdownTimeout)
	defer cancel()
	if err := s.within.Acquire(grace, int64(s.config.MaxStreams)); err != nil {
		return fmt.Errorf("%s: in-process calls are still in flight: %w", s.config.Name, err)
	}
	return nil
}
