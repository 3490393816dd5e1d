package rpc

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// flushBytes is the least size of an answer whose sender waits until grpc-go has written it.
// Smaller answers fit a stream's initial window.
const flushBytes = 32 << 10

// tracked is a message that reports when grpc-go no longer holds it. SendMsg returns as soon
// as the message is queued: without the report a call and its charge would end while its
// answer waits in memory for a client that does not read.
type tracked struct {
	msg  any
	left atomic.Int32  // buffers that are held, plus one until all have been counted
	gone atomic.Int32  // buffers that are no longer held
	done chan struct{} // closed when none is held
}

// watch returns the message's buffers, in parts of about 64 KiB that report when they are freed.
func (t *tracked) watch(data mem.BufferSlice) mem.BufferSlice {
	t.left.Store(1)
	out := make(mem.BufferSlice, 0, len(data)+data.Len()/writePart)
	for _, buffer := range data {
		bytes := buffer.ReadOnlyData()
		if mem.IsBelowBufferPoolingThreshold(cap(bytes)) {
			out = append(out, buffer) // nothing reports that it is freed
			continue
		}
		for len(bytes) >= 2*writePart {
			part := bytes[:writePart]
			bytes = bytes[writePart:]
			buffer.Ref()
			out = append(out, t.part(part, buffer))
		}
		out = append(out, t.part(bytes, buffer))
	}
	t.freed()
	return out
}

// part returns a part of a buffer, which has one reference for it.
func (t *tracked) part(bytes []byte, of mem.Buffer) mem.Buffer {
	t.left.Add(1)
	return mem.NewBuffer(&bytes, &reporting{t, of})
}

func (t *tracked) freed() {
	t.gone.Add(1)
	if t.left.Add(-1) == 0 {
		close(t.done)
	}
}

// reporting is the pool of one buffer: it reports that the buffer is freed.
type reporting struct {
	message *tracked
	buffer  mem.Buffer
}

// Get implements [mem.BufferPool]; it is not called.
func (r *reporting) Get(size int) *[]byte { return mem.DefaultBufferPool().Get(size) }

// Put implements [mem.BufferPool].
func (r *reporting) Put(*[]byte) {
	r.buffer.Free()
	r.message.freed()
}

// sendTracked sends a message and waits until it has been written, the client has reset the
// call, or its connection has ended. A call past its deadline waits too, until grpcSending cuts it
// off: a client that neither reads nor resets occupies its own share.
func sendTracked(stream grpc.ServerStream, t *tracked, gone <-chan struct{}) error {
	if err := stream.SendMsg(t); err != nil {
		return err
	}
	ctx := stream.Context()
	select {
	case <-t.done:
		return nil
	case <-gone:
		return context.Canceled
	case <-ctx.Done():
	}
	if gone == nil || errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	select {
	case <-t.done:
	case <-gone:
	}
	return ctx.Err()
}

// grpcSending watches a message that is sent. It implements [watched].
type grpcSending grpcStream

// start implements [watched].
func (s *grpcSending) start(now time.Time) time.Duration {
	s.sendBegan, s.written = now, 0
	return s.config.WriteTimeout
}

// check implements [watched]: a message whose next part the client has not read in time is cut off.
func (s *grpcSending) check(now time.Time) time.Duration {
	if left := s.config.WriteTimeout - now.Sub(s.sendBegan); left > 0 {
		return left
	}
	if s.tracked != nil {
		if written := s.tracked.gone.Load(); written > s.written {
			s.sendBegan, s.written = now, written
			return s.config.WriteTimeout
		}
	}
	if !s.unread.Swap(true) {
		s.cutOff()
		s.call.cancel()
	}
	return 0
}

// cutOff makes grpc-go forget the stream, whose messages and status it would store until the client reads them.
func (s *grpcSending) cutOff() {
	ctx := s.grpc.Context()
	conn, stream := watchedConn(ctx), streamID(grpc.ServerTransportStreamFromContext(ctx))
	if conn != nil && stream != 0 {
		conn.Cut(stream)
	}
}

// streamID returns the id of a stream of grpc-go, which does not export it; 0: it is unknown.
func streamID(of grpc.ServerTransportStream) uint32 {
	stream := reflect.Indirect(reflect.ValueOf(of))
	if stream.Kind() != reflect.Struct {
		return 0
	}
	if id := stream.FieldByName("id"); id.Kind() == reflect.Uint32 {
		return uint32(id.Uint())
	}
	return 0
}
