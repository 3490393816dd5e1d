package rpc

import (
	"context"

	"connectrpc.com/connect/v2"
)

// undecodable is the interceptor of services that applies [Undecodable] to the errors of Receive.
// The streams of this package apply it themselves.
func undecodable(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		switch stream.(type) {
		case *grpcStream, *inProcessService, *inProcessServiceStream:
		default:
			stream = decodedStream{stream}
		}
		return next(ctx, spec, stream)
	}
}

// decodedStream is a stream whose requests may be undecodable.
type decodedStream struct{ connect.ServerStream }

// Receive implements [connect.ServerStream].
func (s decodedStream) Receive(msg any) error { return Undecodable(s.ServerStream.Receive(msg)) }
