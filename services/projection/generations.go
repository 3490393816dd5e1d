package projection

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/tail"
)

// reopenDelay is the delay before a tenant's views are opened again after a failure.
const reopenDelay = time.Second

// batchBytes bounds the events that are committed together, in bytes; queueBytes bounds a tenant's queued events.
const batchBytes, queueBytes = 16 << 20, 32 << 20

// errMoved ends calls that read views which are no longer stored here, or were replaced by those of another model
// revision.
var errMoved = errors.New("the tenant's views have moved")

// tenantViews are the generations of a tenant's views: the current one and, after a change of the model, the one that
// is being built.
type tenantViews struct {
	current  *follower
	building *follower // nil: none
}

// Run follows the journal of every served tenant until ctx ends. The set of tenants may change.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.tail.Run(ctx) }()
	for _, f := range s.followers() {
		s.start(f)
	}
	var others sync.WaitGroup
	others.Go(func() { s.followSkips(ctx) })
	others.Go(func() { s.fillIndexes(ctx) })
	s.follow(ctx)
	cancel()
	others.Wait()
	err := <-ended
	for _, f := range s.followers() {
		f.stopped()
	}
	return err
}

// follow reconciles the generations with the tenants and the model whenever one of these changes.
func (s *Service) follow(ctx context.Context) {
	for all := true; ; {
		tenants, models, journal := s.tenants.Changed(), s.models.Changed(), s.journal.Integrity().Changed()
		var err error
		if all {
			s.takeChanged()
			err = s.reconcileAll(ctx)
		} else {
			err = s.reconcileChanged(ctx)
		}
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Dur("again_in_ms", reopenDelay).Msg("opening views failed")
			again = time.After(reopenDelay)
		}
		select {
		case <-tenants:
			all = true
		case <-models:
			all = true
		case <-journal: // it may be of another epoch, since an operator has accepted a loss
			all = true
		case <-again:
			all = true
		case <-s.wakes:
			// A change of the tenants or the model that came concurrently must not be missed.
			all = err != nil || closed(tenants) || closed(models)
		case <-ctx.Done():
			return
		}
	}
}

// closed reports whether a channel that carries no values is closed.
func closed(changed <-chan struct{}) bool {
	select {
	case <-changed:
		return true
	default:
		return false
	}
}

// start makes the tail deliver a follower's events.
func (s *Service) start(f *follower) {
	f.subscription.Store(s.tail.Subscribe(f.tenant, f, tail.Options{Bytes: batchBytes}))
}

// reconcileAll reconciles every tenant, and ends the generations of tenants that are no longer served.
func (s *Service) reconcileAll(ctx context.Context) error {
	var errs []error
	for _, tenant := range s.tenants.All() {
		if err := s.reconcile(ctx, tenant); err != nil {
			errs = append(errs, err)
		}
	}
	for tenant, views := range s.allViews() {
		if s.tenants.Serves(tenant) {
			continue
		}
		s.dropViews(tenant)
		errs = append(errs, views.current.end())
		if views.building != nil {
			errs = append(errs, views.building.end())
		}
		s.log.Info().Str("tenant", tenant.String()).Msg("removed the tenant's views")
	}
	return errors.Join(errs...)
}

// reconcileChanged reconciles the tenants whose generations have changed.
func (s *Service) reconcileChanged(ctx context.Context) error {
	var errs []error
	for tenant := range s.takeChanged() {
		if s.tenants.Serves(tenant) {
			errs = append(errs, s.reconcile(ctx, tenant))
		}
	}
	return errors.Join(errs...)
}

// reconcile brings a tenant's generations up to date: it opens the views of the model in use beside the current ones,
// and shows them once they are complete. Only follow calls it; nothing else changes generations once Run has started.
func (s *Service) reconcile(ctx context.Context, tenant contextkit.TenantID) error {
	views, known := s.viewsOf(tenant)
	if known {
		views.current.tidy()
		if views.building != nil {
			views.building.tidy()
		}
		if replaced, err := s.replaceDamaged(ctx, tenant, views); replaced || err != nil {
			return err
		}
	}
	origin, model := s.origin(), s.models.Current()
	switch {
	case !known:
		f, err := s.openViews(ctx, tenant)
		if err != nil {
			return err
		}
		s.setViews(tenant, tenantViews{current: f})
		s.start(f)
	case views.building != nil && (views.building.origin != origin || views.current.origin == origin):
		// The model has changed again, or back.
		s.setViews(tenant, tenantViews{current: views.current})
		err := views.building.end()
		return errors.Join(err, s.reconcile(ctx, tenant))
	case views.building != nil && views.building.complete(views.current):
		views.building.hidden.Store(false)
		s.setViews(tenant, tenantViews{current: views.building})
		s.log.Info().Str("tenant", tenant.String()).Str("model",
			views.building.model.Revision).Msg("now serving the views of the new model revision")
		return views.current.end()
	case views.building != nil: // the follower reports its changes
	case views.current.origin != origin:
		f, err := s.openViews(ctx, tenant)
		if err != nil {
			return err
		}
		f.hidden.Store(true)
		s.setViews(tenant, tenantViews{current: views.current, building: f})
		s.start(f)
		s.log.Info().Str("tenant", tenant.String()).Str("model", model.Revision).Msg(
			"building the views of the new model revision",
		)
	}
	return nil
}

// complete reports whether the views have followed the journal as far as the current ones.
func (f *follower) complete(current *follower) bool {
	if _, _, building := f.building(); building || f.catching() {
		return false
	}
	return f.epoch != current.epoch || f.lastApplied() >= current.lastApplied()
}

// noteChange makes Run reconcile the tenant of a follower.
func (s *Service) noteChange(f *follower) {
	s.changedMu.Lock()
	s.changed[f.tenant] = struct{}{}
	s.changedMu.Unlock()
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// takeChanged returns the tenants whose followers have changed, and resets the list.
func (s *Service) takeChanged() map[contextkit.TenantID]struct{} {
	s.changedMu.Lock()
	defer s.changedMu.Unlock()
	taken := s.changed
	s.changed = map[contextkit.TenantID]struct{}{}
	return taken
}

// origin returns the origin of views that are made now: see [store.Opener].
func (s *Service) origin() string {
	return originOf(s.models.Current().Revision, s.journal.Epoch())
}

// openViews returns a follower of a tenant's views by the model in use.
func (s *Service) openViews(ctx context.Context, tenant contextkit.TenantID) (*follower, error) {
	current, epoch := s.models.Current(), s.journal.Epoch()
	origin := originOf(current.Revision, epoch)
	rows, err := s.opener(ctx, tenant, current.Views(), origin)
	if err != nil {
		return nil, err
	}
	checked := &checkedStore{Store: rows}
	f := newFollower(tenant, s.tail, current, checked, origin, epoch, s.log)
	f.timeline, f.journalEnd, f.shared.node = s.timeline, max(s.end, s.tail.Position()), &s.filters
	f.hub.node = &s.pending
	f.onChange, f.skips, f.positions = s.noteChange, s.skips, s.positions.Of(epoch)
	f.onBeyond = func(checkpoint uint64, err error) {
		if errors.Is(err, tail.ErrDiverged) {
			s.journal.Integrity().Diverged(epoch, checkpoint,
				"a tenant's views were made from another event at that sequence")
		} else {
			s.journal.Integrity().Reached(epoch, checkpoint, "a tenant's views have followed it further")
		}
	}
	f.onRestored = func() { s.restored.Add(1) }
	f.onReplaced = func(why error) { s.noteReplaced(tenant, why) }
	checked.report = func(err error) {
		if !f.damaged.Swap(true) {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg("the tenant's views are damaged")
			s.noteChange(f)
		}
	}
	return f, nil
}

func (s *Service) viewsOf(tenant contextkit.TenantID) (tenantViews, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	views, ok := s.views[tenant]
	return views, ok
}

func (s *Service) setViews(tenant contextkit.TenantID, views tenantViews) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.views[tenant] = views
}

func (s *Service) dropViews(tenant contextkit.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.views, tenant)
}

func (s *Service) allViews() map[contextkit.TenantID]tenantViews {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[contextkit.TenantID]tenantViews, len(s.views))
	for tenant, views := range s.views {
		out[tenant] = views
	}
	return out
}

// followers returns all followers.
func (s *Service) followers() []*follower {
	var out []*follower
	for _, views := range s.allViews() {
		out = append(out, views.current)
		if views.building != nil {
			out = append(out, views.building)
		}
	}
	return out
}
