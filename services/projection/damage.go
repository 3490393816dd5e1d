package projection

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
	"github.com/headgate/headgate/services/projection/store"
)

// replacing is a store that may have set aside a damaged predecessor when it was opened.
type replacing interface {
	// Replaced returns the reason, or nil if nothing was set aside.
	Replaced() error
}

// checkedStore reports damage of its store.
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
func (c *checkedStore) Query(
	ctx context.Context, view *model.View, plan query.Plan, each func(values, terms []any) error,
) (store.ViewState, error) {
	state, err := c.Store.Query(ctx, view, plan, each)
	return state, c.check(err)
}

// Aggregates implements [store.Store].
func (c *checkedStore) Aggregates(
	ctx context.Context, lookup store.Lookup, each func(store.Aggregate) error,
) (store.Indexed, error) {
	indexed, err := c.Store.Aggregates(ctx, lookup, each)
	return indexed, c.check(err)
}

// Replaced implements [replacing].
func (c *checkedStore) Replaced() error {
	if r, ok := c.Store.(replacing); ok {
		return r.Replaced()
	}
	return nil
}

// damagedMetric counts damaged stores that were set aside.
var damagedMetric = prometheus.NewDesc("headgate_projection_damaged_total",
	"Damaged stores of tenants' views that were set aside and rebuilt.", nil, nil)

// noteReplaced logs and counts damaged views of a tenant that were set aside.
func (s *Service) noteReplaced(tenant contextkit.TenantID, why error) {
	s.damaged.Add(1)
	s.log.Error().Err(why).Str("tenant", tenant.String()).Msg(
		"damaged views set aside, rebuilding them from the journal",
	)
}

// replaceDamaged ends a tenant's followers whose stores are damaged and opens the tenant's views again. It returns
// false if none is damaged. Run calls it.
func (s *Service) replaceDamaged(ctx context.Context, tenant contextkit.TenantID, views tenantViews) (bool, error) {
	switch {
	case views.building != nil && views.building.damaged.Load():
		s.setViews(tenant, tenantViews{current: views.current})
		err := views.building.end()
		return true, errors.Join(err, s.reconcile(ctx, tenant)) // which opens them again
	case !views.current.damaged.Load():
		return false, nil
	case views.building != nil:
		s.setViews(tenant, tenantViews{current: views.building})
		views.building.hidden.Store(false)
		return true, views.current.end()
	}
	ended := views.current.end() // its calls return UNAVAILABLE until the views are opened
	f, err := s.openViews(ctx, tenant)
	if err != nil {
		return true, errors.Join(ended, err)
	}
	s.setViews(tenant, tenantViews{current: f})
	s.start(f)
	return true, ended
}
