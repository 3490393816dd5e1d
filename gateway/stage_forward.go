package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/frame"
)

// forward calls the node and passes its answer to the client.
func (g *Gateway) forward(ctx context.Context, call *Call) error {
	if call.Method.Spec.StreamType != connect.StreamTypeUnary {
		return g.forwardStream(ctx, call)
	}
	answer := &call.answer
	answer.Program, answer.Lend = call.Method.Output, true
	defer answer.Release()
	for began := call.admittedAt(); ; began = time.Now() {
		call.Attempts++
		pass, wait, ok := g.enter(call, began)
		if !ok {
			return breakerOpenError(call, wait)
		}
		err := g.callNode(ctx, call, answer)
		pass.Done(outcome(ctx, call, began, err))
		if err == nil {
			g.retries.Call(call.Node.Endpoint)
			passMetadata(call.Info, &call.upstream)
			g.explain(ctx, call, nil)
			return call.Stream.Send(answer)
		}
		if !g.retry(ctx, call, err) {
			passMetadata(call.Info, &call.upstream)
			return asLocalError(ctx, err)
		}
	}
}

// open begins an upstream call.
func (g *Gateway) open(ctx context.Context, call *Call) (connect.ClientStream, error) {
	if call.Attempts > 1 {
		call.upstream = connect.CallInfo{}
	}
	call.upstream.Spec, call.upstream.PeerAddr = call.Method.Spec, call.Node.Endpoint
	return g.opener.Open(ctx, &call.upstream, call)
}

// callNode makes a unary upstream call.
func (g *Gateway) callNode(ctx context.Context, call *Call, answer *frame.Frame) error {
	stream, err := g.open(ctx, call)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }() // Receive returns its error
	if err := stream.Send(call.First); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.Receive(answer)
}

// asLocalError converts the node's error to one of the gateway: Connect hides the message of a
// remote error that a handler returns.
func asLocalError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	verdict, _ := errors.AsType[*connect.Error](err)
	switch {
	case verdict != nil:
		out := connect.NewError(verdict.Code(), verdict.Message()).WithCause(verdict.Unwrap())
		for _, detail := range verdict.Details() {
			out = out.WithDetail(detail)
		}
		return out
	case errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the call took longer than its deadline")
	}
	return err
}
