package gateway

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/internal/excerpt"
)

const headerAuthorization = "Authorization"

// anonymous is the principal of each call of a method that asks for no credential.
var anonymous = &auth.Principal{Subject: auth.AnonymousSubject}

// authenticate finds out who calls.
func (g *Gateway) authenticate(ctx context.Context, call *Call) (context.Context, error) {
	if call.Method.Anonymous {
		call.Principal = anonymous
		return ctx, nil
	}
	principal, err := g.verifier.Authenticate(ctx, call.end.Started, call.Info.RequestHeader().Values(headerAuthorization))
	if err != nil {
		return ctx, call.deny(ruleCredential, unauthenticated(err))
	}
	call.Principal = principal
	return ctx, nil
}

// unauthenticated returns the answer to a credential that is refused. It tells the client only
// the class of the fault; the cause, which is logged, says what is wrong.
func unauthenticated(err error) *connect.Error {
	reason, public := "BAD_CREDENTIAL", auth.Public(err)
	switch {
	case errors.Is(public, auth.ErrNoCredential):
		reason = "NO_CREDENTIAL"
	case errors.Is(public, auth.ErrExpired):
		reason = "EXPIRED_CREDENTIAL"
	}
	answer := connect.NewError(connect.CodeUnauthenticated, public.Error())
	if !errors.Is(public, err) { // err has details
		answer = answer.WithCause(err)
	}
	return chassis.WithDetails(answer, chassis.Reason(reason))
}

// admit refuses a principal that lacks the method's right altogether, before
// anything of the request is read.
func (g *Gateway) admit(ctx context.Context, call *Call) (context.Context, error) {
	if !call.Method.Anonymous && !call.Principal.Holds(call.Method.Right) {
		return ctx, call.denyRight()
	}
	return ctx, nil
}

// authorize refuses a right that is narrowed to other resources than the
// request names.
func (g *Gateway) authorize(ctx context.Context, call *Call) (context.Context, error) {
	return ctx, call.authorize(call.First)
}

// authorize is the stage for one message: a stream may name other resources in each.
func (c *Call) authorize(message *frame.Frame) error {
	var single [1]string
	resources := single[:]
	if path := c.Method.ResourcePath; path != nil {
		var err error
		if resources, err = message.AppendTexts(single[:0], path); err != nil {
			return c.badField(path[0].Number, err)
		}
	}
	if message == c.First {
		c.Resource = excerpt.Text(strings.Join(resources, ","), maxResource)
	}
	if c.Method.Anonymous {
		return nil
	}
	for _, resource := range resources {
		if !c.Principal.Allows(c.Method.Right, resource) {
			c.Resource = excerpt.Text(resource, maxResource)
			return c.denyRight()
		}
	}
	return nil
}

// maxResource bounds the text of a resource in answers and records, in encoded bytes.
const maxResource = 512

func (c *Call) denyRight() error {
	right := auth.Right{Action: c.Method.Right, Resources: c.Resource}
	return c.deny(ruleRight, chassis.WithDetails(
		connect.Errorf(connect.CodePermissionDenied, "%s needs the right %q, which %q does not have", c.Method.Spec.Procedure, right, excerpt.Text(c.Principal.Subject, excerpt.Name)),
		chassis.Reason("MISSING_RIGHT", "right", right.String())))
}

// deny notes which rule refused the call.
func (c *Call) deny(rule rule, err *connect.Error) error {
	c.denied = rule
	return err
}
