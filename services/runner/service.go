package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/token"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/chassis/response"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/runner/admin/v1/adminv1connect"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// restartWait is the pause before a worker that failed starts again.
const restartWait = time.Second

// Service works on the tenants' workflows and serves RunnerAdmin. Its methods
// may be called concurrently.
type Service struct {
	adminv1connect.UnimplementedRunnerAdminHandler

	tenants   *chassis.Tenants
	models    *model.Registry
	js        jetstream.JetStream
	decisions jetstream.KeyValue
	instances *instances
	answers   *response.Limiter
	pages     *token.Numbers
	log       zerolog.Logger
	commands  Commander
	turns     *turns
	timeline  *backbone.Timeline

	rearmEvery time.Duration // see Config.Rearm

	mu       sync.Mutex
	workers  map[contextkit.TenantID]*worker
	drained  bool
	resting  map[contextkit.TenantID]bool // suspended tenants
	paused   map[contextkit.TenantID]bool
	webhooks *webhook.Caller
	decided  map[contextkit.TenantID]uint64  // revision of the decision in paused
	active   map[contextkit.TenantID]*active // workers that run or are finishing
	changed  chan struct{}                   // closed and replaced when any of the above changes
}

// active is a worker that was started.
type active struct {
	stop context.CancelFunc
	// stopping says that it takes no more work.
	stopping bool
}

// Config says how the service answers.
type Config struct {
	// Answers bounds answers in bytes.
	Answers response.Config
	// Tokens selects the version of page tokens that is issued; nil: the newest.
	Tokens *token.Gate
	// Rearm is the least time between two searches for waits whose message is missing; 0: ten
	// minutes, and records of the last minute are left out.
	Rearm time.Duration
}

// New returns a runner that sends commands through commands and webhooks as hooks
// allow. timeline may be nil.
func New(ctx context.Context, config Config, js jetstream.JetStream, models *model.Registry, tenants *chassis.Tenants, commands Commander, hooks webhook.Config, timeline *backbone.Timeline, log zerolog.Logger) (*Service, error) {
	webhooks := webhook.New(hooks)
	kept, err := openInstances(ctx, js)
	if err != nil {
		return nil, err
	}
	decisions, err := js.KeyValue(ctx, backbone.BucketRunner)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketRunner, err)
	}
	secret, err := backbone.SharedSecret(ctx, js, "tokens")
	if err != nil {
		return nil, err
	}
	s := &Service{
		rearmEvery: config.Rearm,

		answers:  response.NewLimiter(config.Answers),
		pages:    token.NewNumbers(secret, "runner/page", config.Tokens),
		webhooks: webhooks, commands: commands, turns: newTurns(nodeConcurrency), timeline: timeline,
		tenants: tenants, models: models, js: js, decisions: decisions, instances: kept, log: log,
		workers: map[contextkit.TenantID]*worker{}, paused: map[contextkit.TenantID]bool{}, decided: map[contextkit.TenantID]uint64{},
		active: map[contextkit.TenantID]*active{}, changed: make(chan struct{}),
	}
	for _, tenant := range tenants.All() {
		switch kept, err := backbone.ReadKept(ctx, js, backbone.BucketRunner, pausedKey(tenant)); {
		case err == nil:
			s.decide(tenant, string(kept.Value) == decidedPaused, kept.Revision)
		case !errors.Is(err, backbone.ErrNotKept):
			return nil, fmt.Errorf("read whether %s is paused: %w", tenant, err)
		}
	}
	return s, nil
}

// worker returns the tenant's worker.
func (s *Service) worker(tenant contextkit.TenantID) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workerOf(tenant)
}

// workerOf is worker while s.mu is held.
func (s *Service) workerOf(tenant contextkit.TenantID) *worker {
	w, ok := s.workers[tenant]
	if !ok {
		w = &worker{
			turns: s.turns, tenant: tenant, js: s.js, models: s.models, finish: finishTimeout,
			engine: &engine{instances: s.instances, commands: s.commands, webhooks: s.webhooks, js: s.js, timeline: s.timeline},
			log:    s.log.With().Str("tenant", tenant.String()).Logger(),
		}
		s.workers[tenant] = w
	}
	return w
}

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) { s.answers.Describe(descriptions) }

// Collect implements [prometheus.Collector].
func (s *Service) Collect(metrics chan<- prometheus.Metric) { s.answers.Collect(metrics) }

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	adminv1connect.RegisterRunnerAdminHandler(server, s)
}

// Run starts and stops workers as Drain, PauseTenant, Reload and their
// opposites ask, until ctx ends; then it waits for the work in flight.
func (s *Service) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer s.webhooks.Close()
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { s.followDecisions(ctx) })
	running.Go(func() { s.rearm(ctx) })
	for {
		served, models := s.tenants.Changed(), s.models.Changed()
		s.mu.Lock()
		changed := s.changed
		for _, tenant := range s.tenants.All() {
			s.reconcile(ctx, tenant, &running)
		}
		for tenant := range s.active {
			if !s.tenants.Serves(tenant) {
				s.reconcile(ctx, tenant, &running)
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-served:
		case <-models:
			s.renew(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// Suspend leaves the work of these tenants alone, and of these only, until the next
// time that it is called.
func (s *Service) Suspend(tenants []contextkit.TenantID) {
	resting := map[contextkit.TenantID]bool{}
	for _, tenant := range tenants {
		resting[tenant] = true
	}
	s.change(func() { s.resting = resting })
}

// followDecisions takes in what operators tell other runners, until ctx ends.
func (s *Service) followDecisions(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.takeDecisions(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Msg("other runners' decisions are not heard; trying again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartWait):
		}
	}
}

// takeDecisions takes decisions in as they come, those made meanwhile first.
func (s *Service) takeDecisions(ctx context.Context) error {
	decisions, err := s.decisions.Watch(ctx, pausedPrefix+">")
	if err != nil {
		return err
	}
	defer func() { _ = decisions.Stop() }() // it ends with ctx anyway
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, open := <-decisions.Updates():
			if !open && ctx.Err() != nil {
				return nil
			}
			if !open {
				return errors.New("the watch has ended")
			}
			if entry == nil {
				continue // what was decided before has been said
			}
			tenant, err := contextkit.ParseTenantID(strings.TrimPrefix(entry.Key(), pausedPrefix))
			if err != nil {
				continue
			}
			s.decide(tenant, string(entry.Value()) == decidedPaused, entry.Revision())
		}
	}
}

// reconcile starts or stops the tenant's worker. s.mu is held.
func (s *Service) reconcile(ctx context.Context, tenant contextkit.TenantID, running *sync.WaitGroup) {
	a := s.active[tenant]
	wanted := !s.drained && !s.paused[tenant] && !s.resting[tenant] && s.tenants.Serves(tenant)
	switch {
	case a != nil && !wanted && !a.stopping:
		a.stopping = true
		a.stop()
	case a == nil && wanted && ctx.Err() == nil:
		w := s.workerOf(tenant)
		workerCtx, stop := context.WithCancel(ctx)
		s.active[tenant] = &active{stop: stop}
		running.Go(func() {
			s.supervise(workerCtx, w)
			stop()
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.active, tenant)
			s.notify()
		})
	}
}

// supervise runs a worker until ctx ends, and again when it fails.
func (s *Service) supervise(ctx context.Context, w *worker) {
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return
		}
		w.log.Error().Err(err).Msg("runner worker starts again")
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartWait):
		}
	}
}

// notify wakes whoever waits for a change. s.mu is held.
func (s *Service) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits until condition holds, which is called with s.mu held.
func (s *Service) until(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		holds, changed := condition(), s.changed
		s.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ready reports why the node takes no work, for a tenant or at all.
func (s *Service) Ready(_ context.Context, tenant contextkit.TenantID) error {
	if !s.js.Conn().IsConnected() {
		return errors.New("the journal is not reachable")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.drained:
		return errors.New("the node is drained")
	case tenant.IsZero():
		return nil
	case !s.tenants.Serves(tenant):
		return s.tenants.Ready(tenant)
	case s.resting[tenant]:
		return fmt.Errorf("tenant %s is suspended", tenant)
	case s.paused[tenant]:
		return fmt.Errorf("tenant %s is paused", tenant)
	}
	return nil
}

// A tenant's decision is kept under this prefix and its name.
const (
	pausedPrefix   = "paused."
	decidedPaused  = "paused"
	decidedRunning = "running"
)

func pausedKey(tenant contextkit.TenantID) string { return pausedPrefix + tenant.String() }

// decide takes a decision in, unless a later one has been.
func (s *Service) decide(tenant contextkit.TenantID, paused bool, revision uint64) {
	s.change(func() {
		if revision > s.decided[tenant] {
			s.decided[tenant], s.paused[tenant] = revision, paused
		}
	})
}

// renew has the journal deliver what the model in use asks for.
func (s *Service) renew(ctx context.Context) {
	for _, tenant := range s.tenants.All() {
		if _, err := s.worker(tenant).consumer(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg("the journal does not deliver by the new model yet")
		}
	}
}

// Lag is how many events and pieces of work wait for the node's tenants, as far as
// JetStream told last; those in work included.
func (s *Service) Lag() int64 {
	var lag int64
	for _, tenant := range s.tenants.All() {
		lag += s.worker(tenant).waiting.Load()
	}
	return lag
}
