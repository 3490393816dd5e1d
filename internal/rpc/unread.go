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

// answering is a response over HTTP whose client must read each part of it in time. Its methods are called by one
// goroutine at a time.
type answering struct {
	http.ResponseWriter

	ctx    context.Context //nolint:containedctx // of the request
	bounds *writeBounds
	watch  *stopwatch
	cut    atomic.Bool

	started     bool      // the response has begun
	returned    bool      // the handler has returned: it has not given up the answer
	multiplexed bool      // the connection has other calls: HTTP/2
	began       time.Time // the part; the watch's mu is held
}

// writeBounds bound how long the parts of answers may wait to be written.
type writeBounds struct {
	timeout time.Duration
	unread  func() // counts an answer that is cut off
}

// answers are reused for requests without a body, of which nothing outlives the handler.
var answers = sync.Pool{New: func() any { return new(answering) }}

func (a *answering) begin(ctx context.Context, w http.ResponseWriter, bounds *writeBounds, multiplexed bool) {
	a.ResponseWriter, a.ctx, a.bounds, a.multiplexed = w, ctx, bounds, multiplexed
	a.watch = stopwatches.Get().(*stopwatch) //nolint:forcetypeassert // its own
	a.cut.Store(false)
	a.started, a.returned = false, false
	if !multiplexed {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of the answer before: see end
	}
}

// end releases what watches the answer. net/http writes the rest of it, of up to 4 KiB and often all of it, after the
// handler: the client must read that in time too, or its connection (HTTP/1.1) is closed or its stream (HTTP/2) is
// reset. Without a bound it would occupy the kernel's buffers, or a goroutine, for as long as its connection lasts. The
// connection counts such an answer, see [flood.Conn.Answers].
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

// FlushError is that of [http.ResponseController]. Error: [ErrUnread].
func (a *answering) FlushError() error {
	a.started = true
	a.watch.begin(a)
	err := http.NewResponseController(a.ResponseWriter).Flush()
	a.watch.stop()
	return a.failed(err)
}

// Flush implements [http.Flusher].
func (a *answering) Flush() { _ = a.FlushError() } // the next Write fails too

// Unwrap is for [http.ResponseController].
func (a *answering) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// failed returns the error of an operation.
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

// check implements [watched]: a part that has waited for too long is cut off.
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

// Unread reports whether a stream of answers, or a response writer, was ended because its client does not read.
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

// Unread is for [Unread].
func (a *answering) Unread() bool { return a.cut.Load() }

// readStream is a stream of answers over HTTP: the errors of flushes, which Connect does not return, are those of Send.
type readStream struct {
	connect.ServerStream

	answer *answering
}

// readingStream returns a stream of answers whose Send fails with [ErrUnread] if its client does not read. Streams of
// other transports return this error by themselves.
func readingStream(ctx context.Context, stream connect.ServerStream) connect.ServerStream {
	a, ok := ctx.Value(arrivalKey{}).(*arrival)
	info, known := connect.CallInfoForServerContext(ctx)
	if !ok || !known || !slices.Contains(flushing, info.Protocol) {
		return stream
	}
	return &readStream{stream, &a.answer}
}

// flushing are the protocols whose streams do not return the errors of flushes.
var flushing = []string{connect.ProtocolNameConnect, connect.ProtocolNameGRPC, connect.ProtocolNameGRPCWeb}

// Unread is for [Unread].
func (s *readStream) Unread() bool { return s.answer.Unread() }

// Send implements [connect.ServerStream].
func (s *readStream) Send(msg any) error { return s.answer.failed(s.ServerStream.Send(msg)) }

// SendHeaders implements [connect.ServerStream].
func (s *readStream) SendHeaders() error { return s.answer.failed(s.ServerStream.SendHeaders()) }
