package rpc

import (
	"context"
	"errors"
	"sync/atomic"

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
	done chan struct{} // closed when none is held
}

// watch returns the message's buffers, wrapped to report when they are freed.
func (t *tracked) watch(data mem.BufferSlice) mem.BufferSlice {
	t.left.Store(1)
	out := make(mem.BufferSlice, len(data))
	for i, buffer := range data {
		bytes := buffer.ReadOnlyData()
		if mem.IsBelowBufferPoolingThreshold(cap(bytes)) {
			out[i] = buffer // nothing reports that it is freed
			continue
		}
		t.left.Add(1)
		out[i] = mem.NewBuffer(&bytes, &reporting{t, buffer})
	}
	t.freed()
	return out
}

func (t *tracked) freed() {
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
// call, or its connection has ended. A call past its deadline waits too: a client that
// neither reads nor resets occupies its own share.
func sendTracked(stream grpc.ServerStream, msg any, gone <-chan struct{}) error {
	t := &tracked{msg: msg, done: make(chan struct{})}
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
