package rpc

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

// ErrNotServed is wrapped by [Tenants.Ready].
var ErrNotServed = errors.New("is not served here")

// ErrUnfinished is the error of a call whose handler panicked.
var ErrUnfinished = connect.NewError(connect.CodeInternal, "the call failed by a fault of the server")

// errUndecodable refuses a request message that cannot be decompressed or decoded.
var errUndecodable = connect.NewError(connect.CodeInvalidArgument,
	"the message cannot be decoded: send it in the content type and encoding that the headers name")

// Public returns the error that a client receives for a call's error: a [connect.Error], [Bounded];
// CANCELED or DEADLINE_EXCEEDED; or UNKNOWN without the cause.
func Public(err error) *connect.Error {
	var known *connect.Error
	switch {
	case errors.As(err, &known):
		return boundedError(known)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the call took longer than its deadline")
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "the call was canceled")
	}
	return connect.NewError(connect.CodeUnknown, "the call failed")
}

// Undecodable returns the error of a [connect.ServerStream]'s Receive as INVALID_ARGUMENT if it is
// INTERNAL or UNKNOWN. Transports use these codes if a message cannot be decompressed or decoded, or
// if the chunks or the base64 of a body are malformed, although the client is at fault. They use other
// codes if the client has disconnected or is slow. Undecodable returns other errors, and nil, unchanged.
func Undecodable(err error) error {
	if known, ok := errors.AsType[*connect.Error](err); ok &&
		(known.Code() == connect.CodeInternal || known.Code() == connect.CodeUnknown) {
		return errUndecodable.WithCause(err)
	}
	return err
}

// WithDetails returns err with messages (google.rpc.*) that clients act on.
func WithDetails(err *connect.Error, details ...proto.Message) *connect.Error {
	for _, message := range details {
		if detail, failed := connectproto.NewErrorDetail(message); failed == nil {
			err = err.WithDetail(detail)
		}
	}
	return err
}

// Challenge returns the value of WWW-Authenticate (RFC 6750 §3) for a denial of a credential: with an
// error if the call has one.
func Challenge(denial *connect.Error) string {
	for _, detail := range denial.Details() {
		message, err := connectproto.UnmarshalErrorDetail(detail)
		info, ok := message.(*errdetails.ErrorInfo)
		if err == nil && ok && ErrorReason(info.GetReason()) == ReasonNoCredential {
			return "Bearer"
		}
	}
	return `Bearer error="invalid_token"`
}

// CodeName returns the metric label of a call's outcome.
func CodeName(err error) string {
	if code := codeOf(err); code != 0 {
		return code.String()
	}
	return "ok"
}

// codeOf returns the code of a call's outcome, 0 for OK.
func codeOf(err error) connect.Code {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return 0
	case errors.Is(err, context.Canceled):
		return connect.CodeCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return connect.CodeDeadlineExceeded
	}
	code := connect.CodeOf(err)
	if code > connect.CodeUnauthenticated {
		return connect.CodeUnknown // a peer must not invent series
	}
	return code
}
