package rpc

import (
	"context"
	"io"
	"sync"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// inProcessBacklog is the number of messages that a stream buffers per direction.
const inProcessBacklog = 8

// inProcessStream is the caller's side of a stream. The service's side runs on a
// separate goroutine, from the first operation until its handler returns.
type inProcessStream struct {
	inProcessCall

	cancel   context.CancelFunc
	begin    sync.Once
	unsent   error                // why the call has not begun
	half     sync.Once            // closes requests
	requests chan mem.BufferSlice // closed by the caller
	answers  chan mem.BufferSlice // closed when the handler has returned
	returned chan struct{}        // likewise

	header connect.CallInfo // the answer's headers as they were with the first message; read after it
	opened bool             // of the service: header is set
	err    error            // what the handler returned; read when answers is closed

	headerRead bool  // the caller's
	held       int64 // bytes of the message that the caller received last
}

func newInProcessStream(
	ctx context.Context, to InProcess, info *connect.CallInfo, header grpcmeta.Header,
) *inProcessStream {
	ctx, cancel := context.WithCancel(ctx)
	return &inProcessStream{
		inProcessCall: inProcessCall{
			InProcess: to,
			ctx:       ctx,
			info:      info,
			header:    header,
			meter:     grpcmeta.MeterOf(header),
		},
		cancel:   cancel,
		requests: make(chan mem.BufferSlice, inProcessBacklog),
		answers:  make(chan mem.BufferSlice, inProcessBacklog),
		returned: make(chan struct{}),
	}
}

// SendHeaders implements [connect.ClientStream].
func (s *inProcessStream) SendHeaders() error {
	s.begin.Do(func() {
		if s.unsent = s.hand(); s.unsent != nil {
			s.cancel()
			return
		}
		go func() {
			defer close(s.answers)
			defer close(s.returned)
			s.err = s.serve((*inProcessServiceStream)(s))
			s.open()
		}()
	})
	return s.unsent
}

// open stores the response's headers, unless they are stored already.
func (s *inProcessStream) open() {
	if !s.opened {
		s.opened = true
		passHeader(s.header.ResponseHeader(), s.served.ResponseHeader())
	}
}

// Send implements [connect.ClientStream].
func (s *inProcessStream) Send(msg any) error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	data, err := s.put(msg)
	if err != nil {
		return err
	}
	select {
	case s.requests <- data:
		return nil
	case <-s.returned:
		data.Free()
		if s.info.Spec.StreamType&connect.StreamTypeClient == 0 {
			return nil // the call has ended before its one request; Receive returns the error
		}
		return io.EOF
	case <-s.ctx.Done():
		data.Free()
		return s.ctx.Err()
	}
}

// CloseSend implements [connect.ClientStream].
func (s *inProcessStream) CloseSend() error {
	s.half.Do(func() { close(s.requests) })
	return s.SendHeaders()
}

// Receive implements [connect.ClientStream].
func (s *inProcessStream) Receive(msg any) error {
	if err := s.SendHeaders(); err != nil {
		return err
	}
	s.meter.Release(s.held)
	s.held = 0
	select {
	case data, more := <-s.answers:
		if !s.headerRead {
			s.headerRead = true
			passHeader(s.info.ResponseHeader(), s.header.ResponseHeader())
		}
		if more {
			s.held = int64(data.Len())
			return s.take(data, msg)
		}
		passHeader(s.info.ResponseTrailer(), s.served.ResponseTrailer())
		s.cancel()
		if s.err != nil {
			return s.err
		}
		return io.EOF
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// Close implements [connect.ClientStream]. Buffered messages are left to the garbage collector.
func (s *inProcessStream) Close() error {
	s.cancel()
	return nil
}

// inProcessServiceStream is the service's side of a stream.
type inProcessServiceStream inProcessStream

// Receive implements [connect.ServerStream].
func (s *inProcessServiceStream) Receive(msg any) error {
	select {
	case data, more := <-s.requests:
		if !more {
			return io.EOF
		}
		return decodeRequest(data, msg)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// SendHeaders implements [connect.ServerStream]: they go with the first answer.
func (s *inProcessServiceStream) SendHeaders() error {
	(*inProcessStream)(s).open()
	return nil
}

// Send implements [connect.ServerStream].
func (s *inProcessServiceStream) Send(msg any) error {
	data, err := encode(messageCodec{}, msg)
	if err != nil {
		return err
	}
	size := int64(data.Len())
	if err := s.meter.Reserve(size); err != nil {
		return err
	}
	(*inProcessStream)(s).open()
	select {
	case s.answers <- data:
		return nil
	case <-s.ctx.Done():
		s.meter.Release(size)
		data.Free()
		return s.ctx.Err()
	}
}
