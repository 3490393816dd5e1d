package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// hopMargin is kept of the remaining time so that the upstream's own verdict
	// on a call that takes too long still reaches the caller.
	hopMargin = contextkit.DeadlineMargin
	// minRemaining is the time below which a hop is not made: it could not finish,
	// and would only cost the upstream work.
	minRemaining = 5 * time.Millisecond
)

// deadline refuses a call that could not finish in the time that its method's
// policy and its client leave.
func (g *Gateway) deadline(ctx context.Context, call *Call) (context.Context, error) {
	if until, ok := ctx.Deadline(); ok && until.Sub(call.end.Started) < minRemaining {
		return ctx, connect.Errorf(connect.CodeDeadlineExceeded, "the call's deadline leaves less than %v: allow it more time", minRemaining+hopMargin)
	}
	return ctx, nil
}

// receive reads the request, or a stream's first message. A stream of requests is opened
// without one if the pipeline needs no field of it.
func (g *Gateway) receive(ctx context.Context, call *Call) (context.Context, error) {
	call.request.Program = call.Method.Input
	if !call.needsFirst() {
		return ctx, nil
	}
	if err := call.read(&call.request); err != nil {
		return ctx, g.unreceived(ctx, call, err)
	}
	call.First = &call.request
	if err := call.settle(call.First.Len()); err != nil {
		return ctx, g.unreceived(ctx, call, err)
	}
	if call.Method.KeyField != 0 {
		if err := call.setKey(); err != nil {
			return ctx, err
		}
	}
	if call.Method.ReasonField != 0 {
		reason, err := call.First.Text(call.Method.ReasonField, "")
		if err != nil {
			return ctx, call.badField(call.Method.ReasonField, err)
		}
		reason = excerpt.Text(reason, excerpt.Name)
		call.Reason = &reason
	}
	return ctx, nil
}

// headerKey is the header of an idempotency key (draft-ietf-httpapi-idempotency-key-header).
const headerKey = "Idempotency-Key"

// setKey fills the policy's idempotency field from the header of that name; a request that has
// both must have the same key in both.
func (c *Call) setKey() error {
	key, err := c.First.Text(c.Method.KeyField, "")
	if err != nil {
		return c.badField(c.Method.KeyField, err)
	}
	field := c.Method.Input.Descriptor().Fields().ByNumber(c.Method.KeyField).Name()
	for _, value := range c.Info.RequestHeader().Values(headerKey) {
		given, ok := keyOf(value)
		switch {
		case !ok:
			return wrongField(string(field), fmt.Sprintf("the header %s is %q: send a key of printable ASCII characters, in quotes or without", headerKey, excerpt.Text(value, excerpt.Name)))
		case key == "":
			key = given
			c.First.AppendText(c.Method.KeyField, key)
		case key != given:
			return wrongField(string(field), fmt.Sprintf("the header %s is %q, and the field or another header has another key", headerKey, excerpt.Text(value, excerpt.Name)))
		}
	}
	c.Keyed = key != ""
	return nil
}

// keyOf returns the key in a header's value: a string of structured fields (RFC 9651 §3.3.3), in
// quotes, or the characters themselves.
func keyOf(value string) (string, bool) {
	text := strings.Trim(value, " \t")
	if inner, quoted := strings.CutPrefix(text, `"`); quoted {
		inner, closed := strings.CutSuffix(inner, `"`)
		if !closed || strings.HasSuffix(inner, `\`) && !strings.HasSuffix(inner, `\\`) {
			return "", false
		}
		text = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(inner)
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return "", false
		}
	}
	return text, text != ""
}

// wrongField returns INVALID_ARGUMENT for a field of the request.
func wrongField(field, reason string) error {
	return rpc.WithDetails(connect.NewError(connect.CodeInvalidArgument, field+": "+reason),
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: field, Description: reason}}})
}

// needsFirst reports whether the pipeline needs a message: a single request, or a stream's
// first one where only it names the tenant, the resource, the key or the node.
func (c *Call) needsFirst() bool {
	m := c.Method
	return m.Spec.StreamType&connect.StreamTypeClient == 0 || m.ResourcePath != nil || m.KeyField != 0 || m.NodeField != 0 ||
		m.TenantField != 0 && c.Tenant.IsZero()
}

// unreceived returns the error of a call whose request was not received.
func (g *Gateway) unreceived(ctx context.Context, call *Call, err error) error {
	switch exceeded := call.use.Failed(); {
	case exceeded != nil:
		return g.exceed(call, exceeded, 0)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the request did not arrive in time")
	case errors.Is(err, io.EOF):
		return connect.NewError(connect.CodeInvalidArgument, "the call has no message")
	}
	return err
}

// read receives a message of the client. A message that cannot be decompressed, decoded or
// transcoded, or that is not a valid protobuf message of its type, is INVALID_ARGUMENT: a node
// would refuse it, which would count as the node's fault.
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
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: syntax.Field, Description: syntax.Message}}})
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
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: wire.Field, Description: wire.Reason}}})
}

// badField says that a field which the pipeline reads cannot be read.
func (c *Call) badField(number protowire.Number, err error) error {
	name := "the message"
	if f := c.Method.Input.Descriptor().Fields().ByNumber(number); f != nil {
		name = string(f.Name())
	}
	if errors.Is(err, frame.ErrContradiction) {
		return rpc.WithDetails(connect.Errorf(connect.CodeInvalidArgument, "%s is given twice, with different values", name),
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: name, Description: "given twice"}}})
	}
	return connect.NewError(connect.CodeInvalidArgument, "the request is no protobuf message")
}

// tenant makes the request agree with credential, x-tenant-id and path on the tenant, and
// fills in absent fields. A call whose tenant only the request names is checked and charged as
// the tenant's from here on.
func (g *Gateway) tenant(ctx context.Context, call *Call) (context.Context, error) {
	var named string
	if call.Method.TenantField != 0 && call.First != nil {
		var err error
		if named, err = call.First.Text(call.Method.TenantField, call.Tenant.String()); err != nil {
			if errors.Is(err, frame.ErrContradiction) {
				return ctx, call.denyTenant("the request names two tenants")
			}
			return ctx, call.badField(call.Method.TenantField, err)
		}
	}
	switch {
	case !call.Method.Tenant:
		return ctx, nil
	case named == "" && call.Tenant.IsZero():
		return ctx, connect.Errorf(connect.CodeInvalidArgument, "%s is missing: the credential is not for exactly one tenant", contextkit.HeaderTenantID)
	case named == "":
		if call.Method.TenantField != 0 && call.First != nil {
			call.First.AppendText(call.Method.TenantField, call.Tenant.String())
		}
		return ctx, nil
	case named == call.Tenant.String():
		return ctx, nil
	}
	tenant, err := contextkit.ParseTenantID(named)
	switch {
	case err != nil:
		return ctx, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	case !call.Tenant.IsZero() && call.Info.RequestHeader().Get(contextkit.HeaderTenantID) != "":
		return ctx, call.denyTenant("the request and its header name different tenants")
	case !call.Tenant.IsZero():
		return ctx, call.denyTenant("the credential is not for this tenant")
	}
	if ctx, err = g.stand(ctx, call, tenant); err != nil {
		return ctx, err
	}
	return ctx, g.recharge(call)
}

func (c *Call) denyTenant(message string) error {
	return c.deny(ruleTenant, rpc.WithDetails(connect.NewError(connect.CodePermissionDenied, message), rpc.Reason("TENANT_MISMATCH")))
}
