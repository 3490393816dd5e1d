package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
)

// Meter is charged for the bytes of a call's request messages. The call ends with its errors.
type Meter interface {
	// Reserve charges n bytes of messages that have arrived, before the handler receives them.
	Reserve(n int64) error
	// Hold charges n bytes until the call has ended.
	Hold(n int64) error
}

// Receiving makes the transport of the call in ctx charge meter for arriving request bytes, and end a Receive at the
// deadline of ctx. It must be called before the call's first Receive. In-process transports do not charge.
func Receiving(ctx context.Context, meter Meter) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		a.meter = meter
		a.by, _ = ctx.Deadline()
	} else if call, ok := contextkit.Carried[admitted](ctx); ok {
		call.arriving.meter = meter
	}
}

// errSlow is the error of a request that arrives too slowly.
var errSlow = connect.NewError(connect.CodeDeadlineExceeded, "the request did not arrive in time")

// Late returns the error of the call in ctx if its request was cut off because it arrived too slowly, and nil
// otherwise. It tells this apart from a cancelled call: over HTTP/1.1 net/http cancels the call's context before the
// read returns.
func Late(ctx context.Context) error {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok && a.slow.Load() {
		return errSlow
	}
	return nil
}

// arrivalBounds bounds the arrival of a request: it must arrive within timeout, and after grace at an average of at
// least rate bytes per second. In a stream of requests the bounds apply to each message, from its first byte on.
type arrivalBounds struct {
	timeout, grace time.Duration
	rate           int64
}

// graceShare is the divisor of the timeout for the grace period, in which no rate is required.
const graceShare = 4

func boundsOf(config Config) arrivalBounds {
	return arrivalBounds{
		timeout: config.BodyTimeout,
		grace:   config.BodyTimeout / graceShare,
		rate:    int64(config.MinBodyRate),
	}
}

// due returns the time, since a message began, at which more than n bytes of it must have arrived.
func (b arrivalBounds) due(n int64) time.Duration {
	return min(b.timeout, b.grace+time.Duration(float64(n)/float64(b.rate)*float64(time.Second)))
}

// arrivalKey finds the arrival of a call in its context.
type arrivalKey struct{}

// arrival is the body of a request that enforces arrivalBounds, and the context that carries it.
type arrival struct {
	context.Context //nolint:containedctx // it is one

	body   io.ReadCloser
	writer http.ResponseWriter
	answer answering
	bounds arrivalBounds
	meter  Meter     // nil: none
	by     time.Time // when it must have arrived; zero: unknown
	watch  *stopwatch
	failed error

	multiplexed bool        // the request is a stream of an HTTP/2 connection
	arrived     atomic.Bool // the request has arrived completely
	slow        atomic.Bool // the request was cut off

	framed   bool // the body consists of messages with a prefix each
	each     bool // the bounds apply to each message
	pumped   bool // the goroutine that reads the body may outlive the handler
	prefix   [framePrefix]byte
	prefixed int    // number of bytes of the prefix that have arrived; without prefixes, 1: a message has begun
	left     uint64 // number of bytes of the message that have not arrived

	// The following fields are guarded by the watch's mu.
	quiet    bool // no message has begun
	began    time.Time
	received int64 // number of bytes since it began
}

// framePrefix is the length of the prefix of gRPC's and Connect's messages.
const framePrefix = 5

// boundBodies bounds the time in which requests must arrive and responses must be read, so that a client that sends or
// reads slowly occupies capacity for a bounded time. It calls slow for each request, and unread for each response, that
// is cut off.
func boundBodies(config Config, slow, unread func(), next http.Handler) http.Handler {
	bounds, writes := boundsOf(config), &writeBounds{timeout: config.WriteTimeout, unread: unread}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength == 0 {
			answer := answers.Get().(*answering) //nolint:forcetypeassert // its own
			answer.begin(r.Context(), w, writes, r.ProtoMajor >= 2)
			defer answers.Put(answer)
			defer answer.end()
			next.ServeHTTP(answer, r)
			answer.returned = true
			return
		}
		contentType := r.Header.Get("Content-Type")
		a := &arrival{
			Context:     r.Context(),
			body:        r.Body,
			writer:      w,
			bounds:      bounds,
			watch:       stopwatches.Get().(*stopwatch), //nolint:forcetypeassert // its own
			multiplexed: r.ProtoMajor >= 2,
			framed: strings.HasPrefix(contentType, "application/grpc") ||
				strings.HasPrefix(contentType, "application/connect+"),
		}
		// The request is a copy, as in http.MaxBytesHandler: net/http uses the original's body
		// to decide whether the connection can carry another request.
		copied := r.WithContext(a) //nolint:contextcheck // a is in the request's own
		copied.Body = a
		a.answer.begin(r.Context(), w, writes, r.ProtoMajor >= 2)
		defer a.answer.end()
		defer func() {
			if a.end() {
				slow()
			}
			a.boundRest()
		}()
		next.ServeHTTP(&a.answer, copied)
		a.answer.returned = true
	})
}

// Value implements [context.Context].
func (a *arrival) Value(key any) any {
	if key == (arrivalKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// eachMessage applies the bounds of arrival to each message of a stream of requests, which may be idle between
// messages.
func eachMessage(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if spec.StreamType&connect.StreamTypeClient != 0 {
			if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
				a.each, a.pumped = true, true
			}
		}
		return next(ctx, spec, stream)
	}
}

// Read implements [io.Reader].
func (a *arrival) Read(p []byte) (int, error) {
	if a.failed != nil {
		return 0, a.failed
	}
	a.watch.begin(a)
	n, err := a.body.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		a.arrived.Store(true)
		a.watch.stop()
	case errors.Is(err, os.ErrDeadlineExceeded):
		a.failed, err = errSlow, errSlow
	}
	if n == 0 {
		return n, err
	}
	a.watch.received(a, int64(n))
	if a.each {
		a.messages(p[:n])
	}
	if a.meter != nil {
		if refused := a.meter.Reserve(int64(n)); refused != nil {
			a.failed = refused
			return n, refused
		}
	}
	return n, err
}

// Close implements [io.Closer].
func (a *arrival) Close() error {
	if a.boundRest() { // a stream of answers may last longer
		defer a.cutOffAt(time.Time{})
	}
	return a.body.Close()
}

// cutOffAt ends reads of the body at a time; zero: never. It has no effect on a connection without read deadlines.
func (a *arrival) cutOffAt(t time.Time) { _ = http.NewResponseController(a.writer).SetReadDeadline(t) }

// boundRest bounds the time in which net/http reads the rest of a request over HTTP/1.1, up to 256 KiB, to reuse the
// connection: to the grace period, or to no time if the request was cut off. It reports whether there may be a rest.
func (a *arrival) boundRest() bool {
	if a.multiplexed || a.arrived.Load() {
		return false
	}
	rest := a.bounds.grace
	if a.slow.Load() {
		rest = 0
	}
	a.cutOffAt(time.Now().Add(rest))
	return true
}

// MessageRead marks the end of a message of the stream of requests in ctx, if its messages have no prefix: the stream
// may then be idle until the next message begins. The goroutine that reads the body must call it.
func MessageRead(ctx context.Context) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok && a.each && !a.framed {
		a.prefixed = 0
		a.watch.stop()
	}
}

// messages parses the boundaries of messages in received bytes. White space between messages without prefixes does not
// begin a message.
func (a *arrival) messages(part []byte) {
	if !a.framed {
		if a.prefixed == 0 && len(bytes.TrimLeft(part, " \t\r\n")) > 0 {
			a.prefixed = 1
			a.watch.stop() // from now on it is due
		}
		return
	}
	for len(part) > 0 {
		if a.prefixed < framePrefix {
			n := copy(a.prefix[a.prefixed:], part)
			if a.prefixed == 0 {
				a.watch.stop() // from now on it is due
			}
			a.prefixed, part = a.prefixed+n, part[n:]
			if a.prefixed < framePrefix {
				return
			}
			for _, b := range a.prefix[1:] {
				a.left = a.left<<8 | uint64(b)
			}
		}
		n := min(a.left, uint64(len(part)))
		a.left, part = a.left-n, part[n:]
		if a.left > 0 {
			return
		}
		a.prefixed = 0
		a.watch.stop()
	}
}

// end stops the watch of the body, and reports whether the request was cut off.
func (a *arrival) end() (slow bool) {
	// The goroutine that reads a stream's requests may still be in Read: its watch is then not reused.
	a.watch.stopFor(a.pumped)
	if !a.pumped {
		stopwatches.Put(a.watch)
	}
	return a.slow.Load()
}

// start implements [watched].
func (a *arrival) start(now time.Time) time.Duration {
	a.quiet, a.began, a.received = a.each && a.prefixed == 0, now, 0
	return a.due(now)
}

// due returns the time until more bytes must have arrived; 0: no bound.
func (a *arrival) due(now time.Time) time.Duration {
	var due time.Duration
	if !a.by.IsZero() {
		due = max(a.by.Sub(now), 1)
	}
	if a.quiet {
		return due
	}
	if own := max(a.bounds.due(a.received)-now.Sub(a.began), 1); due == 0 || own < due {
		return own
	}
	return due
}

// check implements [watched].
func (a *arrival) check(now time.Time) time.Duration {
	if due := a.due(now); due != 1 {
		return due
	}
	a.slow.Store(true)
	a.cutOffAt(time.Unix(1, 0))
	return 0
}
