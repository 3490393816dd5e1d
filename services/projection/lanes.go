package projection

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/tail"
)

// openAgain is the wait before a tenant's views are opened again after a failure.
const openAgain = time.Second

// batchBytes bounds the events that are committed together, in bytes, and queueBytes a tenant's
// events that wait for it.
const batchBytes, queueBytes = 16 << 20, 32 << 20

// errMoved ends what reads views that are no longer kept here, or have been
// replaced by those of another model.
var errMoved = errors.New("the tenant's views have moved")

// lane is a tenant's views: those that are shown and, after a change of the model,
// those that are built beside them.
type lane struct {
	shown *follower
	next  *follower // nil: none
}

// Run follows the journal of every tenant that is served, which may change, until
// ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.tail.Run(ctx) }()
	for _, f := range s.followers() {
		s.start(f)
	}
	var skips sync.WaitGroup
	skips.Go(func() { s.followSkips(ctx) })
	s.follow(ctx)
	cancel()
	skips.Wait()
	err := <-ended
	for _, f := range s.followers() {
		f.stopped()
	}
	return err
}

// follow reconciles the lanes with the tenants and the model whenever these or a lane change.
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
			s.log.Error().Err(err).Dur("again_in_ms", openAgain).Msg("views are not opened")
			again = time.After(openAgain)
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

// start has the tail deliver a follower's events.
func (s *Service) start(f *follower) {
	f.subscription.Store(s.tail.Subscribe(f.tenant, f, tail.Options{Bytes: batchBytes}))
}

// reconcileAll brings every lane up to date, and ends the lanes of tenants that are no longer
// served.
func (s *Service) reconcileAll(ctx context.Context) error {
	var errs []error
	for _, tenant := range s.tenants.All() {
		if err := s.reconcile(ctx, tenant); err != nil {
			errs = append(errs, err)
		}
	}
	for tenant, l := range s.allLanes() {
		if s.tenants.Serves(tenant) {
			continue
		}
		s.dropLane(tenant)
		errs = append(errs, l.shown.end())
		if l.next != nil {
			errs = append(errs, l.next.end())
		}
		s.log.Info().Str("tenant", tenant.String()).Msg("the tenant's views are no longer stored here")
	}
	return errors.Join(errs...)
}

// reconcileChanged brings the lanes up to date that have changed.
func (s *Service) reconcileChanged(ctx context.Context) error {
	var errs []error
	for tenant := range s.takeChanged() {
		if s.tenants.Serves(tenant) {
			errs = append(errs, s.reconcile(ctx, tenant))
		}
	}
	return errors.Join(errs...)
}

// reconcile brings a tenant's lane up to date: it opens the views of the model in use in addition
// to the shown ones, and shows them once they are complete. follow calls it, and nothing else changes
// lanes once Run has begun.
func (s *Service) reconcile(ctx context.Context, tenant contextkit.TenantID) error {
	l, known := s.lane(tenant)
	if known {
		l.shown.tidy()
		if l.next != nil {
			l.next.tidy()
		}
		if replaced, err := s.replaceDamaged(ctx, tenant, l); replaced || err != nil {
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
		s.setLane(tenant, lane{shown: f})
		s.start(f)
	case l.next != nil && (l.next.origin != origin || l.shown.origin == origin):
		// The model has changed again, or back.
		s.setLane(tenant, lane{shown: l.shown})
		err := l.next.end()
		return errors.Join(err, s.reconcile(ctx, tenant))
	case l.next != nil && l.next.complete(l.shown):
		l.next.next.Store(false)
		s.setLane(tenant, lane{shown: l.next})
		s.log.Info().Str("tenant", tenant.String()).Str("model", l.next.model.Revision).Msg("views of the new model are shown")
		return l.shown.end()
	case l.next != nil: // it reports its changes
	case l.shown.origin != origin:
		f, err := s.openViews(ctx, tenant)
		if err != nil {
			return err
		}
		f.next.Store(true)
		s.setLane(tenant, lane{shown: l.shown, next: f})
		s.start(f)
		s.log.Info().Str("tenant", tenant.String()).Str("model", model.Revision).Msg("views of the new model are built")
	}
	return nil
}

// complete reports whether the views have followed the journal as far as the shown ones.
func (f *follower) complete(shown *follower) bool {
	if _, _, building := f.building(); building || f.catching() {
		return false
	}
	return f.epoch != shown.epoch || f.position() >= shown.position()
}

// noteChange has Run bring a follower's lane up to date.
func (s *Service) noteChange(f *follower) {
	s.changedMu.Lock()
	s.changed[f.tenant] = struct{}{}
	s.changedMu.Unlock()
	select {
	case s.wakes <- struct{}{}:
	default:
	}
}

// takeChanged returns the tenants whose followers have changed, and forgets them.
func (s *Service) takeChanged() map[contextkit.TenantID]struct{} {
	s.changedMu.Lock()
	defer s.changedMu.Unlock()
	taken := s.changed
	s.changed = map[contextkit.TenantID]struct{}{}
	return taken
}

// origin fingerprints what views are made from now: see [store.Opener].
func (s *Service) origin() string {
	return originOf(s.models.Current().Revision, s.journal.Epoch())
}

// openViews returns the follower of a tenant's views of the model in use.
func (s *Service) openViews(ctx context.Context, tenant contextkit.TenantID) (*follower, error) {
	current, epoch := s.models.Current(), s.journal.Epoch()
	origin := originOf(current.Revision, epoch)
	rows, err := s.opener(ctx, tenant, current.Views(), origin)
	if err != nil {
		return nil, err
	}
	checked := &checkedStore{Store: rows}
	f := newFollower(tenant, s.tail, current, checked, origin, epoch, s.log)
	f.timeline, f.whole, f.shared.node = s.timeline, max(s.end, s.tail.Position()), &s.filters
	f.changes, f.skips, f.positions = s.noteChange, s.skips, s.positions.Of(epoch)
	f.beyond = func(checkpoint uint64, err error) {
		if errors.Is(err, tail.ErrDiverged) {
			s.journal.Integrity().Diverged(epoch, checkpoint, "a tenant's views were made from another event at that sequence")
		} else {
			s.journal.Integrity().Reached(epoch, checkpoint, "a tenant's views have followed it further")
		}
	}
	f.restored = func() { s.restored.Add(1) }
	f.replaced = func(why error) { s.noteReplaced(tenant, why) }
	checked.report = func(err error) {
		if !f.damaged.Swap(true) {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg("the tenant's views are damaged")
			s.noteChange(f)
		}
	}
	return f, nil
}

func (s *Service) lane(tenant contextkit.TenantID) (lane, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l, ok := s.lanes[tenant]
	return l, ok
}

func (s *Service) setLane(tenant contextkit.TenantID, l lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lanes[tenant] = l
}

func (s *Service) dropLane(tenant contextkit.TenantID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lanes, tenant)
}

func (s *Service) allLanes() map[contextkit.TenantID]lane {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[contextkit.TenantID]lane, len(s.lanes))
	for tenant, l := range s.lanes {
		out[tenant] = l
	}
	return out
}

// followers returns all followers.
func (s *Service) followers() []*follower {
	var out []*follower
	for _, l := range s.allLanes() {
		out = append(out, l.shown)
		if l.next != nil {
			out = append(out, l.next)
		}
	}
	return out
}
