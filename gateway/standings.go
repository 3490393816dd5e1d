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
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

const (
	// standingTTL is how long the nodes' answers about a tenant are cached.
	standingTTL = 2 * time.Second
	// standingTimeout bounds the time of the health checks for one tenant.
	standingTimeout = time.Second
	// standingRate bounds the tenants per second that nodes are asked about, and standingBurst
	// the burst. Further questions are refused, so each node gets at most this rate of health
	// checks.
	standingRate, standingBurst = 20, 40
	// maxStandings bounds the tenants whose answers are stored.
	maxStandings = 1024
)

// standings asks nodes whether they serve a tenant. Its methods may be called
// concurrently.
type standings struct {
	gateway *Gateway
	client  *connect.Client
	rate    *rate.Limiter

	mu    sync.Mutex
	known *simplelru.LRU[contextkit.TenantID, *standing]
}

// standing is the answers of nodes about one tenant.
type standing struct {
	done    chan struct{} // closed when refused is complete
	asked   time.Time
	epoch   uint64            // of the routing table
	refused map[string]string // kind → why the tenant's calls are refused
}

func newStandings(g *Gateway) *standings {
	known, _ := simplelru.NewLRU[contextkit.TenantID, *standing](maxStandings, nil) // its size is positive
	return &standings{gateway: g, client: contextkit.NewClient(upstream.NewTransport(g.pool)), rate: rate.NewLimiter(standingRate, standingBurst), known: known}
}

var errStandingRate = connect.NewError(connect.CodeResourceExhausted, "the readiness of too many tenants is asked for: ask again in a moment")

// of returns the kinds of nodes that refuse the tenant's calls, each with the reason. The
// answer is at most standingTTL old, and from after the last change of the routing table.
// Concurrent callers for one tenant share the health checks. Errors: RESOURCE_EXHAUSTED when
// too many tenants are asked about, and that of ctx.
func (s *standings) of(ctx context.Context, tenant contextkit.TenantID) (map[string]string, error) {
	now, epoch := time.Now(), s.gateway.routes.Revision()
	s.mu.Lock()
	found, ok := s.known.Get(tenant)
	if ok && now.Sub(found.asked) < standingTTL && found.epoch == epoch {
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
		return nil, errStandingRate
	}
	found = &standing{done: make(chan struct{}), asked: now, epoch: epoch}
	s.known.Add(tenant, found)
	s.mu.Unlock()
	// The answers are shared, so the checks do not end with this caller.
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), standingTimeout)
	defer cancel()
	found.refused = s.ask(asked, tenant)
	close(found.done)
	return maps.Clone(found.refused), nil
}

// ask asks the node of each kind that would get the tenant's calls.
func (s *standings) ask(ctx context.Context, tenant contextkit.TenantID) map[string]string {
	var (
		mu      sync.Mutex
		refused = map[string]string{}
		asking  errgroup.Group
	)
	for _, kind := range s.gateway.table.Load().TenantUpstreams() {
		asking.Go(func() error {
			if reason := s.askKind(ctx, kind, tenant); reason != "" {
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

// askKind returns why the kind's node refuses the tenant's calls, "" when it does not.
func (s *standings) askKind(ctx context.Context, kind string, tenant contextkit.TenantID) string {
	routes := s.gateway.routes
	node, ok := routes.Lookup(kind, tenant)
	if !ok {
		if placed, only, found := routes.Placed(kind, tenant); found && only {
			return fmt.Sprintf("the tenant is placed on node %s, which takes no calls", placed)
		}
		return s.gateway.noNode(kind)
	}
	if s.gateway.breakers.Open(node.Endpoint, "", tenant) {
		return "node " + node.ID + " does not answer: its breaker is open"
	}
	return s.askNode(ctx, node, tenant)
}

// healthSpec is the method Check of the gRPC health protocol.
var healthSpec = connect.Spec{
	Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary, IdempotencyLevel: connect.IdempotencyNoSideEffects,
}

// askNode returns why the node does not serve the tenant. A node without the health protocol,
// or one that ignores tenants in it, serves all tenants.
func (s *standings) askNode(ctx context.Context, node route.Node, tenant contextkit.TenantID) string {
	ctx = upstream.WithEndpoint(contextkit.TenantContext(ctx, tenant), node.Endpoint)
	var answer healthv1.HealthCheckResponse
	err := s.client.CallUnary(ctx, healthSpec, &healthv1.HealthCheckRequest{}, &answer)
	verdict, _ := errors.AsType[*connect.Error](err)
	switch {
	case err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING,
		verdict != nil && verdict.Code() == connect.CodeUnimplemented:
		return ""
	case err == nil:
		return "node " + node.ID + " answers that it does not serve the tenant"
	case verdict != nil && (verdict.Code() == connect.CodeNotFound || verdict.Code() == connect.CodeFailedPrecondition):
		return verdict.Message()
	}
	return "node " + node.ID + " does not answer"
}
