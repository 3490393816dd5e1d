package control

import (
	"context"
	"errors"
	"slices"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/kv"
)

// open reports whether the gate of a move's action is open, or what it waits for. It records the target's progress in
// the move.
func (s *Service) open(ctx context.Context, m *move, p placed, a action) (open bool, waiting string, err error) {
	switch a.gate {
	case gateNone:
		return true, "", nil
	case gateTurn:
		return s.turn(ctx, m, p)
	case gateWarm:
		node, there := s.node(m.Target)
		return there && node.Ready &&
			slices.Contains(node.Tenants, m.Tenant), "node " + m.Target + " acquires the tenant", nil
	case gateReached:
		return s.reached(ctx, m)
	case gateRouted:
		behind := s.behind(a.routing)
		return behind == "", "gateway " + behind + " applies the routing change", nil
	case gateReleased:
		for _, node := range s.announced() {
			if node.Kind == m.Kind && !a.keep(node.ID) && slices.Contains(node.Tenants, m.Tenant) {
				return false, "node " + node.ID + " releases the tenant", nil
			}
		}
		return true, "", nil
	}
	return false, "", nil
}

// turn reports whether no other move of the tenant must end first. An earlier move may be unknown yet; that only
// changes the order of moves, since the placement is locked by compare-and-set.
func (s *Service) turn(ctx context.Context, m *move, p placed) (come bool, waiting string, err error) {
	for id, other := range s.knownMoves() {
		if o := other.Value; id != m.ID && !o.ended() && o.placementKey() == m.placementKey() && o.before(m) {
			return false, "the move " + id + " of the tenant ends", nil
		}
	}
	locked, err := s.locked(ctx, p)
	return !locked, "the move " + p.Move + " of the tenant ends", err
}

// locked reports whether an unfinished move has locked the placement. A lock of a move that has ended, or is no
// longer stored, does not count.
func (s *Service) locked(ctx context.Context, p placed) (bool, error) {
	if !p.Exists || p.Move == "" {
		return false, nil
	}
	kept, err := s.moves.Get(ctx, p.Move)
	if errors.Is(err, kv.ErrNotFound) {
		// A NATS server that lost the leadership a moment ago may lack a move that was just started.
		known := s.knownMoves()
		_, followed := known[p.Move]
		return known == nil || followed, nil
	}
	return !kept.Value.ended(), err
}

// knownMoves returns the moves as they are followed; nil: they are not known yet. The map must not be changed.
func (s *Service) knownMoves() map[string]kv.Entry[move] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// behind returns a gateway that does not route by the KV revision yet, "" for none.
func (s *Service) behind(revision uint64) string {
	for _, node := range s.announced() {
		if node.Kind == contextkit.KindGateway && node.Routing < revision {
			return node.ID
		}
	}
	return ""
}

// fenceSequence returns the sequence that the target must apply: the journal's current end, or 0 for kinds without a
// checkpoint.
func (s *Service) fenceSequence(ctx context.Context, m *move) (uint64, error) {
	if m.Kind != contextkit.KindProjection {
		return 0, nil
	}
	return s.journal.Last(ctx, m.tenant())
}

// reached reports whether the target responds for the tenant and has applied the fence sequence.
func (s *Service) reached(ctx context.Context, m *move) (bool, string, error) {
	node, there := s.node(m.Target)
	if !there || !node.Ready {
		return false, "node " + m.Target + " is ready", nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if m.Kind != contextkit.KindProjection {
		_, err := s.probe(ctx, node)
		return err == nil, "node " + m.Target + " answers", err
	}
	ctx = s.nodes.At(contextkit.TenantContext(ctx, m.tenant()), node.Endpoint)
	res, err := s.views.ListViews(ctx, &projectionv1.ListViewsRequest{TenantId: m.Tenant})
	if err != nil {
		return false, "", err
	}
	for _, generation := range res.GetGenerations() {
		if !generation.GetShown() {
			continue
		}
		applied, target, err := s.progress(m.tenant(), generation)
		if err != nil {
			return false, "", err
		}
		m.Checkpoint = applied
		if generation.GetFailing() {
			return false, "node " + m.Target + "'s projection does not advance: its /ready?tenant=" + m.Tenant +
				" has the reason", nil
		}
		// An empty generation may be shown once it has its own target, too.
		return applied >= m.FenceSequence && applied >= target, "node " + m.Target + " applies the tenant's events", nil
	}
	return false, "node " + m.Target + " opens the tenant's views", nil
}

// progress returns the journal sequence that a generation of views has applied, and the sequence that it must reach
// before it is shown.
func (s *Service) progress(tenant contextkit.TenantID, g *projectionv1.Generation) (applied, target uint64, err error) {
	if g.GetAppliedPosition() == "" { // an older node reports sequences only
		return uint64(g.GetApplied()), uint64(g.GetTarget()), nil
	}
	applied, err = s.positions.Parse(tenant, g.GetAppliedPosition())
	if err != nil {
		return 0, 0, err
	}
	target, err = s.positions.Parse(tenant, g.GetTargetPosition())
	return applied, target, err
}
