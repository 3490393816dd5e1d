package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"
)

// errStopping ends streams when the process stops.
var errStopping = connect.NewError(connect.CodeUnavailable, "the process is ending: call again, another one answers")

// endStreams ends response streams when the process begins to stop, so that their clients reconnect
// to another process before their connections are closed.
func (s *Server) endStreams(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if spec.StreamType&connect.StreamTypeServer == 0 {
			return next(ctx, spec, stream)
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		ended := make(chan struct{})
		defer close(ended)
		go func() { // ends with the call
			select {
			case <-s.stopping:
				cancel(errStopping)
			case <-ended:
			}
		}()
		err := next(ctx, spec, readingStream(ctx, stream))
		if err != nil && errors.Is(context.Cause(ctx), errStopping) {
			return errStopping
		}
		return err
	}
}
