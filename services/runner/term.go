package runner

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/model"
)

const (
	// flushEvery is the interval at which changed cursors are written. After a crash, the work of one interval may be
	// repeated; it takes effect only once.
	flushEvery = 500 * time.Millisecond
	// claimIdle is the time after which an idle tenant's claim ends.
	claimIdle = 5 * time.Second
	// flushes bounds the cursors that are written concurrently.
	flushes = 16
	// recheckOwnedEvery is the interval at which cursors of tenants that another runner still owns are read, and
	// noteEvery the interval at which the progress of idle tenants is written.
	recheckOwnedEvery, noteEvery = 500 * time.Millisecond, time.Minute
	// leaveTimeout bounds the last write of a cursor. Without it, the next owner repeats the work since the previous
	// write.
	leaveTimeout = 5 * time.Second
	// duePoll is the interval at which new due work is read, and dueRescan the interval at which all due work is read,
	// to find work that a lagging replica has not returned.
	duePoll, dueRescan = 250 * time.Millisecond, time.Minute
)

// term is the period for which this runner holds one lease and owns the tenants that are assigned to it.
type term struct {
	service *Service
	id      string          // of the lease
	ctx     context.Context //nolint:containedctx // it lives as long as the struct
	// detached is ctx without cancellation: started work is finished after ctx ends.
	detached context.Context //nolint:containedctx // it lives as long as the struct
	running  sync.WaitGroup  // goroutines of pieces, scans and departures
	model    string          // the revision whose triggers the tail delivers; only run accesses it

	mu      sync.Mutex
	tenants map[contextkit.TenantID]*owned
	changed chan struct{} // holds a value when a tenant was released

	claims  sync.Mutex // guards the fields below; may be acquired while a tenant's mutex is held
	claimed map[*owned]bool
	waiting map[*owned]bool // tenants that another runner still owns
}

func (s *Service) newTerm(ctx context.Context, id string) *term {
	return &term{
		service:  s,
		id:       id,
		ctx:      ctx,
		detached: context.WithoutCancel(ctx),
		tenants:  map[contextkit.TenantID]*owned{},
		claimed:  map[*owned]bool{},
		waiting:  map[*owned]bool{},
		changed:  make(chan struct{}, 1),
	}
}

// spawn runs f in a goroutine that the term waits for.
func (t *term) spawn(f func()) { t.running.Go(f) }

// run owns tenants until stopping ends, and then releases them after their running work has finished. It returns
// earlier if the lease is lost.
func (t *term) run(stopping context.Context) {
	s := t.service
	background, stop := context.WithCancel(context.WithoutCancel(stopping))
	var loops sync.WaitGroup
	loops.Go(func() { t.flushCursors(background) })
	loops.Go(func() { t.pollDue(background) })
	loops.Go(func() { t.noteProgress(background) })
	loops.Go(func() { t.awaitOwners(background) })
	for {
		served, models := s.tenants.Changed(), s.models.Changed()
		_, members := s.lease.Members()
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		t.follow(s.models.Current())
		t.reconcile()
		select {
		case <-models:
		case <-changed:
		case <-served:
		case <-members:
			t.recheckOwned()
		case <-t.changed:
		case <-t.ctx.Done():
			cause := errLost
			if stopping.Err() != nil {
				cause = errLeaving
			}
			t.end(cause)
			t.running.Wait()
			stop()
			loops.Wait()
			return
		}
	}
}

// follow makes the tail deliver the triggers of a model. The model may have changed while no lease was held.
func (t *term) follow(m *model.Model) {
	if t.model == m.Revision {
		return
	}
	t.model = m.Revision
	t.service.noteStarts(t.ctx)
	t.service.tail.SetSubjects(subjectsOf(m))
	t.resubscribe()
}

// reconcile acquires the tenants that are assigned to this runner and releases the others.
func (t *term) reconcile() {
	s := t.service
	candidates := s.candidates()
	wanted := map[contextkit.TenantID]bool{}
	s.mu.Lock()
	accepting := !s.drained
	for _, tenant := range s.tenants.All() {
		if accepting && !s.paused[tenant] && !s.resting[tenant] && s.isMine(tenant, candidates) {
			wanted[tenant] = true
		}
	}
	s.mu.Unlock()
	s.lease.SetTaking(accepting)
	t.mu.Lock()
	defer t.mu.Unlock()
	for tenant, o := range t.tenants {
		if !wanted[tenant] {
			t.leave(o, errLeaving)
		}
	}
	for tenant := range wanted {
		if t.tenants[tenant] == nil {
			t.add(tenant)
		}
	}
}

// add acquires a tenant. The caller holds t.mu.
func (t *term) add(tenant contextkit.TenantID) {
	o := &owned{term: t, tenant: tenant}
	o.accepting, o.end = context.WithCancelCause(t.detached)
	t.tenants[tenant] = o
	sub := t.service.tail.Subscribe(tenant, o, t.options())
	o.mu.Lock()
	o.sub = sub
	o.mu.Unlock()
}

// options returns the options with which the tail delivers the triggers of the model in use.
func (t *term) options() tail.Options {
	types := map[string]bool{}
	for _, workflow := range t.service.models.Current().Workflows() {
		types[workflow.On.Aggregate] = true
	}
	return tail.Options{
		Events: window,
		Bytes:  windowBytes / 2,
		Accept: func(aggregateType string) bool { return types[aggregateType] },
	}
}

// leave starts to release a tenant: running work is finished, unless the tenant is lost. The tenant stays in t.tenants
// until it is released. The caller holds t.mu.
func (t *term) leave(o *owned, cause error) {
	if o.leaving {
		return
	}
	o.leaving = true
	o.end(cause)
	t.spawn(func() { t.depart(t.detached, o, cause) })
}

// depart finishes running work, and stores the tenant's last cursor unless the tenant is lost.
func (t *term) depart(ctx context.Context, o *owned, cause error) {
	o.mu.Lock()
	sub := o.sub
	o.mu.Unlock()
	sub.Stop()
	<-o.quiet()
	if errors.Is(cause, errLeaving) {
		ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
		defer cancel()
		if err := o.flush(ctx, true); err != nil {
			t.service.log.Warn().Err(err).Str("tenant", o.tenant.String()).Msg(
				"released a tenant without its last cursor; its next owner repeats work, with one effect",
			)
		}
	}
	t.unclaim(o)
	t.mu.Lock()
	delete(t.tenants, o.tenant)
	t.mu.Unlock()
	t.notify()
}

// lose releases a tenant that another runner has claimed.
func (t *term) lose(o *owned) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leave(o, errLost)
}

// renew releases a tenant, and acquires it again with the journal's current epoch once running work is finished.
func (t *term) renew(o *owned) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leave(o, errLeaving)
}

// end releases all tenants.
func (t *term) end(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.tenants {
		t.leave(o, cause)
	}
}

func (t *term) notify() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
	t.service.change(func() {}) // a drain may wait for it
}

// resubscribe makes the tail deliver the triggers of the model in use.
func (t *term) resubscribe() {
	t.mu.Lock()
	var all []*owned
	for _, o := range t.tenants {
		if !o.leaving {
			all = append(all, o)
		}
	}
	t.mu.Unlock()
	for _, o := range all {
		o.mu.Lock()
		old := o.sub
		o.mu.Unlock()
		old.Stop()
		t.mu.Lock()
		if !o.leaving {
			o.mu.Lock()
			o.held = false
			o.sub = t.service.tail.Subscribe(o.tenant, o, t.options())
			o.mu.Unlock()
		}
		t.mu.Unlock()
	}
}

// claim makes the term write the tenant's cursor whenever it changes.
func (t *term) claim(o *owned) {
	t.claims.Lock()
	defer t.claims.Unlock()
	t.claimed[o] = true
}

func (t *term) unclaim(o *owned) {
	t.claims.Lock()
	defer t.claims.Unlock()
	delete(t.claimed, o)
	if o.accepting.Err() != nil {
		delete(t.waiting, o)
	}
}

// owner returns the tenant if this runner acquires it, nil if not.
func (t *term) owner(tenant contextkit.TenantID) *owned {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tenants[tenant]
}

// await sets whether the tenant's cursor is read again soon, because another runner still owns the tenant.
func (t *term) await(o *owned, waits bool) {
	t.claims.Lock()
	defer t.claims.Unlock()
	if waits {
		t.waiting[o] = true
	} else {
		delete(t.waiting, o)
	}
}

// recheckOwned reads the cursors of the tenants that another runner owned when they were last read.
func (t *term) recheckOwned() {
	t.claims.Lock()
	waiting := slices.Collect(maps.Keys(t.waiting))
	t.claims.Unlock()
	for _, o := range waiting {
		o.mu.Lock()
		sub := o.sub
		o.mu.Unlock()
		if sub != nil {
			sub.Reset()
		}
	}
}

// awaitOwners calls recheckOwned periodically until ctx ends.
func (t *term) awaitOwners(ctx context.Context) {
	ticker := time.NewTicker(recheckOwnedEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			t.recheckOwned()
		case <-ctx.Done():
			return
		}
	}
}

// noteProgress writes the cursors of idle tenants that are far ahead, until ctx ends.
func (t *term) noteProgress(ctx context.Context) {
	ticker := time.NewTicker(noteEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		tenants := slices.Collect(maps.Values(t.tenants))
		t.mu.Unlock()
		for _, o := range tenants {
			if err := o.note(ctx); err != nil && ctx.Err() == nil {
				t.service.log.Debug().Err(err).Str("tenant", o.tenant.String()).Msg(
					"writing an idle tenant's cursor failed, retrying",
				)
			}
		}
	}
}

// flushCursors writes changed cursors until ctx ends.
func (t *term) flushCursors(ctx context.Context) {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		t.claims.Lock()
		claimed := slices.Collect(maps.Keys(t.claimed))
		t.claims.Unlock()
		var group errgroup.Group
		group.SetLimit(flushes)
		for _, o := range claimed {
			group.Go(func() error {
				if err := o.flush(ctx, false); err != nil && ctx.Err() == nil && !errors.Is(err, errFenced) {
					t.service.log.Warn().Err(err).Str("tenant", o.tenant.String()).Msg(
						"writing a cursor failed, retrying",
					)
				}
				return nil
			})
		}
		_ = group.Wait() // they report their errors
	}
}

// count returns the number of tenants that are acquired or not released yet.
func (t *term) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.tenants)
}

// lag adds the known number of unread events and of pieces of work of each of the term's tenants.
func (t *term) lag(lags map[contextkit.TenantID]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for tenant, o := range t.tenants {
		if begun, behind, _ := o.waiting(); begun+behind > 0 { // it knows without a request
			lags[tenant] += begun + behind
		}
	}
}
