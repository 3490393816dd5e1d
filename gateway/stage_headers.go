package gateway

import (
	"context"
	"net/textproto"
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// headers rejects a call with a header that would be forwarded and is not valid in HTTP/2: sending
// it would fail and count as a fault of the node.
func (g *Gateway) headers(ctx context.Context, call *Call) (context.Context, error) {
	call.platform = g.isPlatform(call.Principal)
	if !contextkit.In(ctx).MayForward() {
		return ctx, nil
	}
	header := call.Info.RequestHeader()
	for name, values := range header.All() {
		if !forwarded(name, header) {
			continue
		}
		if reason := grpcmeta.Invalid(name, values); reason != "" {
			return ctx, grpcmeta.Refuse(name, reason)
		}
		call.forwardsHeaders = true
	}
	return ctx, nil
}

// forwarded reports whether a client's header, its name in canonical form, is forwarded to the
// node. Hop-by-hop headers, which the client's Connection header lists (RFC 9110 §7.6.1), are not.
func forwarded(name string, header *connect.Header) bool {
	if !contextkit.PassesToNode(name) {
		return false
	}
	for _, value := range header.Values("Connection") {
		for option := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(textproto.TrimString(option), name) {
				return false
			}
		}
	}
	return true
}

// WriteHeader implements [grpcmeta.Header]. It writes the client's metadata, the principal, the
// client's address and the transport contract.
func (c *Call) WriteHeader(ctx context.Context, to *grpcmeta.Fields) error {
	if c.forwardsHeaders {
		header := c.Info.RequestHeader()
		for name, values := range header.All() {
			if forwarded(name, header) {
				to.Add(name, values...)
			}
		}
	}
	to.SetField(contextkit.HeaderPrincipal, contextkit.EncodeText(c.Principal.Subject))
	if client := rpc.ClientText(c.Info); client != "" {
		to.SetField(contextkit.HeaderClient, client)
	}
	if c.platform {
		to.SetField(contextkit.HeaderPlatform, "1")
	}
	if rights, ok := c.nodeRights(); ok {
		to.SetField(contextkit.HeaderRights, rights)
	}
	if err := contextkit.Inject(ctx, to); err != nil {
		return connect.Errorf(connect.CodeInternal, "%s is called without context",
			c.Method.Spec.Procedure).WithCause(err)
	}
	return nil
}

// nodeRights returns the principal's rights that the node checks, encoded for
// [contextkit.HeaderRights]; false if it has none and is not the platform. A method that passes rights
// on receives all of them.
func (c *Call) nodeRights() (string, bool) {
	if c.Method.AllRights {
		return contextkit.EncodeRights(c.Principal.RightTexts()...), true
	}
	if len(c.Method.NodeRights) == 0 {
		return "", false
	}
	var space [4]string
	held := space[:0]
	for _, action := range c.Method.NodeRights {
		if c.Principal.HoldsAll(action) {
			held = append(held, action)
			continue
		}
		for _, right := range c.Principal.Rights {
			if right.Action == action {
				held = append(held, right.String())
			}
		}
	}
	return contextkit.EncodeRights(held...), len(held) > 0 || c.platform
}

// passMetadata copies the node's headers and trailers to the client. It drops headers that the
// gateway owns and headers that are not valid in HTTP/2.
func passMetadata(to, from *connect.CallInfo) {
	passHeader(to.ResponseHeader(), from.ResponseHeader())
	passHeader(to.ResponseTrailer(), from.ResponseTrailer())
}

func passHeader(to, from *connect.Header) {
	for name, values := range from.All() {
		if !contextkit.PassesToClient(name) {
			continue
		}
		if values = grpcmeta.Sendable(name, values); len(values) > 0 {
			to.SetValues(name, values)
		}
	}
}
