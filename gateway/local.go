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

// pageOpenAPI is the path of the document of all HTTP rules.
const pageOpenAPI = "/openapi.json"

// localCall is the context key of the [Call] of a local method, which the gateway itself answers.
type localCall struct{}

// local guards the methods that the gateway itself answers: callers need a credential. Denials by
// it and by the handlers have the same access log line, audit record and metric as the pipeline's.
func (g *Gateway) local(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := newLocalCall(ctx, spec, info)
		defer call.use.ReleaseAll()
		ctx, err := g.enterLocal(ctx, call)
		if err == nil {
			err = next(context.WithValue(ctx, localCall{}, call), spec, stream)
		}
		if err != nil {
			g.accountRefusal(ctx, call)
		}
		g.concludeLocal(ctx, call, err)
		return err
	}
}

// enterLocal authenticates a call and admits it within the budget and the rate of the caller's
// tenant, which all principals of the tenant share.
func (g *Gateway) enterLocal(ctx context.Context, call *Call) (context.Context, error) {
	ctx, err := g.authenticate(ctx, call)
	if err != nil {
		return ctx, err
	}
	call.Tenant = onlyTenant(call.Principal)
	if ctx, err = g.admission(ctx, call); err != nil {
		return ctx, err
	}
	return g.quota(ctx, call)
}

// localPage is [Gateway.local] for a page over plain HTTP.
func (g *Gateway) localPage(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info := &connect.CallInfo{PeerAddr: r.RemoteAddr, Protocol: "http"}
		info.RequestHeader().SetValues(headerAuthorization, r.Header.Values(headerAuthorization))
		call := newLocalCall(r.Context(), connect.Spec{Procedure: path}, info)
		defer call.use.ReleaseAll()
		ctx, err := g.enterLocal(r.Context(), call)
		if err == nil {
			next.ServeHTTP(w, r)
		} else {
			g.accountRefusal(ctx, call)
			edge.WriteError(w, r, err, 0)
		}
		g.concludeLocal(ctx, call, err)
	})
}

func newLocalCall(ctx context.Context, spec connect.Spec, info *connect.CallInfo) *Call {
	spec.IdempotencyLevel = connect.IdempotencyNoSideEffects // no local method changes state
	call := &Call{Method: &policy.Method{Spec: spec, Priority: limit.Normal}, Info: info}
	call.end = rpc.Outcome{
		Procedure: spec.Procedure,
		Protocol:  info.Protocol,
		Started:   contextkit.In(ctx).Began(),
		Err:       rpc.ErrUnfinished,
	}
	if call.end.Started.IsZero() {
		call.end.Started = time.Now()
	}
	return call
}

func (g *Gateway) concludeLocal(ctx context.Context, call *Call, err error) {
	log := g.log.With().Str("procedure", call.Method.Spec.Procedure).Logger()
	g.conclude(ctx, &log, call, err)
}
