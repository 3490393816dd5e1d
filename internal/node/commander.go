package node

import (
	"context"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
)

// commander sends the runner's commands to the gateway with the runner's credential.
type commander struct {
	pool *upstream.Pool
	// gateway is the gateway's host:port.
	gateway string
	// credential returns the credential of the next command.
	credential func() (string, error)
}

// client returns the client with which the runner sends commands. interceptors are applied first.
func (c *commander) client(interceptors ...connect.ClientInterceptor) gatewayv1connect.CommandServiceClient {
	return gatewayv1connect.NewCommandServiceClient(
		contextkit.NewClient(upstream.NewTransport(c.pool), append(interceptors, c.intercept)...),
	)
}

func (c *commander) intercept(next connect.ClientFunc) connect.ClientFunc {
	return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
		credential, err := c.credential()
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, "the runner has no credential").WithCause(err)
		}
		info, _ := connect.CallInfoForClientContext(ctx)
		info.RequestHeader().Set("authorization", "Bearer "+credential)
		return next(upstream.WithEndpoint(ctx, c.gateway), spec)
	}
}
