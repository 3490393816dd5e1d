package events

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/token"
)

// Config is what a [Service] uses. All fields but Log are required.
type Config struct {
	JetStream jetstream.JetStream
	Journal   *journal.Journal
	Tenants   *rpc.Tenants
	Positions *position.Codec
	// Secret is the secret of tokens that all nodes share.
	Secret []byte
	// Answers bounds the bytes of responses.
	Answers *response.Limiter
	// Log receives warnings; the zero value discards them.
	Log zerolog.Logger
}

// Service is the EventService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedEventServiceHandler

	Config

	sealer *token.Sealer
	reads  *reads.Limiter
	feed   *feed
}

// New returns the service. Its Run must run for Subscribe.
func New(config Config) *Service {
	return &Service{
		Config: config,
		sealer: token.NewSealer(config.Secret, "event page"),
		reads: reads.NewLimiter(reads.Config{
			Metric: "headgate_event_reads",
			What:   "reads of the journal",
			Reason: rpc.ReasonTooManyEventReads,
		}),
		feed: newFeed(config.JetStream, config.Journal, newQueued(config.Answers.Bounds()), config.Log),
	}
}

// Run serves subscriptions until ctx ends, and ends them then.
func (s *Service) Run(ctx context.Context) error { return s.feed.run(ctx) }

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterEventServiceHandler(server, s)
}

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	s.reads.Describe(descriptions)
	s.feed.describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.reads.Collect(metrics)
	s.feed.collect(metrics)
}

// open returns the call's tenant, and begins a read of its journal, which ends when leave is called.
func (s *Service) open(ctx context.Context, field string) (tenant contextkit.TenantID, leave func(), err error) {
	if tenant, err = s.Tenants.Of(ctx, field); err != nil {
		return tenant, nil, err
	}
	if err := s.Answers.Admit(tenant); err != nil {
		return tenant, nil, err
	}
	leave, err = s.reads.Enter(ctx, tenant)
	return tenant, leave, err
}

// sequenceAt returns the sequence of the first message of any tenant that was stored at a time or later.
func (s *Service) sequenceAt(ctx context.Context, at time.Time) (uint64, error) {
	return s.Journal.Seek(ctx, journal.Range{Subject: journal.AllEvents}, func(m journal.Message) bool {
		return !m.Time.Before(at)
	})
}
