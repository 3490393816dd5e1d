package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/internal/rpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
)

// retryAfter is what a client is told to wait before it tries again.
const retryAfter = 500 * time.Millisecond

// asConnectError is the one place where the services' errors become RPC errors.
func asConnectError(err error) error {
	var known *connect.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, backbone.ErrChanged):
		return rpc.WithDetails(connect.NewError(connect.CodeAborted, "somebody else has changed it meanwhile: look at it again").WithCause(err), rpc.Reason("CHANGED_MEANWHILE"))
	}
	return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, "NATS does not answer: try again").WithCause(err),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// precondition refuses what cannot be done as things are.
func precondition(reason, format string, args ...any) error {
	return rpc.WithDetails(connect.Errorf(connect.CodeFailedPrecondition, format, args...), rpc.Reason(reason))
}
