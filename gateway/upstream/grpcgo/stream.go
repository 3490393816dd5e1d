package grpcgo

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream/channels"
)

// Stream is a call. One goroutine may send while another receives; [Stream.Close] ends both.
type Stream struct {
	channel *Channel
	grpc    grpc.ClientStream
	cancel  context.CancelFunc
	memory  channels.Memory // of messages
	whole   bool            // the receiver wants the complete answer only

	// Set by the observer.
	sent     atomic.Bool // the headers are on a connection
	received atomic.Bool // so are the peer's trailers
	unsent   atomic.Bool // of a call that grpc-go has sent again, no message is, and none was received

	requested atomic.Bool // a message was to be sent

	// Used by the receiver alone.
	messages        []mem.Buffer // of a complete answer, not received yet
	over            bool
	err             error // set when over; io.EOF after the peer's trailers
	header, trailer []hpack.HeaderField
}

// description is that of any call: the caller knows how many messages there may be.
var description = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// streamKey is the key of a call's [Stream] in its context.
type streamKey struct{}

// calleeContext is a call's context as grpc-go sends its deadline: earlier than the caller's, by which it ends.
type calleeContext struct {
	context.Context //nolint:containedctx // it is one

	deadline time.Time
}

// Deadline implements [context.Context].
func (c calleeContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Open begins a call. ctx bounds the call, and its deadline, less the deadline margin (see [contextkit.CalleeTime]), is
// sent as the call's. Errors: that of ctx, [*channels.BrokenError], [channels.ErrHeadersTooLarge].
func (c *Channel) Open(ctx context.Context, request channels.Request) (*Stream, error) {
	if c.invalid != nil {
		return nil, &channels.BrokenError{Unreached: true, Cause: c.invalid}
	}
	callee := calleeContext{Context: ctx}
	if deadline, ok := ctx.Deadline(); ok {
		now := time.Now()
		if !now.Before(deadline) {
			return nil, context.DeadlineExceeded
		}
		callee.deadline = now.Add(contextkit.CalleeTime(deadline.Sub(now)))
	}
	s := &Stream{
		channel: c,
		memory:  channels.Memory{Pool: c.config.Memory, Meter: request.Meter},
		whole:   request.Whole,
	}
	outgoing := metadata.NewOutgoingContext(context.WithValue(callee, streamKey{}, s), requestMetadata(request.Fields))
	outgoing, s.cancel = context.WithCancel(outgoing)
	var err error
	//nolint:contextcheck // it derives from ctx
	if s.grpc, err = c.conn.NewStream(outgoing, description, request.Path); err != nil {
		s.cancel()
		return nil, s.explain(ctx, err)
	}
	if request.HasMessage {
		_ = s.Send(ctx, request.Message, request.Last) // Receive returns why the call has ended
	}
	return s, nil
}

// Send sends a message; last reports that it is the last one. It returns when the message's memory may be reused.
// Errors: that of ctx, which ends the stream; [io.EOF] when the call has ended, for the reason that [Stream.Receive]
// returns.
func (s *Stream) Send(ctx context.Context, message []byte, last bool) error {
	defer context.AfterFunc(ctx, s.cancel)()
	s.requested.Store(true)
	err := s.grpc.SendMsg(outbound(message))
	if err == nil && last {
		err = s.grpc.CloseSend()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return io.EOF
}

// CloseSend ends the request.
func (s *Stream) CloseSend() { _ = s.grpc.CloseSend() } // Receive returns why the call has ended

// Receive returns the next message; its buffer is pooled and must be freed. Errors: [io.EOF] after the peer's trailers;
// [*channels.BrokenError], also with the cause [channels.ErrTooLarge] or [channels.ErrCompressed];
// [*channels.MeterError]; that of ctx, which ends the stream.
func (s *Stream) Receive(ctx context.Context) (mem.Buffer, error) {
	defer context.AfterFunc(ctx, s.cancel)()
	if !s.whole {
		return s.next(ctx)
	}
	for !s.over {
		message, err := s.next(ctx)
		switch {
		case err != nil:
		case len(s.messages) < 2: // that there are two is an error of the caller's
			s.messages = append(s.messages, message)
		default:
			message.Free()
		}
	}
	if len(s.messages) == 0 || !errors.Is(s.err, io.EOF) {
		return nil, s.err
	}
	message := s.messages[0]
	s.messages = s.messages[1:]
	return message, nil
}

// next returns the next message. The first error ends the answer.
func (s *Stream) next(ctx context.Context) (mem.Buffer, error) {
	if s.over {
		return nil, s.err
	}
	message := inbound{memory: &s.memory}
	err := s.grpc.RecvMsg(&message)
	if err == nil && message.err == nil {
		return message.buffer, nil
	}
	s.over = true
	if err == nil {
		s.cancel()
		s.err = message.err
		return nil, s.err
	}
	if !errors.Is(err, io.EOF) || !s.received.Load() || s.unanswered(err) {
		if why := s.explain(ctx, err); why != nil {
			s.err = why
			return nil, s.err
		}
	}
	s.err = io.EOF
	s.conclude(err)
	return nil, s.err
}

// Header returns the answer's header fields, after the first message or the end. It is empty for a trailers-only
// answer.
func (s *Stream) Header() []hpack.HeaderField {
	if s.header == nil {
		s.header = s.answerHeader()
	}
	return s.header
}

// Trailer returns the answer's trailers, after it has ended.
func (s *Stream) Trailer() []hpack.HeaderField { return s.trailer }

// Close ends the call, if it has not ended, and frees unreceived messages.
func (s *Stream) Close() {
	s.cancel()
	for _, message := range s.messages {
		message.Free()
	}
	s.messages = nil
}
