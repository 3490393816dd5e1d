package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"
)

// errUndecodable refuses a request message that cannot be decompressed or decoded.
var errUndecodable = connect.NewError(connect.CodeInvalidArgument, "the message cannot be decoded: send it in the content type and encoding that the headers name")

// Undecodable returns the error of a [connect.ServerStream]'s Receive as INVALID_ARGUMENT
// if it is INTERNAL or UNKNOWN: transports use these codes for a message that cannot be decompressed
// or decoded, and for a body whose chunks or base64 are malformed, which is the client's fault.
// They use other codes for a client that is gone or slow. Other errors, and nil, are returned unchanged.
func Undecodable(err error) error {
	if known, ok := errors.AsType[*connect.Error](err); ok && (known.Code() == connect.CodeInternal || known.Code() == connect.CodeUnknown) {
		return errUndecodable.WithCause(err)
	}
	return err
}

// undecodable is the interceptor of services that applies [Undecodable] to the errors of
// Receive. The streams of this package do so themselves.
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
