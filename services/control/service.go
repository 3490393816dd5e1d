package control

import (
	"context"
	"errors"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fanout"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/traffic"
	"github.com/headgate/headgate/model"
)

// Nodes calls other nodes.
type Nodes struct {
	// Client injects the context headers; At determines the endpoint of its calls.
	Client *connect.Client
	// At returns a context for calls to an endpoint, host:port.
	At func(ctx context.Context, endpoint string) context.Context
}

// Service implements the control services. Its methods may be called concurrently.
type Service struct {
	id      string // this node's id
	js      jetstream.JetStream
	journal *journal.Journal
	models  *model.Registry
	// fixed is set if the model comes from a file, so that none can be applied.
	fixed bool
	nodes Nodes
	views gatewayv1connect.QueryServiceClient
	// positions parses the positions that other nodes report.
	positions *position.Codec
	// auditPages formats and parses page tokens of QueryAudit.
	auditPages *token.Numbers
	log        zerolog.Logger
	checks     *checks

	placements *kv.Bucket[fleet.Placement]
	tenants    *kv.Bucket[fleet.Tenant]
	documents  *kv.Bucket[models.Document]
	moves      *kv.Bucket[move]
	skips      *kv.Bucket[skips.Skip]
	drains     *kv.Bucket[fleet.Drain]
	asked      *fanout.Group[fleet.Node, bool] // whether the node accepts calls

	outage func() (natshealth.Outage, bool)

	mu      sync.Mutex
	fleet   fleet.Fleet               // sorted; replaced, never changed
	missed  map[string]int            // silent nodes → consecutive failed probes
	changed chan struct{}             // closed and replaced when fleet changes
	driven  map[string]bool           // moves that this node drives
	known   map[string]kv.Entry[move] // moves as they are followed; nil: not known yet; replaced, never changed
	counts  fleet.Metrics
	history traffic.History // of gateways' calls
	calls   traffic.History // of the calls of other nodes
	gauges  gauges
	issued  issued
	reads   *reads.Limiter // of timelines
}

// Config configures a control node.
type Config struct {
	// ID is the node's id.
	ID string
	// Fixed is set if the model comes from a file, so that none can be applied.
	Fixed bool
	// Nodes calls other nodes.
	Nodes Nodes
	// Outage returns the current outage of NATS, and false for none; nil: none is known.
	Outage func() (natshealth.Outage, bool)
}

// New returns the services of a control node. The available nodes are known when it returns.
func New(
	ctx context.Context, config Config, js jetstream.JetStream, documents *model.Registry, log zerolog.Logger,
) (*Service, error) {
	nodes := config.Nodes
	s := &Service{
		id:      config.ID,
		js:      js,
		models:  documents,
		fixed:   config.Fixed,
		nodes:   nodes,
		outage:  config.Outage,
		views:   gatewayv1connect.NewQueryServiceClient(nodes.Client),
		log:     log,
		checks:  newChecks(),
		changed: make(chan struct{}),
		driven:  map[string]bool{},
		missed:  map[string]int{},
		reads:   reads.NewLimiter(timelineReads),
	}
	var errs [7]error
	s.journal, errs[0] = journal.Open(ctx, js)
	s.placements, errs[1] = kv.Open[fleet.Placement](ctx, js, streams.BucketPlacement)
	s.tenants, errs[2] = kv.Open[fleet.Tenant](ctx, js, streams.BucketTenants)
	s.documents, errs[3] = kv.Open[models.Document](ctx, js, streams.BucketModels)
	s.moves, errs[4] = kv.Open[move](ctx, js, streams.BucketMoves)
	s.skips, errs[5] = kv.Open[skips.Skip](ctx, js, streams.BucketSkips)
	s.drains, errs[6] = kv.Open[fleet.Drain](ctx, js, streams.BucketDrains)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	secret, err := kv.SharedSecret(ctx, js, kv.SecretTokens)
	if err != nil {
		return nil, err
	}
	s.positions = position.NewCodec(secret, s.journal.Epoch, nil)
	s.auditPages = token.NewNumbers(secret, "control/audit page", nil)
	if err := s.openIssued(ctx, secret); err != nil {
		return nil, err
	}
	s.asked = fanout.NewGroup(fanout.Config{}, s.announced, s.probe)
	if s.outage == nil {
		s.outage = func() (natshealth.Outage, bool) { return natshealth.Outage{}, false }
	}
	// Gates of moves check announcements of nodes: without any node every gate would be open.
	first, cancel := context.WithCancel(ctx)
	defer cancel()
	fleet.FollowNodes(first, js, fleet.Follower{
		Tenants: true,
		Each: func(fleet fleet.Fleet) {
			s.setFleet(fleet)
			cancel()
		},
		Failed: s.unfollowed,
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Integrity returns the integrity check of the journal. Its Run must run for the lifetime of the service.
func (s *Service) Integrity() *journal.Integrity { return s.journal.Integrity() }

// Register registers the services' handlers.
func (s *Service) Register(server *connect.Server) {
	controlv1connect.RegisterFleetServiceHandler(server, fleetService{Service: s})
	controlv1connect.RegisterPlacementServiceHandler(server, placementService{Service: s})
	controlv1connect.RegisterTenantServiceHandler(server, tenantService{Service: s})
	controlv1connect.RegisterModelServiceHandler(server, modelService{Service: s})
	controlv1connect.RegisterAuditServiceHandler(server, auditService{Service: s})
	controlv1connect.RegisterTimelineServiceHandler(server, timelineService{Service: s})
	controlv1connect.RegisterViewServiceHandler(server, viewService{Service: s})
	controlv1connect.RegisterJournalServiceHandler(server, journalService{Service: s})
	controlv1connect.RegisterMetricsServiceHandler(server, metricsService{Service: s})
	controlv1connect.RegisterRevocationServiceHandler(server, revocationService{Service: s})
	controlv1connect.RegisterApiKeyServiceHandler(server, apiKeyService{Service: s})
}

// Ready returns nil. Without NATS the node returns the last known state, which operators need during an outage.
func (s *Service) Ready(context.Context, contextkit.TenantID) error { return nil }

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	s.counts.Describe(descriptions)
	s.issued.Describe(descriptions)
	s.reads.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.counts.Collect(metrics)
	s.issued.Collect(metrics)
	s.reads.Collect(metrics)
}

// Run follows the nodes and drives moves until ctx ends; the next control node continues an unfinished move.
func (s *Service) Run(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	var running sync.WaitGroup
	defer s.asked.Wait()
	defer running.Wait()
	running.Go(func() { s.followNodes(ctx) })
	running.Go(func() { s.driveAll(ctx) })
	running.Go(func() { s.measureAll(ctx) })
	running.Go(func() { s.followIssued(ctx) })
	<-ctx.Done()
	return nil
}

// probe asks a node whether it accepts calls. Errors: those of the call.
func (s *Service) probe(ctx context.Context, node fleet.Node) (takesCalls bool, err error) {
	ctx = s.nodes.At(contextkit.PlatformContext(ctx), node.Endpoint)
	req, res := &healthv1.HealthCheckRequest{}, &healthv1.HealthCheckResponse{}
	err = s.nodes.Client.CallUnary(ctx, checkSpec, req, res)
	return res.GetStatus() == healthv1.HealthCheckResponse_SERVING, err
}

// checkSpec is the spec of the gRPC health check.
var checkSpec = connect.Spec{
	Procedure:        healthv1.Health_Check_FullMethodName,
	IdempotencyLevel: connect.IdempotencyNoSideEffects,
}

// caller returns the subject of the gateway's caller, "" if the call did not come from a gateway.
func caller(ctx context.Context) string {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return ""
	}
	return contextkit.Principal(info.RequestHeader())
}
