package gateway

import (
	"context"
	"errors"
	"slices"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
)

// maxResources bounds the resources of a message that are matched against narrowed rights.
const maxResources = 10_000

// maxResource bounds the text of a resource in answers and audit records, in encoded bytes.
const maxResource = 512

// authorize denies the call if the principal's right does not cover the resources that the request
// names.
func (g *Gateway) authorize(ctx context.Context, call *Call) (context.Context, error) {
	return ctx, call.authorize(call.First)
}

// authorize is the stage for one message: each message of a stream may name other resources.
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
		shown = space[:0] // the resources, for answers and audit records
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
			return connect.Errorf(connect.CodeInvalidArgument, "the request names more than %d resources: split it",
				maxResources)
		}
		if c.allows(name, part) {
			return nil
		}
		c.Resource = excerpt.Text(string(appendResource(nil, name, part)), maxResource)
		return c.denyRight()
	})
	if err == nil || !errors.Is(err, transcode.ErrWire) && !errors.Is(err, frame.ErrContradiction) {
		if message == c.First && c.denied == ReasonNone {
			c.Resource = excerpt.Text(string(shown), maxResource)
		}
		return err
	}
	return c.fieldError(path[0].Number, err)
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

// noteNodeDenial marks the call as denied if the node has rejected it for a missing right that the
// method's policy delegates to the node. The denial is recorded like one of the gateway.
func (c *Call) noteNodeDenial(err error) {
	if right, ok := missingRight(c.Method, err); ok {
		c.denied, c.Resource = ReasonMissingRight, excerpt.Text(right.Resources, maxResource)
	}
}

// missingRight returns the missing right for which a node has rejected a call, if the method's
// policy delegates that right to the node.
func missingRight(method *policy.Method, err error) (auth.Right, bool) {
	if len(method.NodeRights) == 0 && !method.AllRights || err == nil {
		return auth.Right{}, false
	}
	refusal, ok := errors.AsType[*connect.Error](err)
	if !ok || refusal.Code() != connect.CodePermissionDenied {
		return auth.Right{}, false
	}
	for _, detail := range refusal.Details() {
		var info errdetails.ErrorInfo
		if detail.Type != string(info.ProtoReflect().Descriptor().FullName()) ||
			proto.Unmarshal(detail.Value, &info) != nil || info.GetReason() != string(rpc.ReasonMissingRight) {
			continue
		}
		right, err := auth.ParseRight(info.GetMetadata()["right"])
		if err == nil && (method.AllRights || slices.Contains(method.NodeRights, right.Action)) {
			return right, true
		}
	}
	return auth.Right{}, false
}
