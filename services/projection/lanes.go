package projection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// openAgain is the wait before a tenant's views are opened again after a failure.
const openAgain = time.Second

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
	defer func() {
		cancel()
		for _, f := range s.followers() {
			f.stopped()
		}
	}()
	for _, f := range s.followers() {
		s.start(ctx, f)
	}
	for {
		tenants, models := s.tenants.Changed(), s.models.Changed()
		var again <-chan time.Time
		if err := s.reconcile(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Dur("again_in", openAgain).Msg("views are not opened")
			again = time.After(openAgain)
		}
		select {
		case <-tenants:
		case <-models:
		case <-s.built:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// start runs a follower until it is stopped.
func (s *Service) start(ctx context.Context, f *follower) {
	ctx, f.cancel = context.WithCancel(ctx)
	f.ended = make(chan struct{})
	go func() {
		defer close(f.ended)
		f.run(ctx)
	}()
}

// reconcile opens what is to be followed and ends what is not, and shows views
// that have been built. Run calls it, and nobody else changes the lanes.
func (s *Service) reconcile(ctx context.Context) error {
	var errs []error
	for _, tenant := range s.tenants.All() {
		l, known := s.lane(tenant)
		if known {
			replaced, err := s.replaceDamaged(ctx, tenant, l)
			errs = append(errs, err)
			if replaced {
				continue
			}
		}
		current := s.models.Current()
		switch {
		case !known:
			f, err := s.openViews(ctx, tenant)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.start(ctx, f)
			s.setLane(tenant, lane{shown: f})
		case l.next != nil && l.next.model.Revision != current.Revision, l.next != nil && l.shown.model.Revision == current.Revision:
			// The model has changed once more meanwhile, or back.
			s.setLane(tenant, lane{shown: l.shown})
			errs = append(errs, l.next.end())
			s.wake()
		case l.next != nil && l.next.position() >= l.shown.position():
			if _, building := l.next.building(); building {
				continue
			}
			l.next.advanced.Store(nil)
			s.setLane(tenant, lane{shown: l.next})
			s.log.Info().Str("tenant", tenant.String()).Str("model", l.next.model.Revision).Msg("views of the new model are shown")
			errs = append(errs, l.shown.end())
		case l.next != nil: // it wakes Run as it goes on
		case l.shown.model.Revision != current.Revision:
			f, err := s.openViews(ctx, tenant)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			wake := s.wake
			f.advanced.Store(&wake)
			s.start(ctx, f)
			s.setLane(tenant, lane{shown: l.shown, next: f})
			s.log.Info().Str("tenant", tenant.String()).Str("model", f.model.Revision).Msg("views of the new model are built")
			s.wake() // they may be whole already
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
		s.log.Info().Str("tenant", tenant.String()).Msg("the tenant's views are no longer kept here")
	}
	return errors.Join(errs...)
}

// wake has Run look again.
func (s *Service) wake() {
	select {
	case s.built <- struct{}{}:
	default:
	}
}

// openViews opens a tenant's views of the model in use.
func (s *Service) openViews(ctx context.Context, tenant contextkit.TenantID) (*follower, error) {
	current := s.models.Current()
	origin := fmt.Sprintf("%s@%d", current.Revision, s.journal.Epoch())
	var (
		rows    store.Store
		checked *checkedStore
		f       *follower
		err     error
	)
	for range 2 { // a damaged store is set aside when it is opened again
		if rows, err = s.opener(ctx, tenant, current.Views(), origin); err != nil {
			return nil, err
		}
		checked = &checkedStore{Store: rows, report: func(error) {}}
		if f, err = newFollower(ctx, tenant, s.journal, current, checked, s.log); err == nil {
			break
		}
		if err = errors.Join(err, rows.Close()); !errors.Is(err, store.ErrDamaged) {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	f.timeline = s.timeline
	checked.report = func(err error) {
		if !f.damaged.Swap(true) {
			s.log.Error().Err(err).Str("tenant", tenant.String()).Msg("the tenant's views are damaged")
			s.wake()
		}
	}
	if r, ok := rows.(replacing); ok && r.Replaced() != nil {
		f.rebuilt = true
		s.noteReplaced(tenant, r.Replaced())
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

// enter begins to read the follower's rows, which leave ends. It reports false
// when they are no longer kept.
func (f *follower) enter() (leave func(), ok bool) {
	f.use.RLock()
	if f.closed {
		f.use.RUnlock()
		return nil, false
	}
	return f.use.RUnlock, true
}

// query is the rows' Query. Error: [errMoved] when they are no longer kept.
func (f *follower) query(ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error) (sequence uint64, err error) {
	leave, ok := f.enter()
	if !ok {
		return 0, errMoved
	}
	defer leave()
	return f.rows.Query(ctx, view, plan, each)
}

// stopped ends the follower's run, if it has begun, and returns when it has ended.
func (f *follower) stopped() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	<-f.ended
}

// end ends the follower: its run, those who watch it, and once nobody reads them
// any more its rows.
func (f *follower) end() error {
	f.leave()
	f.stopped()
	f.hub.close()
	f.use.Lock()
	defer f.use.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	return f.rows.Close()
}
