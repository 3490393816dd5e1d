package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
)

// retryAfter is the delay after which clients are advised to retry.
const retryAfter = 500 * time.Millisecond

// asConnectError maps the services' errors to RPC errors. No other place does.
func asConnectError(err error) error {
	var known *connect.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, kv.ErrChanged):
		return rpc.WithDetails(
			connect.NewError(connect.CodeAborted,
				"it was changed concurrently: read it again and retry").WithCause(err),
			rpc.Reason(rpc.ReasonChangedConcurrently),
		)
	}
	return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, "NATS is unavailable: retry").WithCause(err),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
}

// precondition returns the error of a request that the current state does not allow.
func precondition(reason rpc.ErrorReason, format string, args ...any) error {
	return rpc.WithDetails(connect.Errorf(connect.CodeFailedPrecondition, format, args...), rpc.Reason(reason))
}
