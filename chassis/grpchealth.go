package chassis

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// healthPoll is how often a watched readiness is looked at again.
const healthPoll = time.Second

// registerHealth serves the gRPC health checking protocol
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md) over the
// process's readiness. A service is known when it is registered on server; ""
// is the process itself.
func registerHealth(server *connect.Server, ready Readiness) {
	h := health{server: server, ready: ready}
	methods := healthv1.File_grpc_health_v1_health_proto.Services().ByName("Health").Methods()
	server.Register(
		connect.Method{
			Spec: connect.Spec{
				StreamType: connect.StreamTypeUnary, IdempotencyLevel: connect.IdempotencyNoSideEffects,
				Procedure: healthv1.Health_Check_FullMethodName, Schema: methods.ByName("Check"),
			},
			Handler: h.check,
		},
		connect.Method{
			Spec: connect.Spec{
				StreamType: connect.StreamTypeServer,
				Procedure:  healthv1.Health_Watch_FullMethodName, Schema: methods.ByName("Watch"),
			},
			Handler: h.watch,
		},
	)
}

type health struct {
	server *connect.Server
	ready  Readiness
}

func (h health) check(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var req healthv1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return err
	}
	status := h.status(ctx, req.GetService())
	if status == healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
		return connect.Errorf(connect.CodeNotFound, "service %q is not served here", req.GetService())
	}
	return stream.Send(&healthv1.HealthCheckResponse{Status: status})
}

func (h health) watch(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var req healthv1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return err
	}
	ticker := time.NewTicker(healthPoll)
	defer ticker.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN
	for {
		if status := h.status(ctx, req.GetService()); status != last {
			if err := stream.Send(&healthv1.HealthCheckResponse{Status: status}); err != nil {
				return err
			}
			last = status
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (h health) status(ctx context.Context, service string) healthv1.HealthCheckResponse_ServingStatus {
	if service != "" && !h.serves(service) {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN
	}
	if h.ready(ctx, contextkit.TenantID{}) != nil {
		return healthv1.HealthCheckResponse_NOT_SERVING
	}
	return healthv1.HealthCheckResponse_SERVING
}

func (h health) serves(service string) bool {
	for spec := range h.server.Specs() {
		if serviceOf(spec.Procedure) == service {
			return true
		}
	}
	return false
}
