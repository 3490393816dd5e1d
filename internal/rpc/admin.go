package rpc

import (
	"context"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
)

// NewAdmin returns a server for the operators of an edge. It serves the edge's metrics and readiness, and profiles of
// the process (net/http/pprof).
func NewAdmin(config Config, edge *Server, log zerolog.Logger) *Server {
	s := newServer(config, edge.Metrics, edge.ready, log)
	s.degraded = edge.degraded
	s.RPC = connect.NewServer()
	s.mountMetrics()
	s.mountProfiles()
	return s
}

// newServiceAdmin returns the server for the operators of a service, at its own address.
func newServiceAdmin(config Config, service *Server, ready Readiness, log zerolog.Logger) *Server {
	s := newServer(Config{
		Name:       config.Name,
		Addr:       config.Admin,
		Sockets:    config.Sockets,
		LocalHosts: config.LocalHosts,
		FastPaths:  config.FastPaths,
	}, service.Metrics,
		ready, log)
	s.degraded = func(ctx context.Context, tenant contextkit.TenantID) map[string]string {
		if service.degraded == nil {
			return nil
		}
		return service.degraded(ctx, tenant)
	}
	s.RPC = connect.NewServer()
	s.mountMetrics()
	return s
}
