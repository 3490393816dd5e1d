package gateway

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
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
		return ctx, connect.Errorf(connect.CodeDeadlineExceeded, "less than %v is left for the call", minRemaining+hopMargin)
	}
	return ctx, nil
}

// receive reads the request, or a stream's first message.
func (g *Gateway) receive(ctx context.Context, call *Call) (context.Context, error) {
	call.request.Program = call.Method.Input
	call.First = &call.request
	until, _ := ctx.Deadline() // the handler's own
	if limit := call.end.Started.Add(g.config.Listen.BodyTimeout); limit.Before(until) {
		until = limit
	}
	received := chassis.ReceiveBy(ctx, until)
	err := call.read(call.First)
	received()
	if err != nil && !time.Now().Before(until) {
		return ctx, connect.NewError(connect.CodeDeadlineExceeded, "the request did not arrive in time")
	}
	if errors.Is(err, io.EOF) {
		return ctx, connect.NewError(connect.CodeInvalidArgument, "the call has no message")
	}
	if err != nil {
		return ctx, err
	}
	if call.Method.KeyField != 0 {
		key, err := call.First.Text(call.Method.KeyField, "")
		if err != nil {
			return ctx, call.badField(call.Method.KeyField, err)
		}
		call.Keyed = key != ""
	}
	return ctx, nil
}

// read receives a message of the client's. A message that cannot be decompressed, decoded or
// transcoded, or that is no protobuf message of its type, is INVALID_ARGUMENT: nodes would
// refuse it, and it would count as their fault.
func (c *Call) read(message *frame.Frame) error {
	if err := c.Stream.Receive(message); err != nil {
		var syntax *transcode.SyntaxError
		if errors.As(err, &syntax) {
			return connect.NewError(connect.CodeInvalidArgument, syntax.Error())
		}
		return chassis.Undecodable(err)
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
	return chassis.WithDetails(refusal,
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: wire.Field, Description: wire.Reason}}})
}

// badField says that a field which the pipeline reads cannot be read.
func (c *Call) badField(number protowire.Number, err error) error {
	name := "the message"
	if f := c.Method.Input.Descriptor().Fields().ByNumber(number); f != nil {
		name = string(f.Name())
	}
	if errors.Is(err, frame.ErrContradiction) {
		return chassis.WithDetails(connect.Errorf(connect.CodeInvalidArgument, "%s is given twice, with different values", name),
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: name, Description: "given twice"}}})
	}
	return connect.NewError(connect.CodeInvalidArgument, "the request is no protobuf message")
}

// tenant makes the credential, x-tenant-id and the request agree on the tenant,
// and fills in what is absent.
func (g *Gateway) tenant(ctx context.Context, call *Call) (context.Context, error) {
	in := contextkit.In(ctx)
	var named string
	if call.Method.TenantField != 0 {
		var err error
		if named, err = call.First.Text(call.Method.TenantField, in.TenantID.String()); err != nil {
			if errors.Is(err, frame.ErrContradiction) {
				return ctx, call.denyTenant("the request names two tenants")
			}
			return ctx, call.badField(call.Method.TenantField, err)
		}
	}
	if !call.Method.Tenant {
		// What concerns the platform concerns every tenant: a right that was given
		// for some tenants does not reach so far.
		if !call.Method.Anonymous && !call.Principal.AnyTenant {
			return ctx, call.denyTenant("the call concerns the platform, and the credential is not for all tenants")
		}
		// A header that names a tenant changes nothing and is not passed on.
		return contextkit.PlatformContext(ctx), nil
	}
	tenant := in.TenantID
	if named != "" {
		parsed, err := contextkit.ParseTenantID(named)
		if err != nil {
			return ctx, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
		}
		if !tenant.IsZero() && tenant != parsed {
			return ctx, call.denyTenant("the request and its header name different tenants")
		}
		tenant = parsed
	}
	if tenant.IsZero() {
		if call.Principal.AnyTenant || len(call.Principal.Tenants) != 1 {
			return ctx, connect.Errorf(connect.CodeInvalidArgument, "%s is missing: the credential is not for exactly one tenant", contextkit.HeaderTenantID)
		}
		tenant = call.Principal.Tenants[0]
	}
	if !call.Principal.ActsFor(tenant) {
		return ctx, call.denyTenant("the credential is not for this tenant")
	}
	call.Tenant = tenant
	if named == "" && call.Method.TenantField != 0 {
		call.First.AppendText(call.Method.TenantField, tenant.String())
	}
	if in.TenantID == tenant && !in.Platform {
		return ctx, nil
	}
	rc := *in
	rc.TenantID, rc.Platform = tenant, false
	return contextkit.NewContext(ctx, rc), nil
}

func (c *Call) denyTenant(message string) error {
	return c.deny("TENANT", chassis.WithDetails(connect.NewError(connect.CodePermissionDenied, message), chassis.Reason("TENANT_MISMATCH")))
}
