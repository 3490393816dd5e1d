package rpc

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
)

// healthPoll is the interval between checks of a watched readiness.
const healthPoll = time.Second

// registerHealth serves the gRPC health checking protocol
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md) over the
// process's readiness. A service is known when it is registered on server; ""
// is the process itself.
func registerHealth(server *connect.Server, h health) {
	h.server = server
	methods := healthv1.File_grpc_health_v1_health_proto.Services().ByName("Health").Methods()
	server.Register(
		connect.Method{
			Spec: connect.Spec{
				StreamType:       connect.StreamTypeUnary,
				IdempotencyLevel: connect.IdempotencyNoSideEffects,
				Procedure:        healthv1.Health_Check_FullMethodName,
				Schema:           methods.ByName("Check"),
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
	// ofTenants is set if a call for a tenant returns the tenant's readiness. At an edge, whose
	// callers need no credential here, it returns the readiness of the process.
	ofTenants bool
	watches   *watches
}

// tenant returns the tenant whose readiness the call asks for; zero: that of the process.
func (h health) tenant(ctx context.Context) contextkit.TenantID {
	if !h.ofTenants {
		return contextkit.TenantID{}
	}
	rc, _ := contextkit.FromContext(ctx)
	return rc.TenantID
}

// check answers Check. Where the call is for a tenant that the process cannot serve, it
// returns the reason: NOT_FOUND when the process does not have the tenant (see
// [ErrNotServed]), else FAILED_PRECONDITION.
func (h health) check(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	var req healthv1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return Undecodable(err)
	}
	status := h.status(ctx, req.GetService())
	if status == healthv1.HealthCheckResponse_SERVICE_UNKNOWN {
		return connect.Errorf(connect.CodeNotFound, "service %q is not served here", req.GetService())
	}
	if tenant := h.tenant(ctx); !tenant.IsZero() && status == healthv1.HealthCheckResponse_NOT_SERVING {
		switch err := h.ready(ctx, tenant); {
		case errors.Is(err, ErrNotServed):
			return connect.NewError(connect.CodeNotFound, err.Error())
		case err != nil:
			return connect.NewError(connect.CodeFailedPrecondition, err.Error())
		}
	}
	return stream.Send(&healthv1.HealthCheckResponse{Status: status})
}

// watch answers Watch, within the bounds of h.watches: it ends as UNAVAILABLE after its
// longest time, so that its client calls again.
func (h health) watch(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
	leave, err := h.watches.enter(clientNetwork(ctx))
	if err != nil {
		return err
	}
	defer leave()
	ends := time.NewTimer(h.watches.lasts())
	defer ends.Stop()
	var req healthv1.HealthCheckRequest
	if err := stream.Receive(&req); err != nil {
		return Undecodable(err)
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
		case <-ends.C:
			return errWatchEnds
		case <-ticker.C:
		}
	}
}

func (h health) status(ctx context.Context, service string) healthv1.HealthCheckResponse_ServingStatus {
	if service != "" && !h.serves(service) {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN
	}
	if h.ready(ctx, h.tenant(ctx)) != nil {
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
