package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/runner/admin/v1/adminv1connect"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
)

// restartWait is the pause before a worker that failed starts again.
const restartWait = time.Second

// Service works on the tenants' workflows and serves RunnerAdmin. Its methods
// may be called concurrently.
type Service struct {
	adminv1connect.UnimplementedRunnerAdminHandler

	tenants   chassis.Tenants
	models    *model.Registry
	js        jetstream.JetStream
	decisions jetstream.KeyValue
	instances *instances
	log       zerolog.Logger
	workers   map[contextkit.TenantID]*worker

	mu       sync.Mutex
	drained  bool
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

// New returns a runner that sends commands through commands and webhooks as hooks
// allow.
func New(ctx context.Context, js jetstream.JetStream, models *model.Registry, tenants chassis.Tenants, commands Commander, hooks webhook.Config, log zerolog.Logger) (*Service, error) {
	webhooks := webhook.New(hooks)
	kept, err := openInstances(ctx, js)
	if err != nil {
		return nil, err
	}
	decisions, err := js.KeyValue(ctx, backbone.BucketRunner)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketRunner, err)
	}
	s := &Service{
		webhooks: webhooks,
		tenants:  tenants, models: models, js: js, decisions: decisions, instances: kept, log: log,
		workers: map[contextkit.TenantID]*worker{}, paused: map[contextkit.TenantID]bool{}, decided: map[contextkit.TenantID]uint64{},
		active: map[contextkit.TenantID]*active{}, changed: make(chan struct{}),
	}
	places := newTurns(nodeConcurrency)
	for _, tenant := range tenants {
		s.workers[tenant] = &worker{
			turns:  places,
			tenant: tenant, js: js, models: models, engine: &engine{instances: kept, commands: commands, webhooks: webhooks, js: js},
			log: log.With().Str("tenant", tenant.String()).Logger(),
		}
		switch entry, err := decisions.Get(ctx, pausedKey(tenant)); {
		case err == nil:
			s.decide(tenant, string(entry.Value()) == decidedPaused, entry.Revision())
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return nil, fmt.Errorf("read whether %s is paused: %w", tenant, err)
		}
	}
	return s, nil
}

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
	for {
		s.mu.Lock()
		changed := s.changed
		for _, tenant := range s.tenants {
			s.reconcile(ctx, tenant, &running)
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
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
			if err != nil || !s.tenants.Serves(tenant) {
				continue
			}
			s.decide(tenant, string(entry.Value()) == decidedPaused, entry.Revision())
		}
	}
}

// reconcile starts or stops the tenant's worker. s.mu is held.
func (s *Service) reconcile(ctx context.Context, tenant contextkit.TenantID, running *sync.WaitGroup) {
	a := s.active[tenant]
	wanted := !s.drained && !s.paused[tenant]
	switch {
	case a != nil && !wanted && !a.stopping:
		a.stopping = true
		a.stop()
	case a == nil && wanted && ctx.Err() == nil:
		workerCtx, stop := context.WithCancel(ctx)
		s.active[tenant] = &active{stop: stop}
		running.Go(func() {
			s.supervise(workerCtx, s.workers[tenant])
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
		return fmt.Errorf("tenant %s is not served here", tenant)
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

// sortedTenants returns the tenants by name.
func (s *Service) sortedTenants() []contextkit.TenantID {
	return slices.SortedFunc(slices.Values(s.tenants), func(a, b contextkit.TenantID) int {
		return strings.Compare(a.String(), b.String())
	})
}
