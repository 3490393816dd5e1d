package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// grpcStream adapts a gRPC call to [connect.ServerStream].
type grpcStream struct {
	grpc     grpc.ServerStream
	info     *connect.CallInfo
	call     admitted
	config   *Config
	single   bool          // one answer
	json     connect.Codec // nil: messages are protobuf
	opened   bool
	received bool
	incoming incoming        // the message that is received
	gone     <-chan struct{} // closed when the connection has ended; nil: unknown

	// Of the request, while a watch is on it.
	began   time.Time
	charged bool
	refused error // by the meter

	// Of the message that is sent, while a watch is on it.
	sendBegan time.Time
	tracked   *tracked // nil: it is small
	written   int32    // parts of it, at the last check
	unread    atomic.Bool
}

// incoming is a message that is received. grpc-go ends a call as INTERNAL when its codec
// fails, so the codec stores the error here.
type incoming struct {
	msg        any  // nil: the message is discarded
	compressed bool // possibly: the call has an encoding
	err        error
}

// unmarshal decodes data by codec.
func (m *incoming) unmarshal(codec encoding.CodecV2, data mem.BufferSlice) {
	if m.compressed && isUndecompressed(data) {
		m.err = errUndecompressed
		return
	}
	if m.msg == nil {
		return
	}
	if t, ok := m.msg.(*text); ok {
		t.bytes = data.Materialize()
		return
	}
	m.err = codec.Unmarshal(data, m.msg)
}

// errUndecompressed is the cause of a message that could not be decompressed.
var errUndecompressed = errors.New("rpc: the message cannot be decompressed")

// Receive implements [connect.ServerStream]. A method of one request is called with exactly
// one (gRPC's "cardinality violations" are UNIMPLEMENTED), which must arrive in time. grpc-go
// does not show when a message of a stream begins, so the most that it may store of one is
// charged for as long as the stream lasts.
func (s *grpcStream) Receive(msg any) error {
	if s.info.Spec.StreamType&connect.StreamTypeClient != 0 {
		if !s.received && s.call.arriving.meter != nil {
			if err := s.call.arriving.meter.Hold(grpcStreamWindow); err != nil {
				return err
			}
		}
		s.received = true
		return s.receive(msg)
	}
	if s.received {
		return io.EOF
	}
	s.received = true
	watch := stopwatches.Get().(*stopwatch) //nolint:forcetypeassert // its own
	watch.begin(s)
	err := s.receiveOne(msg)
	watch.stop()
	stopwatches.Put(watch)
	switch {
	case s.refused != nil:
		return s.refused
	case s.call.arriving.late.Load():
		return errSlow
	}
	return err
}

// slowArrival is how long a request may take to arrive before its greatest possible size is
// charged: grpc-go does not show how much of it has arrived.
const slowArrival = 250 * time.Millisecond

// start implements [watched].
func (s *grpcStream) start(now time.Time) time.Duration {
	s.began = now
	return min(slowArrival, s.config.BodyTimeout)
}

// check implements [watched].
func (s *grpcStream) check(now time.Time) time.Duration {
	taken := now.Sub(s.began)
	if taken < slowArrival && taken < s.config.BodyTimeout {
		return min(slowArrival, s.config.BodyTimeout) - taken
	}
	if meter := s.call.arriving.meter; meter != nil && !s.charged {
		s.charged = true
		s.refused = meter.Hold(int64(s.config.MaxBodyBytes))
	}
	if taken < s.config.BodyTimeout && s.refused == nil {
		return s.config.BodyTimeout - taken
	}
	s.call.arriving.late.Store(true)
	s.call.cancel()
	return 0
}

// receiveOne receives the one request of a call.
func (s *grpcStream) receiveOne(msg any) error {
	if err := s.receive(msg); errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeUnimplemented, "the call has no message")
	} else if err != nil {
		return err
	}
	if err := s.read(nil); err == nil {
		return connect.NewError(connect.CodeUnimplemented, "the call has more than one message")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receive reads a message, whichever codec it is in.
func (s *grpcStream) receive(msg any) error {
	if s.json == nil {
		return s.read(msg)
	}
	var message text
	if err := s.read(&message); err != nil {
		return err
	}
	return s.json.UnmarshalRead(s.grpc.Context(), bytes.NewReader(message.bytes), msg)
}

func (s *grpcStream) read(msg any) error {
	s.incoming = incoming{msg: msg, compressed: len(s.call.header.Get("grpc-encoding")) > 0}
	err := s.grpc.RecvMsg(&s.incoming)
	switch {
	case err == nil && s.incoming.err != nil:
		return errUndecodable.WithCause(s.incoming.err)
	case err == nil, errors.Is(err, io.EOF):
		return err
	case s.grpc.Context().Err() != nil:
		return s.grpc.Context().Err()
	}
	switch code := status.Code(err); code {
	case codes.ResourceExhausted:
		return connect.Errorf(connect.CodeResourceExhausted, "the message is larger than %d bytes",
			s.config.MaxBodyBytes)
	case codes.Internal: // grpc-go's code for a message that is truncated or has wrong flags
		return errUndecodable.WithCause(err)
	default:
		return connect.NewError(connect.Code(code), "the message cannot be read").WithCause(err)
	}
}

// SendHeaders implements [connect.ServerStream].
func (s *grpcStream) SendHeaders() error {
	if s.opened {
		return nil
	}
	s.opened = true
	return s.sent(s.grpc.SendHeader(grpcmeta.From(s.info.ResponseHeader())))
}

// sent returns the error of a call whose answer could not be sent: usually the call has ended, as
// its client's deadline has passed or the client has left. grpc-go returns statuses, which are not
// Connect errors.
func (s *grpcStream) sent(err error) error {
	if err == nil {
		return nil
	}
	if ended := s.grpc.Context().Err(); ended != nil {
		return ended
	}
	switch code := status.Code(err); code {
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case codes.Canceled, codes.Unavailable: // the connection has ended: the client has left
		return context.Canceled
	case codes.Unknown: // not a status
		return err
	default:
		return connect.NewError(connect.Code(code), "the answer cannot be sent").WithCause(err)
	}
}

// Send implements [connect.ServerStream].
func (s *grpcStream) Send(msg any) error {
	if s.json != nil {
		var message bytes.Buffer
		if err := s.json.MarshalWrite(s.grpc.Context(), &message, msg); err != nil {
			if _, known := errors.AsType[*connect.Error](err); known {
				return err
			}
			return connect.NewError(connect.CodeInternal, "the answer has no JSON form").WithCause(err)
		}
		msg = &text{message.Bytes()}
	}
	if !s.opened {
		s.opened = true
		s.compress(msg)
		// The headers go with the message: what is ready is written together. (SetHeader
		// would copy them.)
		if err := s.grpc.SendHeader(grpcmeta.From(s.info.ResponseHeader())); err != nil {
			return s.sent(err)
		}
	}
	small := isSmall(msg)
	if small && s.single {
		return s.sent(s.grpc.SendMsg(msg)) // the first message fits grpc-go's queue
	}
	if s.tracked = nil; !small {
		s.tracked = &tracked{msg: msg, done: make(chan struct{})}
	}
	watch := stopwatches.Get().(*stopwatch) //nolint:forcetypeassert // its own
	watch.begin((*grpcSending)(s))
	var err error
	if small {
		err = s.grpc.SendMsg(msg)
	} else {
		err = sendTracked(s.grpc, s.tracked, s.gone)
	}
	watch.stop()
	stopwatches.Put(watch)
	if s.unread.Load() {
		return ErrUnread
	}
	return s.sent(err)
}

// Unread is for [Unread].
func (s *grpcStream) Unread() bool { return s.unread.Load() }

// isSmall reports whether grpc-go may queue a message.
func isSmall(msg any) bool {
	if sized, ok := msg.(interface{ Len() int }); ok {
		return sized.Len() < flushBytes
	}
	message, ok := msg.(proto.Message)
	return ok && proto.Size(message) < flushBytes
}

// text is a message in its wire format.
type text struct{ bytes []byte }

// Len returns its length in bytes.
func (t *text) Len() int { return len(t.bytes) }

// textCodec passes texts unchanged, and stores errors in the [incoming] message.
type textCodec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c textCodec) Marshal(msg any) (mem.BufferSlice, error) {
	if t, ok := msg.(*tracked); ok {
		data, err := c.Marshal(t.msg)
		if err != nil {
			return nil, err
		}
		return t.watch(data), nil
	}
	if t, ok := msg.(*text); ok {
		return mem.BufferSlice{mem.SliceBuffer(t.bytes)}, nil
	}
	return c.CodecV2.Marshal(msg)
}

// Unmarshal implements [encoding.CodecV2].
func (c textCodec) Unmarshal(data mem.BufferSlice, msg any) error {
	if m, ok := msg.(*incoming); ok {
		m.unmarshal(c.CodecV2, data)
		return nil
	}
	return c.CodecV2.Unmarshal(data, msg)
}

// messageCodec is a service's codec on its gRPC port.
type messageCodec struct{}

// Name implements [encoding.CodecV2].
func (messageCodec) Name() string { return connect.CodecNameProto }

// Marshal implements [encoding.CodecV2].
func (messageCodec) Marshal(msg any) (mem.BufferSlice, error) {
	message, ok := msg.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("rpc: cannot send a %T", msg)
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Unmarshal implements [encoding.CodecV2].
func (messageCodec) Unmarshal(data mem.BufferSlice, msg any) error {
	message, ok := msg.(proto.Message)
	if !ok {
		return fmt.Errorf("rpc: cannot receive a %T", msg)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return proto.Unmarshal(buffer.ReadOnlyData(), message)
}
