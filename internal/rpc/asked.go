package rpc

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
)

// Asked is an upstream call that has ended, as its client sees it.
type Asked struct {
	Ended

	// Span is the call's span; the server's span is a child of it.
	Span contextkit.SpanID
}

// AskedFunc is called when an upstream call has ended, with the context of the process
// that made it. It must not block.
type AskedFunc func(contextkit.RequestContext, Asked)

// WatchClient returns an interceptor that gives each call of a client a new span
// and calls asked when the call has ended. Calls of traces that are not sampled, and of
// the health and reflection protocols, pass unchanged.
func WatchClient(asked AskedFunc) connect.ClientInterceptor {
	return func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			rc, sampled := Sampled(ctx)
			info, ok := connect.CallInfoForClientContext(ctx)
			if !sampled || !ok || !counts(spec.Procedure) {
				return next(ctx, spec)
			}
			child := contextkit.SpanContext(ctx)
			if err := contextkit.Inject(child, info.RequestHeader()); err != nil {
				return nil, connect.NewError(connect.CodeInternal, "the call has no context").WithCause(err)
			}
			began := time.Now()
			stream, err := next(ctx, spec)
			return WatchStream(stream, err, spec.StreamType, func(err error) {
				asked(*rc, Asked{
					Ended: Ended{
						Outcome: Outcome{
							Procedure: spec.Procedure,
							Protocol:  info.Protocol,
							Started:   began,
							Took:      time.Since(began),
							Err:       err,
						},
						Server: info.PeerAddr,
					},
					Span: contextkit.In(child).SpanID,
				})
			})
		}
	}
}

// Sampled returns the context's contract, and whether its trace is sampled.
func Sampled(ctx context.Context) (rc *contextkit.RequestContext, sampled bool) {
	rc = contextkit.In(ctx)
	return rc, rc != nil && rc.Traceparent.Flags&contextkit.FlagSampled != 0
}

// WatchStream returns the stream of a call, which calls ended once, when the call has ended: with the
// call's error, nil if it succeeded, or CANCELED if the stream is closed before. err is the error of a
// call that could not begin.
func WatchStream(
	stream connect.ClientStream, err error, kind connect.StreamType, ended func(error),
) (connect.ClientStream, error) {
	if err != nil {
		ended(err)
		return nil, err
	}
	return &watchedStream{ClientStream: stream, single: kind&connect.StreamTypeServer == 0, ended: ended}, nil
}

type watchedStream struct {
	connect.ClientStream

	single bool // one answer ends the call
	done   atomic.Bool
	ended  func(error)
}

func (s *watchedStream) end(err error) {
	if s.done.CompareAndSwap(false, true) {
		s.ended(err)
	}
}

// Receive implements [connect.ClientStream].
func (s *watchedStream) Receive(msg any) error {
	err := s.ClientStream.Receive(msg)
	switch {
	case errors.Is(err, io.EOF):
		s.end(nil)
	case err != nil || s.single:
		s.end(err)
	}
	return err
}

// Close implements [connect.ClientStream].
func (s *watchedStream) Close() error {
	s.end(errClosed)
	return s.ClientStream.Close()
}

var errClosed = connect.NewError(connect.CodeCanceled, "the call was closed before it ended")
