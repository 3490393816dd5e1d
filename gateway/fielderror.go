package gateway

import (
	"errors"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/internal/rpc"
)

// invalidField returns INVALID_ARGUMENT for a field of the request.
func invalidField(field, reason string) error {
	return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, field+": "+reason),
		&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: reason}},
		})
}

// fieldError returns the error of a field that the pipeline reads and cannot parse.
func (c *Call) fieldError(number protowire.Number, err error) error {
	name := "the message"
	if f := c.Method.Input.Descriptor().Fields().ByNumber(number); f != nil {
		name = string(f.Name())
	}
	if errors.Is(err, frame.ErrContradiction) {
		return rpc.WithDetails(
			connect.Errorf(connect.CodeInvalidArgument, "%s is given twice, with different values", name),
			&errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: name, Description: "given twice"}},
			},
		)
	}
	return connect.NewError(connect.CodeInvalidArgument, "the request is not a valid protobuf message")
}
