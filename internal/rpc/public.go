package rpc

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"
)

// Public returns what a client may know of a call's error: one of our own making, [Bounded],
// or that the call ended early, or nothing.
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
