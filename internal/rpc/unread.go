package rpc

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/flood"
)

// writePart is the part of an answer that a client must read within [Config.WriteTimeout].
const writePart = 64 << 10

// ErrUnread ends a call whose client does not read its answer. Over HTTP/2 the client's stream is reset with
// ENHANCE_YOUR_CALM, which gRPC clients report as RESOURCE_EXHAUSTED; over HTTP/1.1 its connection is closed.
var ErrUnread error = WithDetails(
	connect.NewError(connect.CodeResourceExhausted, "the client does not read the answer: call again and read it"),
	Reason(ReasonSlowConsumer),
)

// answering is an HTTP response writer that ends the response if the client does not read each part of it in time. Its
// methods must not be called concurrently.
type answering struct {
	http.ResponseWriter

	ctx    context.Context //nolint:containedctx // of the request
	bounds *writeBounds
	watch  *stopwatch
	cut    atomic.Bool

	started     bool      // the response has begun
	returned    bool      // the handler has returned; false after a panic, which aborts the response
	multiplexed bool      // HTTP/2: the connection may have other calls
	began       time.Time // when the current part began; guarded by the watch's mu
}

// writeBounds bounds the time for which a part of a response may wait for the client.
type writeBounds struct {
	timeout time.Duration
	unread  func() // called for each response that is cut off
}

// answers pools the writers of requests without a body, which are not used after the handler has returned.
var answers = sync.Pool{New: func() any { return new(answering) }}

func (a *answering) begin(ctx context.Context, w http.ResponseWriter, bounds *writeBounds, multiplexed bool) {
	a.ResponseWriter, a.ctx, a.bounds, a.multiplexed = w, ctx, bounds, multiplexed
	a.watch = stopwatches.Get().(*stopwatch) //nolint:forcetypeassert // the pool has no other type
	a.cut.Store(false)
	a.started, a.returned = false, false
	if !multiplexed {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // end has set one for the previous response
	}
}

// end releases the stopwatch. net/http writes the rest of the response, up to 4 KiB and often all of it, after the
// handler has returned. A write deadline bounds that too: if the client does not read the rest in time, its connection
// (HTTP/1.1) is closed or its stream (HTTP/2) is reset. Otherwise the response would occupy buffers of the kernel, or a
// goroutine, until the connection ends. The connection counts such a response, see [flood.Conn.Answers].
func (a *answering) end() {
	a.watch.stop()
	stopwatches.Put(a.watch)
	if a.multiplexed && a.ctx.Err() != nil {
		return // the stream has ended: net/http would reset it again
	}
	if !a.returned && a.multiplexed && !a.cut.Load() {
		if conn, ok := contextkit.Carried[*flood.Conn](a.ctx); ok {
			conn.Aborting()
		}
	}
	if !a.cut.Load() {
		_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Now().Add(a.bounds.timeout))
	}
}

// WriteHeader implements [http.ResponseWriter].
func (a *answering) WriteHeader(status int) {
	a.started = a.started || status >= http.StatusOK
	a.ResponseWriter.WriteHeader(status)
}

// Write implements [io.Writer]. Error: [ErrUnread].
func (a *answering) Write(p []byte) (written int, err error) {
	a.started = true
	for first := true; first || written < len(p) && err == nil; first = false {
		part := p[written:min(len(p), written+writePart)]
		a.watch.begin(a)
		var n int
		n, err = a.ResponseWriter.Write(part)
		a.watch.stop()
		written += n
	}
	return written, a.failed(err)
}

// FlushError implements the optional method of [http.ResponseController]. Error: [ErrUnread].
func (a *answering) FlushError() error {
	a.started = true
	a.watch.begin(a)
	err := http.NewResponseController(a.ResponseWriter).Flush()
	a.watch.stop()
	return a.failed(err)
}

// Flush implements [http.Flusher].
func (a *answering) Flush() { _ = a.FlushError() } // on an error, the next Write fails too

// Unwrap returns the writer for [http.ResponseController].
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// failed returns [ErrUnread] if the response was cut off, and err otherwise.
func (a *answering) failed(err error) error {
	if a.cut.Load() {
		return ErrUnread
	}
	return err
}

// start implements [watched].
func (a *answering) start(now time.Time) time.Duration {
	a.began = now
	return a.bounds.timeout
}

// check implements [watched]: it cuts off a response whose current part has waited too long.
func (a *answering) check(now time.Time) time.Duration {
	if left := a.bounds.timeout - now.Sub(a.began); left > 0 {
		return left
	}
	if a.cut.Swap(true) {
		return 0
	}
	a.bounds.unread()
	if conn, ok := contextkit.Carried[*flood.Conn](a.ctx); ok && a.multiplexed {
		conn.Cutting()
	} else if ok {
		conn.Counted()
	}
	_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Unix(1, 0)) // an ended connection needs none
	return 0
}

// Unread reports whether a stream of responses, or a response writer, was cut off because its client does not read it.
func Unread(of any) bool {
	for {
		if known, ok := of.(interface{ Unread() bool }); ok {
			return known.Unread()
		}
		wrapper, ok := of.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		of = wrapper.Unwrap()
	}
}

// Unread implements the method that [Unread] calls.
func (a *answering) Unread() bool { return a.cut.Load() }

// readStream is a stream of responses over HTTP whose Send and SendHeaders also return the errors of flushes, which
// Connect does not return.
type readStream struct {
	connect.ServerStream

	answer *answering
}

// readingStream returns a stream of responses whose Send fails with [ErrUnread] if its client does not read. Streams of
// other transports already do that.
func readingStream(ctx context.Context, stream connect.ServerStream) connect.ServerStream {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	info, known := connect.CallInfoForServerContext(ctx)
	if !ok || !known || !slices.Contains(flushing, info.Protocol) {
		return stream
	}
	return &readStream{stream, &a.answer}
}

// flushing lists the protocols whose streams do not return the errors of flushes.
var flushing = []string{connect.ProtocolNameConnect, connect.ProtocolNameGRPC, connect.ProtocolNameGRPCWeb}

// Unread implements the method that [Unread] calls.
func (s *readStream) Unread() bool { return s.answer.Unread() }

// Send implements [connect.ServerStream].
func (s *readStream) Send(msg any) error { return s.answer.failed(s.ServerStream.Send(msg)) }

// SendHeaders implements [connect.ServerStream].
func (s *readStream) SendHeaders() error { return s.answer.failed(s.ServerStream.SendHeaders()) }
