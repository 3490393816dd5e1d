package upstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis/grpcmeta"
	"github.com/headgate/headgate/contextkit"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// connectBackoff is between attempts to connect: short, since a node that
// restarts should be found again within a second.
var connectBackoff = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

// endpoint is where a call goes, host:port.
type endpoint string

// WithEndpoint returns ctx for a call to an endpoint (host:port).
func WithEndpoint(ctx context.Context, address string) context.Context {
	return contextkit.Carry(ctx, endpoint(address))
}

// Transport implements [connect.Transport] over the pool's channels, and over what is
// local. The call's context names its endpoint, see [WithEndpoint]. Messages are
// *frame.Frame or protobuf messages.
type Transport struct{ pool *Pool }

// NewTransport returns a transport over pool.
func NewTransport(pool *Pool) *Transport { return &Transport{pool: pool} }

// NewClientStream implements [connect.Transport].
func (t *Transport) NewClientStream(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
	to, _ := contextkit.Carried[endpoint](ctx)
	if to == "" {
		return nil, connect.Errorf(connect.CodeInternal, "%s is called without an endpoint", spec.Procedure)
	}
	info, ok := connect.CallInfoForClientContext(ctx)
	if !ok {
		ctx, info = connect.NewClientContext(ctx)
	}
	info.Spec, info.PeerAddr, info.Protocol, info.Codec = spec, string(to), connect.ProtocolNameGRPC, connect.CodecNameProto
	if t.pool.config.Local != nil {
		if local := t.pool.config.Local(string(to)); local != nil {
			return local.NewClientStream(ctx, spec)
		}
	}
	channel, err := t.pool.take(string(to))
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the upstream cannot be connected to").WithCause(err)
	}
	if spec.StreamType == connect.StreamTypeUnary {
		return &unary{ctx: ctx, channel: channel, info: info}, nil
	}
	own, cancel := context.WithCancel(ctx)
	return &stream{caller: ctx, ctx: own, cancel: cancel, channel: channel, spec: spec, info: info}, nil
}

// stream is a [connect.ClientStream] over a grpc-go stream, opened by the first
// Send or Receive, when the request headers are complete.
type stream struct {
	caller  context.Context //nolint:containedctx // says why the call ended early
	ctx     context.Context //nolint:containedctx // the stream is the call; ends with it
	cancel  context.CancelFunc
	channel *channel
	spec    connect.Spec
	info    *connect.CallInfo

	open    sync.Once
	grpc    grpc.ClientStream
	openErr error
	end     sync.Once

	headersRead bool
	received    bool
	ended       bool
	answered    bool // the peer has sent headers or trailers, at least a content type
}

// SendHeaders implements [connect.ClientStream].
func (s *stream) SendHeaders() error {
	s.open.Do(func() {
		ctx := metadata.NewOutgoingContext(s.ctx, grpcmeta.From(s.info.RequestHeader()))
		desc := &grpc.StreamDesc{
			ClientStreams: s.spec.StreamType&connect.StreamTypeClient != 0,
			ServerStreams: s.spec.StreamType&connect.StreamTypeServer != 0,
		}
		var err error
		if s.grpc, err = s.channel.conn.NewStream(ctx, desc, s.spec.Procedure, s.channel.options[:]...); err != nil {
			s.openErr = local(s.caller, err)
		}
	})
	return s.openErr
}

// Send implements [connect.ClientStream].
func (s *stream) Send(msg any) error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	err := s.grpc.SendMsg(msg)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, io.EOF):
		return local(s.caller, err)
	case s.spec.StreamType&connect.StreamTypeClient == 0:
		return nil // the call has ended before its one request; Receive says how
	}
	return io.EOF
}

// CloseSend implements [connect.ClientStream].
func (s *stream) CloseSend() error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	return s.grpc.CloseSend()
}

// Receive implements [connect.ClientStream].
func (s *stream) Receive(msg any) error {
	if s.ended {
		return io.EOF
	}
	if err := s.SendHeaders(); err != nil {
		return err
	}
	err := s.grpc.RecvMsg(msg)
	s.readHeaders()
	single := s.spec.StreamType&connect.StreamTypeServer == 0 // of many requests
	if err == nil {
		s.received = true
		if single {
			// grpc-go has read a single answer's status with it.
			s.finish()
		}
		return nil
	}
	s.finish()
	if errors.Is(err, io.EOF) {
		if single && !s.received {
			return connect.NewError(connect.CodeInternal, "the upstream ended the call without an answer")
		}
		return io.EOF
	}
	if !s.answered || cutOff(err) {
		return local(s.caller, err)
	}
	return remote(err)
}

// readHeaders copies the answer's headers, once they are there.
func (s *stream) readHeaders() {
	if s.headersRead {
		return
	}
	s.headersRead = true
	if header, err := s.grpc.Header(); err == nil {
		s.answered = s.answered || len(header) > 0
		grpcmeta.Into(s.info.ResponseHeader(), header)
	}
}

// finish copies the trailers and gives the channel back.
func (s *stream) finish() {
	s.ended = true
	trailer := s.grpc.Trailer()
	s.answered = s.answered || len(trailer) > 0
	grpcmeta.Into(s.info.ResponseTrailer(), trailer)
	s.giveBack()
}

func (s *stream) giveBack() {
	s.end.Do(func() {
		s.cancel()
		s.channel.release()
	})
}

// Close implements [connect.ClientStream].
func (s *stream) Close() error {
	s.giveBack()
	return nil
}

// clockMargin is how much earlier than ours a peer's timer for the same deadline
// may end: it then resets the stream, and the deadline is why.
const clockMargin = 20 * time.Millisecond

// local is the error of a call in ctx that got no answer. What grpc-go says of it
// names addresses, and stays a cause.
func local(ctx context.Context, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < clockMargin {
		return context.DeadlineExceeded
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded: // grpc-go's timer may run out before the context's
		return connect.NewError(connect.CodeDeadlineExceeded, "the upstream did not answer in time").WithCause(err)
	case codes.ResourceExhausted:
		return connect.NewError(connect.CodeResourceExhausted, "the upstream's answer is too large").WithCause(err)
	}
	if cutOff(err) {
		return connect.NewError(connect.CodeUnavailable, "the upstream left before its answer was complete").WithCause(err)
	}
	return connect.NewError(connect.CodeUnavailable, "the upstream cannot be reached").WithCause(err)
}

// cuts are how grpc-go says that an answer broke off: its error is of the same type as
// the peer's verdict, and by its text alone known to be none.
var cuts = []string{
	io.ErrUnexpectedEOF.Error(), "error reading from server: ", "closing transport due to: ",
	"stream terminated by RST_STREAM with error code: ", "server closed the stream without sending trailers",
	"rpc error: code = Canceled desc = " + closing, closing,
}

// closing is what it says of a connection that we gave up, and of its streams either as
// their own end or as that of the connection, whichever comes first.
const closing = "grpc: the client connection is closing"

// cutOff reports whether an answer broke off: with its connection, with its stream, in
// the middle of a message. The node said no such thing, it is gone.
func cutOff(err error) bool {
	text := status.Convert(err).Message()
	return slices.ContainsFunc(cuts, func(cut string) bool { return strings.HasPrefix(text, cut) })
}

// remote turns a gRPC status into the peer's verdict, with its details.
func remote(err error) error {
	st := status.Convert(err)
	out := connect.NewError(connect.Code(st.Code()), st.Message())
	for _, detail := range st.Proto().GetDetails() {
		name := detail.GetTypeUrl()
		out = out.WithDetail(&connect.ErrorDetail{Type: name[strings.LastIndexByte(name, '/')+1:], Value: detail.GetValue()})
	}
	return out.WithRemote()
}
