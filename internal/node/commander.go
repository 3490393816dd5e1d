package node

import (
	"context"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
)

// commander gives the runner's commands their way: to the gateway, under a
// credential of the runner's own.
type commander struct {
	pool *upstream.Pool
	// gateway returns the gateway's host:port.
	gateway func() string
	// credential returns what the next command is sent under.
	credential func() (string, error)
}

// client returns the client by which the runner sends commands. interceptors are applied
// first.
func (c *commander) client(interceptors ...connect.ClientInterceptor) gatewayv1connect.CommandServiceClient {
	return gatewayv1connect.NewCommandServiceClient(contextkit.NewClient(upstream.NewTransport(c.pool), append(interceptors, c.intercept)...))
}

func (c *commander) intercept(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		credential, err := c.credential()
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, "the runner has no credential").WithCause(err)
		}
		info, _ := connect.CallInfoForClientContext(ctx)
		info.RequestHeader().Set("authorization", "Bearer "+credential)
		return next(upstream.WithEndpoint(ctx, c.gateway()), spec)
	}
}
