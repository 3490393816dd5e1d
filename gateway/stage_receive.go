package gateway

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
)

// receive reads the request, or a stream's first message. A client stream is opened without one if
// the pipeline needs no field of it.
func (g *Gateway) receive(ctx context.Context, call *Call) (context.Context, error) {
	call.request.Program = call.Method.Input
	if !call.needsFirst() {
		return ctx, nil
	}
	if err := call.read(&call.request); err != nil {
		return ctx, g.receiveError(ctx, call, err)
	}
	call.First = &call.request
	if err := call.chargeMessage(call.First.Len()); err != nil {
		return ctx, g.receiveError(ctx, call, err)
	}
	if call.Method.KeyField != 0 {
		if err := call.setKey(); err != nil {
			return ctx, err
		}
	}
	if call.Method.Audit || call.Method.ReasonField != 0 {
		call.recorded = &recorded{}
	}
	if call.Method.Audit {
		call.recorded.fields = requestFields(call.Method, call.First.Data)
	}
	if call.Method.ReasonField != 0 {
		reason, err := call.First.Text(call.Method.ReasonField, "")
		if err != nil {
			return ctx, call.fieldError(call.Method.ReasonField, err)
		}
		call.recorded.reason = excerpt.Text(credentials.Mask(reason), excerpt.Name)
	}
	return ctx, nil
}

// needsFirst reports whether the pipeline needs a message: a single request, or the first message
// of a stream in which only the message names the tenant, the resource, the key or the node.
func (c *Call) needsFirst() bool {
	m := c.Method
	return m.Spec.StreamType&connect.StreamTypeClient == 0 || m.ResourcePath != nil || m.KeyField != 0 ||
		m.NodeField != 0 ||
		m.TenantField != 0 && c.Tenant.IsZero()
}

// receiveError returns the error of a call whose request could not be received.
func (g *Gateway) receiveError(ctx context.Context, call *Call, err error) error {
	switch exceeded := call.use.ReserveError(); {
	case exceeded != nil:
		return g.refuseOverLimit(call, exceeded, 0)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the request did not arrive in time")
	case errors.Is(err, io.EOF):
		return connect.NewError(connect.CodeInvalidArgument, "the call has no message")
	}
	return err
}

// read receives a message of the client. A message that cannot be decompressed, decoded or
// transcoded, or that is not a valid protobuf message of its type, is INVALID_ARGUMENT: a node
// would reject it, which would count as a fault of the node.
func (c *Call) read(message *frame.Frame) error {
	if err := c.Stream.Receive(message); err != nil {
		var syntax *transcode.SyntaxError
		if !errors.As(err, &syntax) {
			return rpc.Undecodable(err)
		}
		refusal := connect.NewError(connect.CodeInvalidArgument, syntax.Error())
		if syntax.Field == "" {
			return refusal
		}
		return rpc.WithDetails(refusal,
			&errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{
					{Field: syntax.Field, Description: syntax.Message},
				},
			})
	}
	err := message.Program.Validate(message.Data)
	if err == nil {
		return nil
	}
	refusal := connect.NewError(connect.CodeInvalidArgument, err.Error())
	var wire *transcode.WireError
	if !errors.As(err, &wire) || wire.Field == "" {
		return refusal
	}
	return rpc.WithDetails(refusal,
		&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: wire.Field, Description: wire.Reason}},
		})
}
