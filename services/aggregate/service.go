package aggregate

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/usage"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate/events"
	"github.com/headgate/headgate/services/aggregate/idempotency"
	"github.com/headgate/headgate/services/aggregate/tenantcache"
)

const (
	// DefaultCacheBytes is the default of [Config.CacheBytes].
	DefaultCacheBytes = 128 << 20
	// MinCacheBytes is the minimum of [Config.CacheBytes]. It holds a few of the largest states.
	MinCacheBytes = 16 << 20
	// indexShare divides the cache's bytes: one part of indexShare is for block indexes of idempotency logs.
	indexShare = 4
)

// Service is the CommandService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedCommandServiceHandler

	tenants   *rpc.Tenants
	models    *model.Registry
	decidedBy atomic.Pointer[namedModel]
	journal   eventLog
	conn      *nats.Conn
	positions *position.Codec
	loaded    prometheus.Counter
	groups    prometheus.Histogram
	logs      *idempotency.Logs
	snapshots *snapshots
	cache     *tenantcache.Cache[aggregateKey, *instance]
	memory    cacheMetrics
	timeline  *timeline.Recorder
	limiter   *response.Limiter // bounds the bytes of responses
	usage     meter
	events    *events.Service
}

// eventLog is what the service needs of a [journal.Journal].
type eventLog interface {
	Append(ctx context.Context, tenant contextkit.TenantID, lastSequence uint64, events []journal.Event) error
	Load(
		ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string, from uint64, most int,
		each func(journal.Event) error, pass ...func(*journal.UnreadableError),
	) error
	LoadAll(
		ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string, from uint64,
		each func(journal.Event) error, pass ...func(*journal.UnreadableError),
	) (last uint64, version int64, err error)
	Count(ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string) (uint64, error)
	Declared(ctx context.Context, e *journal.UnreadableError) (bool, error)
	Confirm(ctx context.Context) error
	While(ctx context.Context, do func(ctx context.Context) error) error
	Epoch() int64
	Replicated() bool
	Integrity() *journal.Integrity
}

// meter is what the service needs of a [usage.Meter].
type meter interface {
	prometheus.Collector
	Admit(tenant contextkit.TenantID, add usage.Counts, platform bool) (usage.Held, error)
	Add(tenant contextkit.TenantID, add usage.Counts)
	Run(ctx context.Context) error
}

// Config configures a [Service].
type Config struct {
	// Synced states that the NATS server syncs every write to disk. Concurrent commands then share writes (group
	// commit).
	Synced bool
	// CacheBytes bounds the estimated memory of cached aggregates and of their idempotency logs; 0 means
	// [DefaultCacheBytes]. When the cache is full, entries of tenants that use more than a quarter of it are evicted
	// first.
	CacheBytes int64
	// Answers bounds responses in bytes.
	Answers response.Config
	// Tokens selects the version of position tokens that the service issues; nil means the newest.
	Tokens *token.Gate
	// Quota is the default storage quota of tenants.
	Quota fleet.StorageQuota
	// Log receives warnings; the zero value discards them.
	Log zerolog.Logger
}

// New returns the service. The platform's streams must exist; timeline may be nil.
func New(
	ctx context.Context, config Config, js jetstream.JetStream, models *model.Registry, tenants *rpc.Tenants,
	timeline *timeline.Recorder,
) (*Service, error) {
	groups := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "headgate_aggregate_group_size",
		Help:    "Commands (or batches for one aggregate) that shared one write to the journal.",
		Buckets: []float64{32, 48, 64, 96, 128, 192},
	})
	var options []journal.Option
	if config.Synced {
		options = append(options, journal.GroupCommit(func(appends int) { groups.Observe(float64(appends)) }))
	}
	journal, err := journal.Open(ctx, js, options...)
	if err != nil {
		return nil, err
	}
	secret, err := kv.SharedSecret(ctx, js, kv.SecretTokens)
	if err != nil {
		return nil, err
	}
	answers, err := openAnswerStore(ctx, js, journal)
	if err != nil {
		return nil, err
	}
	snapshots, err := openSnapshots(ctx, js)
	if err != nil {
		return nil, err
	}
	meter, err := usage.Open(ctx, js, journal, usage.Config{Quota: config.Quota, Log: config.Log})
	if err != nil {
		return nil, err
	}
	if config.CacheBytes == 0 {
		config.CacheBytes = DefaultCacheBytes
	}
	indexBytes := config.CacheBytes / indexShare
	limiter, positions := response.NewLimiter(config.Answers), position.NewCodec(secret, journal.Epoch, config.Tokens)
	return &Service{
		limiter: limiter,
		loaded: prometheus.NewCounter(
			prometheus.CounterOpts{
				Name: "headgate_aggregate_events_loaded_total",
				Help: "Events read to fold aggregates that were not cached or not up to date.",
			},
		),
		groups:    groups,
		tenants:   tenants,
		models:    models,
		journal:   journal,
		conn:      js.Conn(),
		positions: positions,
		snapshots: snapshots,
		memory:    newCacheMetrics(),
		logs:      idempotency.NewLogs(answers, indexBytes),
		cache: tenantcache.New[aggregateKey, *instance](config.CacheBytes-indexBytes,
			func(k aggregateKey) contextkit.TenantID { return k.tenant }),
		timeline: timeline,
		usage:    meter,
		events: events.New(events.Config{
			JetStream: js,
			Journal:   journal,
			Tenants:   tenants,
			Positions: positions,
			Secret:    secret,
			Answers:   limiter,
			Log:       config.Log,
		}),
	}, nil
}

// Run exchanges the tenants' storage use with other nodes, and serves subscriptions, until ctx ends. Without it, the
// node counts its own commands only, and rejects subscriptions.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.usage.Run(ctx) })
	group.Go(func() error { return s.events.Run(ctx) })
	return group.Wait()
}

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterCommandServiceHandler(server, s)
	s.events.Register(server)
}

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	s.limiter.Describe(descriptions)
	s.loaded.Describe(descriptions)
	s.groups.Describe(descriptions)
	s.memory.describe(descriptions)
	s.usage.Describe(descriptions)
	s.events.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.limiter.Collect(metrics)
	s.loaded.Collect(metrics)
	s.groups.Collect(metrics)
	s.memory.collect(metrics, "aggregates", s.cache.Stats())
	s.memory.collect(metrics, "block_indexes", s.logs.IndexStats())
	s.usage.Collect(metrics)
	s.events.Collect(metrics)
}

// Integrity returns the integrity check of the journal. Its Run must run for the lifetime of the service.
func (s *Service) Integrity() *journal.Integrity { return s.journal.Integrity() }

// Ready returns why the service cannot accept commands, or nil. With a zero tenant it reports on the process as a
// whole. While the end of the journal is missing, the service serves reads, so the process is ready and no tenant is.
func (s *Service) Ready(_ context.Context, tenant contextkit.TenantID) error {
	if !s.conn.IsConnected() {
		return errors.New("not connected to NATS")
	}
	if tenant.IsZero() {
		return nil
	}
	if s.journal.Integrity().Appendable() != nil {
		return errors.New(endMissing)
	}
	return s.tenants.Ready(tenant)
}

// Submit implements CommandService.
func (s *Service) Submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.limiter.Admit(tenant); err != nil {
		return nil, err
	}
	by, c, err := prepare(s.models.Current(), req)
	if err != nil {
		return nil, err
	}
	if err := permit(ctx, by, c); err != nil {
		return nil, err
	}
	began := time.Now()
	key := aggregateKey{tenant, req.GetAggregateType(), req.GetAggregateId()}
	decided, err := s.submit(ctx, submission{
		key:       key,
		rules:     by,
		commands:  []command{c},
		dryRun:    req.GetDryRun(),
		platform:  fromPlatform(ctx),
		principal: principalOf(ctx),
	})
	if !req.GetDryRun() {
		s.record(ctx, key, req.GetCommand(), began, decided, asConnectError(err))
	}
	if err != nil {
		return nil, asConnectError(err)
	}
	room := s.budget()
	res, err := s.response(ctx, tenant, decided[0], req.GetDryRun(), room)
	if err != nil {
		return nil, err
	}
	s.limiter.Count(ctx, tenant, room.page.Used())
	return res, nil
}

// fromPlatform reports whether the gateway states that the caller is the platform itself.
func fromPlatform(ctx context.Context) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	return ok && contextkit.FromPlatform(info.RequestHeader())
}

// principalOf returns the subject of the call in ctx, "" if it is not known.
func principalOf(ctx context.Context) string {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return ""
	}
	return contextkit.Principal(info.RequestHeader())
}

// record adds a span for the commands, and one for each new event, to the timeline. name is the name of the command,
// or describes the batch.
func (s *Service) record(
	ctx context.Context, key aggregateKey, name string, began time.Time, decided []decision, err error,
) {
	if s.timeline == nil {
		return
	}
	subject := key.aggregateType + "/" + key.id
	span := timeline.Span{
		Kind:         timeline.KindCommand,
		Name:         name,
		Started:      began,
		Milliseconds: float64(time.Since(began).Microseconds()) / 1000,
		Code:         rpc.CodeName(err),
		Subject:      subject,
	}
	if err != nil {
		span.Detail = rpc.Public(err).Message()
	}
	for _, d := range decided {
		if d.replayed {
			span.Detail = "replayed"
		}
	}
	s.timeline.Record(ctx, span)
	if err != nil {
		return
	}
	for _, d := range decided {
		for _, event := range d.events {
			if !d.replayed {
				s.timeline.Record(ctx, timeline.Span{
					Kind:      timeline.KindEvent,
					Name:      event.Type,
					Started:   event.Time,
					Code:      "ok",
					Subject:   subject,
					Event:     event.ID,
					Span:      event.Span,
					Published: time.Since(event.Time),
					Detail:    fmt.Sprintf("version %d", event.Version),
				})
			}
		}
	}
}

// prepare resolves the aggregate type and the command of a request in a model.
func prepare(m *model.Model, req *aggregatev1.SubmitRequest) (rules, command, error) {
	by, err := rulesOf(m, req.GetAggregateType())
	if err != nil {
		return rules{}, command{}, err
	}
	rule, ok := by.Command(req.GetCommand())
	if !ok {
		return rules{}, command{}, connect.Errorf(connect.CodeNotFound, "aggregate %q has no command %q",
			req.GetAggregateType(), req.GetCommand())
	}
	return by, command{
		rule:     rule,
		payload:  model.Normalize(req.GetPayload().AsMap()).(model.Object),
		ref:      commandRef(req),
		expected: req.ExpectedVersion,
	}, nil
}

func rulesOf(m *model.Model, name string) (rules, error) {
	aggregate, ok := m.Aggregate(name)
	if !ok {
		return rules{}, connect.Errorf(connect.CodeNotFound, "the model has no aggregate %q", name)
	}
	return rules{Aggregate: aggregate, model: m, revision: m.Revision}, nil
}

// decision is the outcome of a command.
type decision struct {
	events   []journal.Event
	decided  []model.NewEvent // the model's decision that events was made from; nil if replayed
	version  int64
	sequence uint64
	replayed bool
}

// meta returns the metadata of an event, or of a decision, for the model.
func (k aggregateKey) meta(version int64, at time.Time, eventID string) model.Meta {
	return model.Meta{
		Tenant:        k.tenant.String(),
		AggregateType: k.aggregateType,
		AggregateID:   k.id,
		Version:       version,
		Time:          at.UTC().Format(time.RFC3339Nano),
		EventID:       eventID,
	}
}
