package gateway

import (
	"context"
	"strings"

	"connectrpc.com/connect/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/internal/rpc"
)

// healthProcedures is the prefix of the health service's procedures.
var healthProcedures = "/" + healthv1.Health_ServiceDesc.ServiceName + "/"

// limitHealthChecks charges health checks to the client's address. They need no credential and do
// not pass through the pipeline.
func (g *Gateway) limitHealthChecks(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		if !strings.HasPrefix(spec.Procedure, healthProcedures) {
			return next(ctx, spec, stream)
		}
		info, _ := connect.CallInfoForServerContext(ctx)
		held := &charge{scope: scopeAddress}
		if err := g.addresses.Acquire(
			rpc.Client(info), &held.use, spec.StreamType&connect.StreamTypeServer != 0, limit.Normal,
		); err != nil {
			g.counters.limited.WithLabelValues(limitReason(err).String(), scopeAddress.String()).Inc()
			return limitError(scopeAddress, err, 0)
		}
		defer held.use.ReleaseAll()
		rpc.Receiving(ctx, held)
		return next(ctx, spec, stream)
	}
}
