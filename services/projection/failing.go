package projection

import (
	"cmp"
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// FailingView is a current view that cannot apply an event.
type FailingView struct {
	Failure

	// Tenant is the tenant, and Fingerprint identifies the view's definition.
	Tenant      contextkit.TenantID
	Fingerprint uint64

	rank int // among the tenant's failing views
}

// Failing returns up to limit of the current views that fail, and their total count. The first view of every tenant
// comes before any second one, so that a tenant with many failures does not hide those of others.
func (s *Service) Failing(limit int) (failing []FailingView, count int) {
	for tenant, views := range s.allViews() {
		for rank, failure := range views.current.failures() {
			one := FailingView{Failure: *failure, Tenant: tenant, rank: rank}
			if p := views.current.part(failure.View); p != nil {
				one.Fingerprint = p.view.Fingerprint()
			}
			failing = append(failing, one)
		}
	}
	slices.SortFunc(failing, func(a, b FailingView) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.Tenant.String(), b.Tenant.String()),
			strings.Compare(a.View, b.View))
	})
	return failing[:min(limit, len(failing))], len(failing)
}

// Announced returns the failing views for the node's announcement.
func (s *Service) Announced() ([]fleet.FailingView, int) {
	failing, count := s.Failing(fleet.MaxFailingViews)
	var out []fleet.FailingView
	for _, f := range failing {
		out = append(out, fleet.FailingView{
			Tenant:     f.Tenant.String(),
			View:       f.View,
			EventID:    f.EventID,
			Sequence:   f.Sequence,
			EventType:  f.AggregateType + "." + f.EventType,
			Aggregate:  f.aggregate(),
			Rule:       f.Rule,
			Expression: f.Expression,
			Reason:     f.Reason,
			Since:      f.Since,
		})
	}
	return out, count
}

// incomplete reports whether a view in state was made without skipped events.
func (f *follower) incomplete(view *model.View, state store.ViewState) bool {
	return f.skipped(view, state) > 0
}

// describe fills in the state of a view in its message.
func (f *follower) describe(view *model.View, out *projectionv1.View) {
	state, err := f.viewState(view.Name)
	out.State, out.Skipped = projectionv1.ViewState_VIEW_STATE_CURRENT, int32(
		f.skipped(view, state),
	)
	_, _, building := f.building()
	failed, isFailed := err.(*failedError) //nolint:errorlint // it is not wrapped
	switch {
	case isFailed:
		out.State = projectionv1.ViewState_VIEW_STATE_FAILED
		out.Failure = &projectionv1.ViewFailure{
			EventId:    failed.failure.EventID,
			EventType:  failed.failure.AggregateType + "." + failed.failure.EventType,
			Aggregate:  failed.failure.aggregate(),
			Version:    failed.failure.Version,
			Rule:       failed.failure.Rule,
			Expression: failed.failure.Expression,
			Reason:     failed.failure.Reason,
			Since:      failed.failure.since(),
		}
	case err != nil || building:
		out.State = projectionv1.ViewState_VIEW_STATE_BUILDING
	}
}
