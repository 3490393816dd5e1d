package projection

import (
	"cmp"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
)

// shownTenants bounds the tenants with their own series: first tenants whose views fail, then tenants with the most
// unapplied events.
const shownTenants = 10

var (
	checkpointMetric = prometheus.NewDesc(
		"headgate_projection_checkpoint",
		"Last applied journal sequence of the tenant's views, for the ten tenants whose views fail or are furthest "+
			"behind.",
		[]string{"tenant", "generation"}, nil,
	)
	targetMetric = prometheus.NewDesc("headgate_projection_target",
		"Journal sequence of the tenant's newest event, for the same tenants.", []string{"tenant", "generation"}, nil)
	waitingMetric = prometheus.NewDesc(
		"headgate_projection_waiting",
		"Estimated events of the tenant that are not applied to its views yet, at least 1 while there are any, for "+
			"the same tenants.",
		[]string{"tenant", "generation"}, nil,
	)
	failingMetric = prometheus.NewDesc(
		"headgate_projection_failing", "1 while the tenant's views cannot apply an event, for the same tenants.",
		[]string{"tenant", "generation"}, nil,
	)

	failingViewsMetric = prometheus.NewDesc("headgate_projection_failing_views",
		"Current views that cannot apply an event; the tenants' other views continue.", nil, nil)
	failingViewMetric = prometheus.NewDesc(
		"headgate_projection_view_failing",
		"1 for a current view that cannot apply an event, for the first ten by tenant and view.",
		[]string{"tenant", "view"}, nil,
	)
	tenantsMetric = prometheus.NewDesc(
		"headgate_projection_tenants",
		"Tenants whose views are on this node, by state: current, behind (events wait), building (not shown yet) or "+
			"failing (an event cannot be applied).",
		[]string{"state"}, nil,
	)
	allWaitingMetric = prometheus.NewDesc("headgate_projection_waiting_events",
		"Events of all tenants that are not applied to the current views yet.", nil, nil)
	filterKeysMetric = prometheus.NewDesc("headgate_projection_filter_keys",
		"Key hashes of rows that watch filters have selected, in memory, for all tenants.", nil, nil)
	filtersMetric = prometheus.NewDesc(
		"headgate_projection_filters_exceeded_total",
		"Watch filters whose keys exceeded the bound of the filter, the tenant or the node, so that removals of rows "+
			"that never matched are sent too.",
		nil, nil,
	)
	pendingMetric = prometheus.NewDesc("headgate_projection_watch_bytes",
		"Bytes of the keys of changed rows that wait for watchers, of all tenants.", nil, nil)
	databaseMetric = prometheus.NewDesc("headgate_views_database_available",
		"1 while the views' database is available; always 1 for views in files.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (s *Service) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		checkpointMetric, targetMetric, waitingMetric, failingMetric, tenantsMetric, allWaitingMetric, databaseMetric,
		damagedMetric, restoredMetric, filterKeysMetric, filtersMetric, failingViewsMetric, failingViewMetric,
		indexingMetric, pendingMetric,
	} {
		descriptions <- d
	}
	s.answers.Describe(descriptions)
	s.tail.Describe(descriptions)
}

// progress is a tenant's progress for metrics.
type progress struct {
	tenant  contextkit.TenantID
	views   tenantViews
	waiting int64 // of the current views
	failing bool  // of any generation
}

// Collect implements [prometheus.Collector]. The number of series does not depend on the number of tenants.
func (s *Service) Collect(metrics chan<- prometheus.Metric) {
	s.answers.Collect(metrics)
	s.tail.Collect(metrics)
	metrics <- prometheus.MustNewConstMetric(damagedMetric, prometheus.CounterValue, float64(s.damaged.Load()))
	metrics <- prometheus.MustNewConstMetric(restoredMetric, prometheus.CounterValue, float64(s.restored.Load()))
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(filterKeysMetric, float64(s.filters.keys.Load()))
	metrics <- prometheus.MustNewConstMetric(filtersMetric, prometheus.CounterValue, float64(s.filters.exceeded.Load()))
	gauge(pendingMetric, float64(s.pending.bytes.Load()))
	gauge(indexingMetric, float64(s.indexing.count.Load()))
	gauge(databaseMetric, number(s.store == nil || s.store() == nil))
	failing, count := s.Failing(shownTenants)
	gauge(failingViewsMetric, float64(count))
	for _, one := range failing {
		gauge(failingViewMetric, 1, one.Tenant.String(), one.View)
	}
	all, waiting, states := s.progress()
	gauge(allWaitingMetric, float64(waiting))
	for state, tenants := range states {
		gauge(tenantsMetric, float64(tenants), state)
	}
	for _, p := range all[:min(shownTenants, len(all))] {
		each := func(f *follower, generation string) {
			gauge(checkpointMetric, float64(f.lastApplied()), p.tenant.String(), generation)
			gauge(targetMetric, float64(f.newestEvent()), p.tenant.String(), generation)
			gauge(waitingMetric, float64(f.unapplied()), p.tenant.String(), generation)
			gauge(failingMetric, number(s.stopped(f)), p.tenant.String(), generation)
		}
		each(p.views.current, "shown")
		if p.views.building != nil {
			each(p.views.building, "next")
		}
	}
}

// progress returns all tenants' progress (failing ones first, then the furthest behind), the total number of
// unapplied events, and the number of tenants by state.
func (s *Service) progress() (all []progress, waiting int64, states map[string]int) {
	states = map[string]int{"current": 0, "behind": 0, "building": 0, "failing": 0}
	for tenant, views := range s.allViews() {
		p := progress{
			tenant:  tenant,
			views:   views,
			waiting: views.current.unapplied(),
			failing: s.stopped(views.current) || views.building != nil && s.stopped(views.building),
		}
		waiting += p.waiting
		_, _, building := views.current.building()
		switch {
		case p.failing:
			states["failing"]++
		case building:
			states["building"]++
		case p.waiting > 0:
			states["behind"]++
		default:
			states["current"]++
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b progress) int {
		return cmp.Or(cmp.Compare(number(b.failing), number(a.failing)), cmp.Compare(b.waiting, a.waiting),
			cmp.Compare(a.tenant.String(), b.tenant.String()))
	})
	return all, waiting, states
}

// stopped reports whether views, or one of them, cannot apply an event for a reason other than that the journal or
// the database is unavailable.
func (s *Service) stopped(f *follower) bool {
	return len(f.failures()) > 0 || f.failing() != nil && !s.away() && (s.store == nil || s.store() == nil)
}

// newestEvent returns the journal sequence of the tenant's newest known event.
func (f *follower) newestEvent() uint64 {
	done, target, _ := f.building()
	newest := max(done, target)
	if subscription := f.subscription.Load(); subscription != nil {
		if last, known := subscription.Newest(); known {
			newest = max(newest, last)
		}
	}
	return newest
}

// unapplied returns the number of the tenant's events that are not in the views yet, at least 1 while the newest is
// not.
func (f *follower) unapplied() int64 {
	if f.newestEvent() <= f.lastApplied() {
		return 0
	}
	return max(f.waiting(), 1)
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
