package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
)

const (
	// readinessTTL is the time for which the nodes' answers about a tenant are cached.
	readinessTTL = 2 * time.Second
	// standingTimeout bounds the time of the health checks for one tenant.
	readinessTimeout = time.Second
	// readinessRate bounds the tenants per second whose readiness is checked, and readinessBurst
	// the burst. Further checks are rejected, so each node receives at most this rate of health
	// checks.
	readinessRate, readinessBurst = 20, 40
	// maxReadinessAnswers bounds the tenants whose answers are cached.
	maxReadinessAnswers = 1024
)

// tenantReadiness checks whether the nodes serve a tenant. It is safe for concurrent use.
type tenantReadiness struct {
	gateway *Gateway
	client  *connect.Client
	rate    *rate.Limiter

	mu     sync.Mutex
	cached *simplelru.LRU[contextkit.TenantID, *readinessAnswer]
}

// readinessAnswer holds the answers of the nodes about one tenant.
type readinessAnswer struct {
	done      chan struct{} // closed when refused is complete
	checkedAt time.Time
	epoch     uint64                     // of the routing table
	refused   map[contextkit.Kind]string // kind → reason that the tenant's calls are rejected
}

func newTenantReadiness(g *Gateway) *tenantReadiness {
	known, _ := simplelru.NewLRU[contextkit.TenantID, *readinessAnswer](maxReadinessAnswers,
		nil) // its size is positive
	return &tenantReadiness{
		gateway: g,
		client:  contextkit.NewClient(upstream.NewTransport(g.pool)),
		rate:    rate.NewLimiter(readinessRate, readinessBurst),
		cached:  known,
	}
}

var errReadinessRate = connect.NewError(connect.CodeResourceExhausted,
	"the readiness of too many tenants was requested: try again in a moment")

// refusals returns the kinds of nodes that reject the tenant's calls, each with the reason. The
// answer is at most readinessTTL old, and newer than the last change of the routing table.
// Concurrent callers for one tenant share the health checks. It returns RESOURCE_EXHAUSTED when the
// readiness of too many tenants is requested, and the error of ctx.
func (s *tenantReadiness) refusals(
	ctx context.Context, tenant contextkit.TenantID,
) (map[contextkit.Kind]string, error) {
	now, epoch := time.Now(), s.gateway.routes.Epoch()
	s.mu.Lock()
	found, ok := s.cached.Get(tenant)
	if ok && now.Sub(found.checkedAt) < readinessTTL && found.epoch == epoch {
		s.mu.Unlock()
		select {
		case <-found.done:
			return maps.Clone(found.refused), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if !s.rate.AllowN(now, 1) {
		s.mu.Unlock()
		return nil, errReadinessRate
	}
	found = &readinessAnswer{done: make(chan struct{}), checkedAt: now, epoch: epoch}
	s.cached.Add(tenant, found)
	s.mu.Unlock()
	// The answers are shared, so the checks must not end with this caller.
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), readinessTimeout)
	defer cancel()
	found.refused = s.check(asked, tenant)
	close(found.done)
	return maps.Clone(found.refused), nil
}

// check sends a health check to the node of each kind that would receive the tenant's calls.
func (s *tenantReadiness) check(ctx context.Context, tenant contextkit.TenantID) map[contextkit.Kind]string {
	var (
		mu      sync.Mutex
		refused = map[contextkit.Kind]string{}
		asking  errgroup.Group
	)
	for _, kind := range s.gateway.table.Load().TenantUpstreams() {
		asking.Go(func() error {
			if reason := s.checkKind(ctx, kind, tenant); reason != "" {
				mu.Lock()
				defer mu.Unlock()
				refused[kind] = reason
			}
			return nil
		})
	}
	_ = asking.Wait() // they return no error
	return refused
}

// checkKind returns the reason that the kind's node rejects the tenant's calls, "" when it does
// not.
func (s *tenantReadiness) checkKind(ctx context.Context, kind contextkit.Kind, tenant contextkit.TenantID) string {
	routes := s.gateway.routes
	node, ok := routes.Lookup(kind, tenant)
	if !ok {
		if placed, only, found := routes.Placed(kind, tenant); found && only {
			return fmt.Sprintf("the tenant is placed on node %s, which is not ready", placed)
		}
		return s.gateway.noNode(kind)
	}
	if s.gateway.breakers.Open(node.Endpoint, "", tenant) {
		return "node " + node.ID + " does not answer: its breaker is open"
	}
	return s.checkNode(ctx, node, tenant)
}

// healthSpec is the method Check of the gRPC health protocol.
var healthSpec = connect.Spec{
	Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary,
	IdempotencyLevel: connect.IdempotencyNoSideEffects,
}

// checkNode returns the reason that the node does not serve the tenant, "" when it does. A node
// that does not implement the health protocol, or ignores tenants in it, serves all tenants.
func (s *tenantReadiness) checkNode(ctx context.Context, node route.Node, tenant contextkit.TenantID) string {
	ctx = upstream.WithEndpoint(contextkit.TenantContext(ctx, tenant), node.Endpoint)
	var answer healthv1.HealthCheckResponse
	err := s.client.CallUnary(ctx, healthSpec, &healthv1.HealthCheckRequest{}, &answer)
	verdict, _ := errors.AsType[*connect.Error](err)
	switch {
	case err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING,
		verdict != nil && verdict.Code() == connect.CodeUnimplemented:
		return ""
	case err == nil:
		return "node " + node.ID + " reports that it does not serve the tenant"
	case verdict != nil && (verdict.Code() == connect.CodeNotFound || verdict.Code() == connect.CodeFailedPrecondition):
		return verdict.Message()
	}
	return "node " + node.ID + " does not answer"
}
