package aggregate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/usage"
	"github.com/headgate/headgate/model"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// DefaultCacheBytes is the default of [Config.CacheBytes].
	DefaultCacheBytes = 128 << 20
	// MinCacheBytes is the least [Config.CacheBytes]: a few of the largest states.
	MinCacheBytes = 16 << 20
	// chapterShare is the divisor of the cache's bytes that yields those of chapters.
	chapterShare = 4
)

// Service is the CommandService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedCommandServiceHandler

	tenants   *rpc.Tenants
	models    *model.Registry
	decidedBy atomic.Pointer[namedModel]
	journal   *backbone.Journal
	conn      *nats.Conn
	positions *position.Codec
	loaded    prometheus.Counter
	groups    prometheus.Histogram
	answers   *answers
	snapshots *snapshots
	cache     *cache[aggregateKey, *instance]
	chapters  *cache[chapterRef, *chapter]
	memory    cacheMetrics
	timeline  *backbone.Timeline
	limiter   *response.Limiter // of answers' bytes
	usage     *usage.Meter
}

// Config says how the service works.
type Config struct {
	// Synced says that the NATS server syncs every write to disk. Commands that wait
	// for others then share a write.
	Synced bool
	// CacheBytes bounds the memory of cached aggregates and of their idempotency logs, by an
	// estimate; 0: [DefaultCacheBytes]. While
	// it is used up, a tenant that uses more than a quarter of it makes room first.
	CacheBytes int64
	// Answers bounds answers in bytes.
	Answers response.Config
	// Tokens selects the version of positions that is issued; nil: the newest.
	Tokens *token.Gate
	// Quota bounds the storage of tenants without their own quota.
	Quota backbone.StorageQuota
	// Log gets warnings; the zero value discards them.
	Log zerolog.Logger
}

// New returns the service over a backbone whose streams exist. timeline may be nil.
func New(ctx context.Context, config Config, js jetstream.JetStream, models *model.Registry, tenants *rpc.Tenants, timeline *backbone.Timeline) (*Service, error) {
	journal, err := backbone.OpenJournal(ctx, js)
	if err != nil {
		return nil, err
	}
	groups := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "headgate_aggregate_group_size", Help: "Commands, or batches for an aggregate, that shared a write of the journal.", Buckets: []float64{32, 48, 64, 96, 128, 192},
	})
	if config.Synced {
		journal.GroupCommit(func(appends int) { groups.Observe(float64(appends)) })
	}
	secret, err := backbone.SharedSecret(ctx, js, "tokens")
	if err != nil {
		return nil, err
	}
	answers, err := openAnswers(js)
	if err != nil {
		return nil, err
	}
	snapshots, err := openSnapshots(js)
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
	chapterBytes := config.CacheBytes / chapterShare
	return &Service{
		limiter: response.NewLimiter(config.Answers),
		loaded:  prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_aggregate_events_loaded_total", Help: "Events read to fold aggregates that were not kept in memory, or were behind."}),
		groups:  groups,
		tenants: tenants, models: models, journal: journal, conn: js.Conn(),
		positions: position.NewCodec(secret, journal.Epoch, config.Tokens), answers: answers, snapshots: snapshots, memory: newCacheMetrics(),
		cache:    newCache[aggregateKey, *instance](config.CacheBytes-chapterBytes, func(k aggregateKey) contextkit.TenantID { return k.tenant }),
		chapters: newCache[chapterRef, *chapter](chapterBytes, func(r chapterRef) contextkit.TenantID { return r.key.tenant }),
		timeline: timeline, usage: meter,
	}, nil
}

// Run shares what tenants have stored with other nodes, until ctx ends. Without it a node
// knows only of its own commands.
func (s *Service) Run(ctx context.Context) error { return s.usage.Run(ctx) }

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterCommandServiceHandler(server, s)
}

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	s.limiter.Describe(descriptions)
	s.loaded.Describe(descriptions)
	s.groups.Describe(descriptions)
	s.memory.describe(descriptions)
	s.usage.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.limiter.Collect(metrics)
	s.loaded.Collect(metrics)
	s.groups.Collect(metrics)
	s.memory.collect(metrics, "aggregates", s.cache.stats())
	s.memory.collect(metrics, "chapters", s.chapters.stats())
	s.usage.Collect(metrics)
}

// Integrity tells whether the journal is whole. Its Run must run for as long as the service does.
func (s *Service) Integrity() *backbone.Integrity { return s.journal.Integrity() }

// Ready reports why the service cannot take commands: of the tenant, or without one of every
// tenant that the process can serve. While the journal's end is missing the service is ready for
// reads, and ready for no tenant.
func (s *Service) Ready(_ context.Context, tenant contextkit.TenantID) error {
	if !s.conn.IsConnected() {
		return errors.New("the journal is not reachable")
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
	decided, err := s.submit(ctx, submission{key: key, rules: by, commands: []command{c}, dryRun: req.GetDryRun(), platform: fromPlatform(ctx)})
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

// fromPlatform reports whether the caller is the platform itself, as the gateway states it.
func fromPlatform(ctx context.Context) bool {
	info, ok := connect.CallInfoForServerContext(ctx)
	return ok && contextkit.FromPlatform(info.RequestHeader())
}

// record notes commands and their events in the timeline. name is that of the
// command, or of how many there are.
func (s *Service) record(ctx context.Context, key aggregateKey, name string, began time.Time, decided []decision, err error) {
	if s.timeline == nil {
		return
	}
	subject := key.aggregateType + "/" + key.id
	hop := backbone.Hop{
		Kind: backbone.HopCommand, Name: name, Started: began, Milliseconds: float64(time.Since(began).Microseconds()) / 1000,
		Code: rpc.CodeName(err), Subject: subject,
	}
	if err != nil {
		hop.Detail = rpc.Public(err).Message()
	}
	for _, d := range decided {
		if d.replayed {
			hop.Detail = "answered before"
		}
	}
	s.timeline.Record(ctx, hop)
	if err != nil {
		return
	}
	for _, d := range decided {
		for _, event := range d.events {
			if !d.replayed {
				s.timeline.Record(ctx, backbone.Hop{
					Kind: backbone.HopEvent, Name: event.Type, Started: event.Time, Code: "ok", Subject: subject, Event: event.ID,
					Span: event.Span, Published: time.Since(event.Time),
					Detail: fmt.Sprintf("version %d", event.Version),
				})
			}
		}
	}
}

// prepare looks up what a request asks for in a model.
func prepare(m *model.Model, req *aggregatev1.SubmitRequest) (rules, command, error) {
	by, err := rulesOf(m, req.GetAggregateType())
	if err != nil {
		return rules{}, command{}, err
	}
	rule, ok := by.Command(req.GetCommand())
	if !ok {
		return rules{}, command{}, connect.Errorf(connect.CodeNotFound, "aggregate %q has no command %q", req.GetAggregateType(), req.GetCommand())
	}
	return by, command{
		rule: rule, payload: model.Normalize(req.GetPayload().AsMap()).(model.Object), ref: commandRef(req), expected: req.ExpectedVersion,
	}, nil
}

// GetAggregate implements CommandService.
func (s *Service) GetAggregate(ctx context.Context, req *aggregatev1.GetAggregateRequest) (*aggregatev1.GetAggregateResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.limiter.Admit(tenant); err != nil {
		return nil, err
	}
	by, err := rulesOf(s.models.Current(), req.GetAggregateType())
	if err != nil {
		return nil, err
	}
	key := aggregateKey{tenant, req.GetAggregateType(), req.GetAggregateId()}
	state, version, err := s.state(ctx, key, by, req.GetVersion())
	switch {
	case err != nil:
		return nil, asConnectError(err)
	case version == 0:
		return nil, connect.Errorf(connect.CodeNotFound, "%s %q has no events", key.aggregateType, key.id)
	case version < req.GetVersion():
		return nil, connect.Errorf(connect.CodeOutOfRange, "%s %q is at version %d, version %d is not reached", key.aggregateType, key.id, version, req.GetVersion())
	}
	size := response.Object(state)
	if err := response.TooLarge("the aggregate's state", size); err != nil {
		return nil, err
	}
	if err := s.limiter.Hold(ctx, tenant, size); err != nil {
		return nil, err
	}
	object, err := structpb.NewStruct(state)
	if err != nil {
		return nil, asConnectError(err)
	}
	return &aggregatev1.GetAggregateResponse{State: object, Version: version}, nil
}

func rulesOf(m *model.Model, name string) (rules, error) {
	aggregate, ok := m.Aggregate(name)
	if !ok {
		return rules{}, connect.Errorf(connect.CodeNotFound, "there is no aggregate %q in the model", name)
	}
	return rules{Aggregate: aggregate, model: m, revision: m.Revision}, nil
}

// decision is what a command did.
type decision struct {
	events   []backbone.Event
	decided  []model.NewEvent // of which the events are made, unless it is replayed
	version  int64
	sequence uint64
	replayed bool
}

// budget bounds the bytes of an answer, which the parts of a batch share.
type budget struct {
	mu   sync.Mutex
	page response.Page
}

func (s *Service) budget() *budget {
	return &budget{page: response.Page{Bytes: s.limiter.PageBytes()}}
}

// add counts the data of an event, and reports whether the answer has room for it.
func (b *budget) add(size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.page.Add(size)
}

// response describes the outcome of a command. Beyond the budget the data of events is
// omitted: the command has taken effect anyway.
func (s *Service) response(ctx context.Context, tenant contextkit.TenantID, decided decision, dryRun bool, room *budget) (*aggregatev1.SubmitResponse, error) {
	res := &aggregatev1.SubmitResponse{Version: decided.version, Replayed: decided.replayed}
	if !dryRun {
		res.Position = s.positions.Format(tenant, decided.sequence)
	}
	for n, event := range decided.events {
		out := &aggregatev1.Event{Id: event.ID, Type: event.Type, Version: event.Version, Time: timestamppb.New(event.Time)}
		res.Events = append(res.Events, out)
		var data model.Object
		if !decided.replayed {
			data = decided.decided[n].Data
		} else {
			// It may be of an earlier form.
			var err error
			data, err = s.models.Current().Event(ctx, model.EventRef{Aggregate: event.AggregateType, Event: event.Type}, event.DataVersion, event.Data)
			if err != nil {
				return nil, asConnectError(err)
			}
		}
		if !room.add(response.Object(data)) {
			out.DataOmitted = true
			continue
		}
		var err error
		if out.Data, err = structpb.NewStruct(data); err != nil {
			return nil, asConnectError(err)
		}
	}
	return res, nil
}

// meta describes the circumstances of an event, or of a decision, to the model.
func (k aggregateKey) meta(version int64, at time.Time, eventID string) model.Meta {
	return model.Meta{
		Tenant: k.tenant.String(), AggregateType: k.aggregateType, AggregateID: k.id,
		Version: version, Time: at.UTC().Format(time.RFC3339Nano), EventID: eventID,
	}
}
