package gateway

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/internal/rpc"
)

// timeout returns the maximum duration of a call of the procedure.
func (g *Gateway) timeout(procedure string) time.Duration {
	if method, ok := g.table.Load().Method(procedure); ok {
		return min(method.Timeout, g.maxTimeout(method))
	}
	return g.config.MaxTimeout
}

// maxTimeout returns the maximum duration of any call of the method's kind: unary or server stream.
func (g *Gateway) maxTimeout(method *policy.Method) time.Duration {
	if method.Spec.StreamType&connect.StreamTypeServer != 0 {
		return g.config.MaxStreamTimeout
	}
	return g.config.MaxTimeout
}

// stage adds its results to a call, or rejects it.
type stage func(ctx context.Context, call *Call) (context.Context, error)

// stages returns the pipeline between the transport contract, which an interceptor extracts, and
// forward. Stage x is in the file stage_x.go.
func (g *Gateway) stages() []stage {
	return []stage{
		g.authenticate,
		g.right,
		g.standing,
		g.admission,
		g.deadline,
		g.headers,
		g.receive,
		g.tenant,
		g.authorize,
		g.quota,
		g.route,
	}
}

// handler returns the handler of a method: it runs the stages, then forward.
func (g *Gateway) handler(metrics *rpc.Metrics, method *policy.Method) connect.ServerFunc {
	stages, calls := g.stages(), metrics.Calls(method.Spec.Procedure)
	log := g.log.With().Str("procedure", method.Spec.Procedure).Logger()
	limit := min(method.Timeout, g.maxTimeout(method))
	return func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		call := &Call{
			Method: method,
			Info:   info,
			Stream: stream,
			end: rpc.Outcome{
				Procedure: method.Spec.Procedure,
				Protocol:  info.Protocol,
				Started:   contextkit.In(ctx).Began(),
				Err:       rpc.ErrUnfinished,
			},
		}
		calls.Begin()
		defer func() { calls.End(&call.end, method.Spec.StreamType, contextkit.In(ctx).TraceID) }()
		defer call.use.ReleaseAll()
		call.until.Plain = g.config.Listen.FastPaths.Deadlines.IsPlain()
		ctx, call.clientDeadline = rpc.HandlerContext(ctx, &call.until, call.end.Started, limit, deadlineMargin)
		defer call.until.Cancel()
		ctx, err := g.run(ctx, call, stages)
		err = rpc.Bounded(err)
		g.conclude(ctx, &log, call, err)
		return err
	}
}

// run runs the stages, then forward, and returns the context of the stages. A panic is an error of the call, which is
// logged and audited as any other.
func (g *Gateway) run(from context.Context, call *Call, stages []stage) (ctx context.Context, err error) {
	defer g.server.Catch(call.Method.Spec.Procedure, &err)
	ctx = from
	for _, stage := range stages {
		if ctx, err = stage(ctx, call); err != nil {
			g.accountRefusal(ctx, call)
			return ctx, err
		}
	}
	if call.Method.Spec.StreamType != connect.StreamTypeUnary && g.isOperatorCall(call) {
		g.recordOperation(contextkit.In(ctx), call, nil) // now, because a stream transfers data long before it ends
	}
	if err = g.forward(ctx, call); err != nil {
		call.noteNodeDenial(err)
	}
	return ctx, err
}
