package upstream

import (
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// stream is a [connect.ClientStream] over an HTTP/2 stream, which the first Send or Receive opens,
// when the request headers are complete.
type stream struct {
	outgoing

	open    sync.Once
	call    callStream // nil: see openErr
	openErr error
	end     sync.Once

	headersRead bool
	ended       bool
}

// SendHeaders implements [connect.ClientStream].
func (s *stream) SendHeaders() error {
	s.open.Do(func() {
		s.call, s.openErr = s.begin(channels.Request{Whole: s.single()})
		s.openErr = localError(s.ctx, s.openErr)
	})
	return s.openErr
}

// Send implements [connect.ClientStream].
func (s *stream) Send(msg any) error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	wire, err := frame.Wire(msg)
	if err != nil {
		return connect.NewError(connect.CodeInternal, "the request cannot be encoded").WithCause(err)
	}
	single := s.info.Spec.StreamType&connect.StreamTypeClient == 0
	err = s.call.Send(s.ctx, wire, single)
	switch {
	case !errors.Is(err, io.EOF):
		return err
	case single:
		return nil // the call ended before its one request was sent; Receive returns the error
	}
	return io.EOF
}

// CloseSend implements [connect.ClientStream].
func (s *stream) CloseSend() error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	s.call.CloseSend()
	return nil
}

// Receive implements [connect.ClientStream].
func (s *stream) Receive(msg any) error {
	if s.ended {
		return io.EOF
	}
	if err := s.SendHeaders(); err != nil {
		return err
	}
	if s.single() {
		s.ended = true
		defer s.release()
		return localError(s.ctx, receiveOne(s.ctx, s.call, s.info, msg))
	}
	buffer, err := s.call.Receive(s.ctx)
	if !s.headersRead {
		s.headersRead = true
		grpcmeta.Add(s.info.ResponseHeader(), s.call.Header())
	}
	if err == nil {
		return decodeMessage(buffer, msg)
	}
	s.ended = true
	grpcmeta.Add(s.info.ResponseTrailer(), s.call.Trailer())
	s.release()
	if !errors.Is(err, io.EOF) {
		return localError(s.ctx, err)
	}
	if err := verdict(s.call); err != nil {
		return err
	}
	return io.EOF
}

// single reports whether the call has one answer to many requests.
func (s *stream) single() bool { return s.info.Spec.StreamType&connect.StreamTypeServer == 0 }

// release ends the stream and releases its channel.
func (s *stream) release() {
	s.end.Do(func() {
		s.open.Do(func() { s.openErr = connect.NewError(connect.CodeCanceled, "the call was closed before it began") })
		if s.call != nil {
			s.call.Close()
		}
		s.channel.release()
	})
}

// Close implements [connect.ClientStream].
func (s *stream) Close() error {
	s.release()
	return nil
}
