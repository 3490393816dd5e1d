package projection

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/position"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

const (
	// answerMargin is subtracted from a call's deadline, so that a "not reached yet" error arrives before the
	// caller's own timeout.
	answerMargin = 20 * time.Millisecond
	// maxStartWait bounds the wait of a call for views whose checkpoint has not been read: another node may have
	// them.
	maxStartWait = 500 * time.Millisecond
	// maxPositionWait bounds the wait of a call without a deadline.
	maxPositionWait = 5 * time.Second
)

// Service is the QueryService. Its methods may be called concurrently.
type Service struct {
	gatewayv1connect.UnimplementedQueryServiceHandler

	tenants   *rpc.Tenants
	models    *model.Registry
	journal   *journal.Journal
	opener    store.Opener
	conn      *nats.Conn
	positions *position.Codec
	pages     *query.Pages
	answers   *response.Limiter
	tokens    *token.Gate
	store     func() error // nil: see [Config]
	outage    func() (natshealth.Outage, bool)
	timeline  *timeline.Recorder
	log       zerolog.Logger
	tail      *tail.Tail
	js        jetstream.JetStream
	skips     *skipRecords
	end       uint64        // of the journal when the node started
	wakes     chan struct{} // holds a value while changed has tenants
	damaged   atomic.Int64  // stores that were set aside
	restored  atomic.Int64  // checkpoints that went back
	filters   nodeKeys      // of watches
	pending   pendingKeys   // of watchers
	found     *token.Sealer // of page tokens of aggregates
	indexing  indexing

	mu    sync.RWMutex
	views map[contextkit.TenantID]tenantViews

	changedMu sync.Mutex
	changed   map[contextkit.TenantID]struct{} // tenants to reconcile

	lag cached
}

// Config configures a [Service].
type Config struct {
	// Answers bounds responses in bytes.
	Answers response.Config
	// Tokens selects the version of positions and page tokens that the service issues; nil: the newest.
	Tokens *token.Gate
	// Store returns why the views' database cannot be used, nil when it can; it does not block. nil: the views are in
	// files of the node.
	Store func() error
	// Outage returns the current outage of NATS, and false for none; nil: a lost connection counts as one.
	Outage func() (natshealth.Outage, bool)
}

// New returns the service, which opens each tenant's views with open. timeline may be nil. Close releases them.
func New(
	ctx context.Context, config Config, js jetstream.JetStream, models *model.Registry, tenants *rpc.Tenants,
	open store.Opener, timeline *timeline.Recorder, log zerolog.Logger,
) (_ *Service, err error) {
	journal, err := journal.Open(ctx, js)
	if err != nil {
		return nil, err
	}
	secret, err := kv.SharedSecret(ctx, js, kv.SecretTokens)
	if err != nil {
		return nil, err
	}
	s := &Service{
		tenants:   tenants,
		models:    models,
		journal:   journal,
		opener:    open,
		conn:      js.Conn(),
		log:       log,
		timeline:  timeline,
		positions: position.NewCodec(secret, journal.Epoch, config.Tokens),
		pages:     query.NewPages(secret, config.Tokens),
		answers:   response.NewLimiter(config.Answers),
		tokens:    config.Tokens,
		store:     config.Store,
		outage:    config.Outage,
		js:        js,
		skips:     newSkipRecords(js),
		views:     map[contextkit.TenantID]tenantViews{},
		found:     token.NewSealer(secret, "aggregates page"),
		indexing:  indexing{queue: make(chan *follower, maxFilling)},
		wakes:     make(chan struct{}, 1),
		changed:   map[contextkit.TenantID]struct{}{},
		tail: tail.New(js, journal, tail.Config{
			Name:       contextkit.KindProjection.String(),
			QueueBytes: queueBytes,
			Log:        log,
		}),
	}
	if s.end, err = s.tail.End(ctx); err != nil {
		return nil, err
	}
	if s.outage == nil {
		s.outage = func() (natshealth.Outage, bool) { return natshealth.Outage{}, !s.conn.IsConnected() }
	}
	var failed []error
	for _, tenant := range tenants.All() {
		f, err := s.openViews(ctx, tenant)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.views[tenant] = tenantViews{current: f}
	}
	switch err := errors.Join(failed...); {
	case err != nil && (len(s.views) == 0 || ctx.Err() != nil):
		return nil, errors.Join(err, s.Close())
	case err != nil: // Run retries; other tenants are served
		log.Error().Err(err).Msg("opening the views of some tenants failed")
	}
	return s, nil
}

// Integrity returns the integrity check of the journal. Its Run must run for the lifetime of the service.
func (s *Service) Integrity() *journal.Integrity { return s.journal.Integrity() }

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	gatewayv1connect.RegisterQueryServiceHandler(server, s)
}

// Close closes the views. Run must have returned.
func (s *Service) Close() error {
	var errs []error
	for _, f := range s.followers() {
		errs = append(errs, f.end())
	}
	return errors.Join(errs...)
}

// cached is a lag that is computed at most once per second.
type cached struct {
	mu    sync.Mutex
	at    time.Time
	value int64
	// behind and count are the tenants with the greatest values, and the number of tenants that have any.
	behind []fleet.TenantLag
	count  int
}

// Lag returns the number of events of all tenants that are not applied to the current views yet, and the tenants with
// the most, see [fleet.MostBehind]. It is up to a second old.
func (s *Service) Lag() (lag int64, behind []fleet.TenantLag, count int) {
	s.lag.mu.Lock()
	defer s.lag.mu.Unlock()
	c := &s.lag
	if time.Since(c.at) < time.Second {
		return c.value, c.behind, c.count
	}
	c.at, c.value = time.Now(), 0
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []fleet.TenantLag
	for tenant, views := range s.views {
		if lag := views.current.waiting(); lag > 0 {
			c.value += lag
			all = append(all, fleet.TenantLag{Tenant: tenant.String(), Lag: lag})
		}
	}
	c.behind, c.count = fleet.MostBehind(all)
	return c.value, c.behind, c.count
}

// Ready returns why the service cannot serve the tenant, or any tenant if tenant is zero. It does not require NATS,
// since views can be read without it, as of their checkpoint.
func (s *Service) Ready(ctx context.Context, tenant contextkit.TenantID) error {
	if s.store != nil {
		if err := s.store(); err != nil {
			return err
		}
	}
	if tenant.IsZero() {
		return nil
	}
	views, ok := s.viewsOf(tenant)
	if !ok {
		return fmt.Errorf("tenant %s %w", tenant, rpc.ErrNotServed)
	}
	f := views.current
	if err := f.failing(); errors.Is(err, store.ErrFull) {
		return fmt.Errorf("the tenant's projection does not advance: %w: free disk space; it resumes without a restart",
			store.ErrFull)
	} else if err != nil && !s.away() && !journalLost(err) { // the journal's damage is a degradation
		return errors.New("the tenant's projection does not advance: " + causeOf(err))
	}
	return f.startedProgress(ctx)
}

// away reports whether the journal cannot be read for a reason that is not specific to a tenant's views.
func (s *Service) away() bool {
	_, away := s.outage()
	return away
}
