package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/services/runner"
)

// announce returns the part that announces the service until its context ends.
func (s *service) announce(node fleet.Node) func(context.Context) error {
	if s.member.kind == contextkit.KindRunner {
		node.Runner = runner.Abilities
	}
	return func(ctx context.Context) error {
		a := &announcing{service: s, details: newDetailing(s.server)}
		return ended(ctx, fleet.Announce(ctx, s.member.js, node, a.update))
	}
}

// announcing is the state of an announcement that is repeated.
type announcing struct {
	*service

	tenants  []contextkit.TenantID // the announcement has their names
	measured time.Time
	details  *detailing
}

// update updates the announcement, and returns why the node is not ready. It is called more often than a node announces
// itself.
func (a *announcing) update(ctx context.Context, now *fleet.Node) error {
	m := a.member
	if all := m.tenants.All(); len(all) != len(a.tenants) || len(all) > 0 && &all[0] != &a.tenants[0] {
		a.tenants, now.Tenants = all, make([]string, 0, len(all))
		for _, tenant := range all {
			now.Tenants = append(now.Tenants, tenant.String())
		}
	}
	if time.Since(a.measured) >= fleet.Heartbeat/2 {
		a.measure(now)
	}
	if m.drained != nil {
		now.Drains = fleet.Drains
	}
	m.rollout.announce(now)
	now.Degraded = slices.Sorted(maps.Keys(a.integrity.Degraded()))
	now.Refusal = ""
	if storage := (*natshealth.StorageError)(nil); errors.As(m.js.storage.Check(storedIn[m.kind]...), &storage) {
		now.Refusal = storage.What()
	}
	if now.Drained = a.drained != nil && a.drained(); now.Drained && now.Refusal == "" {
		now.Refusal = "operators have drained the node"
	}
	return a.server.Ready(ctx)
}

// measure updates load, lag and failing views.
func (a *announcing) measure(now *fleet.Node) {
	a.measured, now.Load = time.Now(), loadOf(a.server.Metrics.Load())
	now.Calls = a.calls.Announce(a.measured)
	now.Details = a.details.update(a.measured)
	if a.lag != nil {
		lag, behind, count := a.lag()
		now.Lag, now.Behind, now.BehindCount = &lag, behind, &count
	}
	if a.failingViews != nil {
		now.FailingViews, now.FailingViewCount = a.failingViews()
	}
}
