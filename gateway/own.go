package gateway

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/internal/rpc"
)

// ownCall is the context key of the [Call] of a method that the gateway answers itself.
type ownCall struct{}

// own guards the methods that the gateway answers itself: callers need a credential. Denials
// by it and by the handlers are concluded like the pipeline's: with the same access log line,
// audit record and metric.
func (g *Gateway) own(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := newOwnCall(ctx, spec, info)
		defer call.use.Leave()
		ctx, err := g.enterOwn(ctx, call)
		if err == nil {
			err = next(context.WithValue(ctx, ownCall{}, call), spec, stream)
		}
		if err != nil {
			g.refused(ctx, call)
		}
		g.concludeOwn(ctx, call, err)
		return err
	}
}

// enterOwn admits a call within the budget and the rate of the caller's tenant, whichever of
// the tenant's principals calls.
func (g *Gateway) enterOwn(ctx context.Context, call *Call) (context.Context, error) {
	ctx, err := g.authenticate(ctx, call)
	if err != nil {
		return ctx, err
	}
	call.Tenant = onlyTenant(call.Principal)
	if ctx, err = g.admission(ctx, call); err != nil {
		return ctx, err
	}
	return g.limits(ctx, call)
}

// ownPage is [Gateway.own] for a page over plain HTTP.
func (g *Gateway) ownPage(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &connect.CallInfo{PeerAddr: r.RemoteAddr, Protocol: "http"}
		info.RequestHeader().SetValues(headerAuthorization, r.Header.Values(headerAuthorization))
		call := newOwnCall(r.Context(), connect.Spec{Procedure: path}, info)
		defer call.use.Leave()
		ctx, err := g.enterOwn(r.Context(), call)
		if err == nil {
			next.ServeHTTP(w, r)
		} else {
			g.refused(ctx, call)
			edge.WriteError(w, r, err, 0)
		}
		g.concludeOwn(ctx, call, err)
	})
}

func newOwnCall(ctx context.Context, spec connect.Spec, info *connect.CallInfo) *Call {
	spec.IdempotencyLevel = connect.IdempotencyNoSideEffects // none of them changes anything
	call := &Call{Method: &policy.Method{Spec: spec, Priority: limit.Normal}, Info: info}
	call.end = rpc.Outcome{Procedure: spec.Procedure, Protocol: info.Protocol, Started: contextkit.In(ctx).Began(), Err: rpc.ErrUnfinished}
	if call.end.Started.IsZero() {
		call.end.Started = time.Now()
	}
	return call
}

func (g *Gateway) concludeOwn(ctx context.Context, call *Call, err error) {
	log := g.log.With().Str("procedure", call.Method.Spec.Procedure).Logger()
	g.conclude(ctx, &log, call, err)
}
