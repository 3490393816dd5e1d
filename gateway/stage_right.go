package gateway

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/excerpt"
)

// right denies the call if the principal lacks the method's right for any resource. It reads
// nothing of the request.
func (g *Gateway) right(ctx context.Context, call *Call) (context.Context, error) {
	if !call.Method.Anonymous && !call.Principal.Holds(call.Method.Right) {
		return ctx, call.denyRight()
	}
	return ctx, nil
}

func (c *Call) denyRight() error { return c.denyAction(c.Method.Right) }

// denyAction denies the call because the principal lacks the right to an action.
func (c *Call) denyAction(action string) error {
	right := auth.Right{Action: action, Resources: c.Resource}
	subject := excerpt.Text(c.Principal.Subject, excerpt.Name)
	return c.deny(ReasonMissingRight, connect.Errorf(connect.CodePermissionDenied,
		"%s needs the right %q, which %q does not have", c.Method.Spec.Procedure, right, subject),
		"right", right.String())
}
