package events

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
)

// retryAfter is the delay after which a client may try again, and subscribeAgain that of a refused subscription.
const retryAfter, subscribeAgain = 200 * time.Millisecond, time.Second

// Errors of subscriptions.
var (
	errMoved    = errors.New("the tenant is no longer served by this node")
	errStopping = errors.New("the node stops")
	errReplaced = errors.New("the journal was replaced, or has lost events")
	errMany     = errors.New("the tenant has too many subscriptions on this node")
	errManyAll  = errors.New("the node has too many subscriptions")
)

// asConnectError returns the RPC error of a failure.
func asConnectError(err error) error {
	var known *connect.Error
	unavailable := func(text string, reason rpc.ErrorReason) error {
		return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, text).WithCause(err),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}, rpc.Reason(reason))
	}
	exhausted := func(reason rpc.ErrorReason) error {
		return rpc.WithDetails(
			connect.NewError(connect.CodeResourceExhausted, err.Error()+": resume with the last position"),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(subscribeAgain)},
			rpc.Reason(reason),
		)
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, errMoved), errors.Is(err, errStopping), errors.Is(err, errReplaced):
		return unavailable(err.Error()+": resume with the last position", rpc.ReasonSubscriptionEnded)
	case errors.Is(err, errMany), errors.Is(err, errManyAll):
		return exhausted(rpc.ReasonTooManySubscriptions)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return unavailable("the journal is unavailable: retry", rpc.ReasonJournalUnavailable)
}

// wrongPosition returns the RPC error for a position in a field, nil if err is nil.
func wrongPosition(field string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, position.ErrEpoch):
		return rpc.WithDetails(
			connect.Errorf(connect.CodeInvalidArgument, "%s: %v; read from the beginning", field, err),
			rpc.Reason(rpc.ReasonPositionExpired, "field", field),
		)
	}
	return rpc.WithDetails(
		connect.Errorf(connect.CodeInvalidArgument, "%s: %v", field, err),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: err.Error()},
		}},
	)
}
