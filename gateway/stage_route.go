package gateway

import (
	"context"
	"strings"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/rpc"
)

// route selects the node that answers the call.
func (g *Gateway) route(ctx context.Context, call *Call) (context.Context, error) {
	if call.Method.NodeField != 0 {
		if node, err := g.namedNode(call); err != nil || node.ID != "" {
			call.Node, call.BypassBreaker = node, true
			return ctx, err
		}
	}
	node, ok := g.routes.Lookup(call.Method.Upstream, call.Tenant)
	if !ok && call.Method.Spec.IdempotencyLevel == connect.IdempotencyNoSideEffects {
		node, ok = g.routes.LookupDrained(call.Method.Upstream, call.Tenant)
	}
	if !ok {
		return ctx, g.noNodeReady(call.Method.Upstream)
	}
	call.Node = node
	return ctx, nil
}

// noNodeReady returns the error of a call for which no node of the kind is ready, with the reason
// that the nodes report for clients.
func (g *Gateway) noNodeReady(kind contextkit.Kind) error {
	if refusal := g.routes.Refusal(kind); refusal != "" {
		return rpc.WithDetails(
			connect.Errorf(connect.CodeUnavailable, "no %s node is ready: %s; try again later", kind,
				excerpt.Text(refusal, excerpt.Name)),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(retryRefused)},
		)
	}
	return rpc.WithDetails(connect.Errorf(connect.CodeUnavailable, "no %s node is ready: try again in a moment", kind),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryNoNode)})
}

// namedNode returns the node that the request names, or the only node of the kind; zero if any node
// will do. The node need not be ready, and is called although its breaker is open: operators' calls
// repair it.
func (g *Gateway) namedNode(call *Call) (route.Node, error) {
	name, err := call.First.Text(call.Method.NodeField, "")
	if err != nil {
		return route.Node{}, call.fieldError(call.Method.NodeField, err)
	}
	if name != "" {
		node, ok := g.routes.Node(name)
		if !ok || node.Kind != call.Method.Upstream {
			return route.Node{}, connect.Errorf(connect.CodeNotFound, "no %s node is called %q", call.Method.Upstream,
				excerpt.Text(name, excerpt.Name))
		}
		return node, nil
	}
	var all []route.Node
	var names []string
	for _, node := range g.routes.Nodes() {
		if node.Kind == call.Method.Upstream {
			all, names = append(all, node), append(names, node.ID)
		}
	}
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) > 1 && call.Tenant.IsZero():
		return route.Node{}, connect.Errorf(connect.CodeInvalidArgument, "there are %d %s nodes: name one of them (%s)",
			len(all), call.Method.Upstream, strings.Join(names, ", "))
	}
	return route.Node{}, nil
}

// divert selects another node than call.Node, unless more than the panic share of the breakers are
// open: then breakers are not trusted, and call.Node is called although its breaker is open.
func (g *Gateway) divert(call *Call) {
	ready := g.routes.Ready(call.Method.Upstream)
	endpoints := make([]string, len(ready))
	for i := range ready {
		endpoints[i] = ready[i].Endpoint
	}
	if g.breakers.Panics(endpoints, call.Method.Spec.Procedure, call.Tenant) {
		call.BypassBreaker = true
		return
	}
	other, ok := g.routes.LookupOther(call.Method.Upstream, call.Tenant, func(node route.Node) bool {
		return node.ID == call.Node.ID || g.breakers.Open(node.Endpoint, call.Method.Spec.Procedure, call.Tenant)
	})
	if ok {
		call.Node = other
	}
}
