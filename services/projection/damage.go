package projection

import (
	"context"
	"errors"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/prometheus/client_golang/prometheus"
)

// replacing is a store that may have set aside a damaged predecessor when it was opened.
type replacing interface {
	// Replaced returns why, nil if nothing was set aside.
	Replaced() error
}

// checkedStore reports that its store is damaged.
type checkedStore struct {
	store.Store
	report func(error)
}

func (c *checkedStore) check(err error) error {
	if errors.Is(err, store.ErrDamaged) {
		c.report(err)
	}
	return err
}

// State implements [store.Store].
func (c *checkedStore) State(ctx context.Context) (store.State, error) {
	state, err := c.Store.State(ctx)
	return state, c.check(err)
}

// Apply implements [store.Store].
func (c *checkedStore) Apply(ctx context.Context, change func(*store.Batch, store.State) error) error {
	return c.check(c.Store.Apply(ctx, change))
}

// Query implements [store.Store].
func (c *checkedStore) Query(ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error) (store.ViewState, error) {
	state, err := c.Store.Query(ctx, view, plan, each)
	return state, c.check(err)
}

// Replaced implements [replacing].
func (c *checkedStore) Replaced() error {
	if r, ok := c.Store.(replacing); ok {
		return r.Replaced()
	}
	return nil
}

// damagedMetric counts damaged stores that were set aside.
var damagedMetric = prometheus.NewDesc("headgate_projection_damaged_total", "Stores of tenants' views that were damaged, set aside and rebuilt.", nil, nil)

// noteReplaced logs and counts a tenant's views that were damaged and set aside.
func (s *Service) noteReplaced(tenant contextkit.TenantID, why error) {
	s.damaged.Add(1)
	s.log.Error().Err(why).Str("tenant", tenant.String()).Msg("the tenant's views were damaged: they are set aside, and rebuilt from the journal")
}

// replaceDamaged ends a tenant's followers whose stores are damaged, and opens their views again.
// It returns false if none is damaged. Run calls it.
func (s *Service) replaceDamaged(ctx context.Context, tenant contextkit.TenantID, l lane) (bool, error) {
	switch {
	case l.next != nil && l.next.damaged.Load():
		s.setLane(tenant, lane{shown: l.shown})
		err := l.next.end()
		return true, errors.Join(err, s.reconcile(ctx, tenant)) // which opens them again
	case !l.shown.damaged.Load():
		return false, nil
	case l.next != nil:
		s.setLane(tenant, lane{shown: l.next})
		l.next.next.Store(false)
		return true, l.shown.end()
	}
	ended := l.shown.end() // its calls are UNAVAILABLE until the views are opened
	f, err := s.openViews(ctx, tenant)
	if err != nil {
		return true, errors.Join(ended, err)
	}
	s.setLane(tenant, lane{shown: f})
	s.start(f)
	return true, ended
}
