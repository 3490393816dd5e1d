package runner

import (
	"context"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// worker returns the tenant's worker.
func (s *Service) worker(tenant contextkit.TenantID) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workerOf(tenant)
}

// workerOf is worker for callers that hold s.mu.
func (s *Service) workerOf(tenant contextkit.TenantID) *worker {
	w, ok := s.workers[tenant]
	if !ok {
		w = &worker{
			turns:      s.turns,
			starts:     s.starts,
			tenant:     tenant,
			js:         s.js,
			models:     s.models,
			finish:     finishTimeout,
			awaits:     s.awaits,
			unreadable: s.journal.Unreadable,
			engine: &engine{
				models:    s.models,
				instances: s.instances,
				revisions: s.pinned,
				history:   s.history,
				commands:  s.commands,
				webhooks:  s.webhooks,
				js:        s.js,
				timeline:  s.timeline,
				failing:   &s.failing,
				postponed: &postponed{held: &s.heldRetries},
				maxDepth:  s.maxDepth,
			},
			log: s.log.With().Str("tenant", tenant.String()).Logger(),
			obsolete: func(ctx context.Context) (bool, error) {
				revision, _, err := s.usesCursors(ctx)
				return revision != 0, err
			},
		}
		s.workers[tenant] = w
	}
	return w
}

// reconcile starts or stops the tenant's worker. The caller holds s.mu.
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

// supervise runs a worker until ctx ends, and restarts it when it fails.
func (s *Service) supervise(ctx context.Context, w *worker) {
	for {
		err := w.run(ctx)
		if ctx.Err() != nil {
			return
		}
		w.log.Error().Err(err).Msg("restarting a runner worker")
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartWait):
		}
	}
}
