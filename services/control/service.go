package control

import (
	"context"
	"errors"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/position"
	"github.com/headgate/headgate/chassis/fanout"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/model"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Nodes is how other nodes are called.
type Nodes struct {
	// Client carries the contract; its calls go where At says.
	Client *connect.Client
	// At has the calls under the context go to an endpoint, host:port.
	At func(ctx context.Context, endpoint string) context.Context
}

// Service is the control services. Its methods may be called concurrently.
type Service struct {
	id      string // this node's
	js      jetstream.JetStream
	journal *backbone.Journal
	models  *model.Registry
	// fixed says that the model comes from a file, and none can be applied.
	fixed bool
	nodes Nodes
	views gatewayv1connect.QueryServiceClient
	// positions parses the positions that other nodes report.
	positions *position.Codec
	log       zerolog.Logger
	checks    *checks

	placements *backbone.Bucket[backbone.Placement]
	tenants    *backbone.Bucket[backbone.Tenant]
	documents  *backbone.Bucket[backbone.Document]
	moves      *backbone.Bucket[move]
	asked      *fanout.Group[backbone.Node, struct{}]

	mu      sync.Mutex
	fleet   []backbone.Node     // sorted; replaced, never changed
	lost    []backbone.LostNode // the same
	changed chan struct{}       // closed and replaced when fleet or lost changes
	driven  map[string]bool     // moves that this node drives
}

// New returns the services of a control node, which knows the nodes that are there. fixed
// says that models comes from a file, so that none can be applied.
func New(ctx context.Context, id string, js jetstream.JetStream, models *model.Registry, fixed bool, nodes Nodes, log zerolog.Logger) (*Service, error) {
	s := &Service{
		id: id, js: js, models: models, fixed: fixed, nodes: nodes, views: gatewayv1connect.NewQueryServiceClient(nodes.Client), log: log,
		checks: newChecks(), changed: make(chan struct{}), driven: map[string]bool{},
	}
	var errs [5]error
	s.journal, errs[0] = backbone.OpenJournal(ctx, js)
	s.placements, errs[1] = backbone.OpenBucket[backbone.Placement](ctx, js, backbone.BucketPlacement)
	s.tenants, errs[2] = backbone.OpenBucket[backbone.Tenant](ctx, js, backbone.BucketTenants)
	s.documents, errs[3] = backbone.OpenBucket[backbone.Document](ctx, js, backbone.BucketModels)
	s.moves, errs[4] = backbone.OpenBucket[move](ctx, js, backbone.BucketRebalances)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	secret, err := backbone.SharedSecret(ctx, js, "tokens")
	if err != nil {
		return nil, err
	}
	s.positions = position.NewCodec(secret, s.journal.Epoch(), nil)
	s.asked = fanout.NewGroup(fanout.Config{}, s.announced, s.probe)
	// Gates of moves look at what nodes say of themselves: whoever knew none would find
	// every gate open.
	first, cancel := context.WithCancel(ctx)
	defer cancel()
	err = backbone.FollowNodes(first, js, func(nodes []backbone.Node, lost []backbone.LostNode) {
		s.setNodes(nodes, lost)
		cancel()
	})
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, err
	}
	return s, nil
}

// Register registers the services' handlers.
func (s *Service) Register(server *connect.Server) {
	controlv1connect.RegisterFleetServiceHandler(server, fleetService{Service: s})
	controlv1connect.RegisterPlacementServiceHandler(server, placementService{Service: s})
	controlv1connect.RegisterTenantServiceHandler(server, tenantService{Service: s})
	controlv1connect.RegisterModelServiceHandler(server, modelService{Service: s})
	controlv1connect.RegisterAuditServiceHandler(server, auditService{Service: s})
	controlv1connect.RegisterTimelineServiceHandler(server, timelineService{Service: s})
}

// Ready reports why the node takes no calls.
func (s *Service) Ready(context.Context, contextkit.TenantID) error {
	if !s.js.Conn().IsConnected() {
		return errors.New("NATS is not reachable")
	}
	return nil
}

// Run follows the nodes and drives moves until ctx ends; a move that is under way
// is then left to the next control node.
func (s *Service) Run(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	var running sync.WaitGroup
	defer s.asked.Wait()
	defer running.Wait()
	running.Go(func() { s.followNodes(ctx) })
	running.Go(func() { s.driveAll(ctx) })
	<-ctx.Done()
	return nil
}

// probe asks a node whether it takes calls.
func (s *Service) probe(ctx context.Context, node backbone.Node) (struct{}, error) {
	ctx = s.nodes.At(contextkit.PlatformContext(ctx), node.Endpoint)
	req, res := &healthv1.HealthCheckRequest{}, &healthv1.HealthCheckResponse{}
	return struct{}{}, s.nodes.Client.CallUnary(ctx, checkSpec, req, res)
}

// checkSpec is the gRPC health protocol's question.
var checkSpec = connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, IdempotencyLevel: connect.IdempotencyNoSideEffects}

// caller returns the subject of the gateway's caller, "" if the call did not come from a
// gateway.
func caller(ctx context.Context) string {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return ""
	}
	return contextkit.Principal(info.RequestHeader())
}
