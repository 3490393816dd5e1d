package gateway

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

const headerAuthorization = "Authorization"

// anonymous is the principal of each call of a method that asks for no credential.
var anonymous = &auth.Principal{Subject: auth.AnonymousSubject}

// authenticate finds out who calls.
func (g *Gateway) authenticate(ctx context.Context, call *Call) (context.Context, error) {
	if ticket := edge.TicketOf(call.Stream); ticket != nil {
		resumed, principal, err := g.redeem(ctx, call, ticket)
		if err != nil {
			return ctx, call.deny(ruleCredential, unauthenticated(err))
		}
		call.Principal = principal
		return resumed, nil
	}
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
	case errors.Is(public, auth.ErrExpired), errors.Is(public, auth.ErrLateTicket):
		reason = "EXPIRED_CREDENTIAL"
	}
	answer := connect.NewError(connect.CodeUnauthenticated, public.Error())
	if !errors.Is(public, err) { // err has details
		answer = answer.WithCause(err)
	}
	return rpc.WithDetails(answer, rpc.Reason(reason))
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
	path := c.Method.ResourcePath
	if path == nil {
		if !c.Method.Anonymous && !c.Principal.Allows(c.Method.Right, "") {
			return c.denyRight()
		}
		return nil
	}
	var (
		space [maxResource]byte
		shown = space[:0] // the resources, for answers and records
		count int
	)
	all := c.Method.Anonymous || c.Principal.HoldsAll(c.Method.Right)
	err := message.Names(path, c.Method.PartField, func(name, part []byte) error {
		if len(shown) < maxResource {
			shown = appendResource(shown, name, part)
		}
		if all {
			return nil
		}
		if count++; count > maxResources {
			return connect.Errorf(connect.CodeInvalidArgument, "the request names more than %d resources: divide it", maxResources)
		}
		if c.allows(name, part) {
			return nil
		}
		c.Resource = excerpt.Text(string(appendResource(nil, name, part)), maxResource)
		return c.denyRight()
	})
	if err == nil || !errors.Is(err, transcode.ErrWire) && !errors.Is(err, frame.ErrContradiction) {
		if message == c.First && c.denied == ruleNone {
			c.Resource = excerpt.Text(string(shown), maxResource)
		}
		return err
	}
	return c.badField(path[0].Number, err)
}

// allows reports whether the principal may act on a resource, or on a part of it.
func (c *Call) allows(name, part []byte) bool {
	if c.Method.PartField != 0 {
		return c.Principal.AllowsPart(c.Method.Right, name, part)
	}
	return c.Principal.Allows(c.Method.Right, string(name))
}

// appendResource appends RESOURCE or RESOURCE.PART to a list, after a comma.
func appendResource(to, name, part []byte) []byte {
	if len(to) > 0 {
		to = append(to, ',')
	}
	to = append(to, name...)
	if len(part) > 0 {
		to = append(append(to, '.'), part...)
	}
	return to
}

// maxResources bounds the resources of a message that are matched against narrowed rights.
const maxResources = 10_000

// maxResource bounds the text of a resource in answers and records, in encoded bytes.
const maxResource = 512

func (c *Call) denyRight() error { return c.denyAction(c.Method.Right) }

// denyAction denies the call for lack of the right to an action.
func (c *Call) denyAction(action string) error {
	right := auth.Right{Action: action, Resources: c.Resource}
	return c.deny(ruleRight, rpc.WithDetails(
		connect.Errorf(connect.CodePermissionDenied, "%s needs the right %q, which %q does not have", c.Method.Spec.Procedure, right, excerpt.Text(c.Principal.Subject, excerpt.Name)),
		rpc.Reason(rpc.ReasonMissingRight, "right", right.String())))
}

// noteDenial notes that the node has refused the call for lack of a right that the method's policy
// has it check: such a refusal is recorded as the gateway's own are.
func (c *Call) noteDenial(err error) {
	if right, ok := missingRight(c.Method, err); ok {
		c.denied, c.Resource = ruleRight, excerpt.Text(right.Resources, maxResource)
	}
}

// missingRight returns the right for whose lack a node has refused a call, if the method's policy
// has the node check it.
func missingRight(method *policy.Method, err error) (auth.Right, bool) {
	if len(method.NodeRights) == 0 || err == nil {
		return auth.Right{}, false
	}
	refusal, ok := errors.AsType[*connect.Error](err)
	if !ok || refusal.Code() != connect.CodePermissionDenied {
		return auth.Right{}, false
	}
	for _, detail := range refusal.Details() {
		var info errdetails.ErrorInfo
		if detail.Type != string(info.ProtoReflect().Descriptor().FullName()) || proto.Unmarshal(detail.Value, &info) != nil || info.GetReason() != rpc.ReasonMissingRight {
			continue
		}
		right, err := auth.ParseRight(info.GetMetadata()["right"])
		if err == nil && slices.Contains(method.NodeRights, right.Action) {
			return right, true
		}
	}
	return auth.Right{}, false
}

// deny notes which rule refused the call.
func (c *Call) deny(rule rule, err *connect.Error) error {
	c.denied = rule
	return err
}
