package rpc

import (
	"context"
	"errors"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/protobuf/proto"
)

// Validate is a server interceptor that checks each message of a request against the rules of its protobuf
// definition (buf.validate). A message that breaks them is INVALID_ARGUMENT, with the violations as a detail
// (buf.validate.Violations). Answers are not checked.
func Validate(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		return next(ctx, spec, validatedStream{stream})
	}
}

// validatedStream is a stream whose requests are checked.
type validatedStream struct{ connect.ServerStream }

// Receive implements [connect.ServerStream].
func (s validatedStream) Receive(msg any) error {
	if err := s.ServerStream.Receive(msg); err != nil {
		return err
	}
	message, ok := msg.(proto.Message)
	if !ok {
		return connect.Errorf(connect.CodeInternal, "a request of type %T cannot be validated", msg)
	}
	err := protovalidate.Validate(message)
	if err == nil {
		return nil
	}
	refusal := connect.NewError(connect.CodeInvalidArgument, err.Error()).WithCause(err)
	if violations, ok := errors.AsType[*protovalidate.ValidationError](err); ok {
		if detail, err := connectproto.NewErrorDetail(violations.ToProto()); err == nil {
			refusal = refusal.WithDetail(detail)
		}
	}
	return refusal
}
