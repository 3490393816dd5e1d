package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

const (
	// lease is how long a silent control node is believed to drive a move; it is
	// renewed a few times within.
	lease = 2 * time.Second
	// lookEvery is how often a gate that has no event to wait for is looked at.
	lookEvery = 100 * time.Millisecond
	// askTimeout bounds a question to the target.
	askTimeout = 2 * time.Second
	// abandonAfter is how long the target may be away before the move is aborted.
	abandonAfter = 30 * time.Second
)

// errTaken says that the tenant's placement is not what the move began with.
var errTaken = errors.New("the tenant's placement was changed meanwhile")

// driveAll drives the moves that nobody else does, until ctx ends.
func (s *Service) driveAll(ctx context.Context) {
	moves := make(chan map[string]backbone.Kept[move])
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.moves.Follow(ctx, func(all map[string]backbone.Kept[move]) {
			select {
			case moves <- all:
			case <-ctx.Done():
			}
		}, func(err error) { s.log.Error().Err(err).Msg("moves are not followed; it is tried again") })
	}()
	// A lease ends without anybody saying so.
	ticker := time.NewTicker(lease / 3)
	defer ticker.Stop()
	var driving sync.WaitGroup
	defer driving.Wait()
	var known map[string]backbone.Kept[move]
	for {
		select {
		case known = <-moves:
		case <-ticker.C:
		case <-ended:
			return
		}
		for id, kept := range known {
			m := kept.Value
			if m.ended() || m.Owner != s.id && time.Now().Before(m.Lease) || !s.claim(id) {
				continue
			}
			driving.Go(func() {
				defer s.disclaim(id)
				if err := s.drive(ctx, id); err != nil && ctx.Err() == nil {
					s.log.Warn().Err(err).Str("move", id).Msg("the move is left to whoever takes it up")
				}
			})
		}
	}
}

// claim reports whether this process does not drive the move yet, and from now on
// does; disclaim ends that.
func (s *Service) claim(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.driven[id] {
		return false
	}
	s.driven[id] = true
	return true
}

func (s *Service) disclaim(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.driven, id)
}

// drive takes the move from stage to stage until it has ended, ctx ends, or
// another node has taken it. Each stage can be done again: what a node that died
// had done is found done.
func (s *Service) drive(ctx context.Context, id string) error {
	var away time.Time // since when the target is not there
	for {
		kept, err := s.moves.Get(ctx, id)
		if err != nil {
			return err
		}
		m, revision := kept.Value, kept.Revision
		if m.ended() || m.Owner != s.id && time.Now().Before(m.Lease) {
			return nil
		}
		before := m
		next, waiting, err := s.advance(ctx, &m)
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			next, waiting = m.Stage, "it is tried again: "+err.Error()
		}
		if m.Stage != stageAborting && m.Stage != stageRetiring {
			// After that, the target has all it needs or is not needed.
			if _, there := s.node(m.Target); there {
				away = time.Time{}
			} else if away.IsZero() {
				away = time.Now()
			} else if time.Since(away) > abandonAfter {
				next, m.Reason = stageAborting, fmt.Sprintf("node %s is away", m.Target)
			}
		}
		if next != m.Stage {
			m.enter(next, s.id)
		} else {
			m.Waiting = waiting
		}
		m.Owner, m.Lease = s.id, time.Now().Add(lease)
		if next != before.Stage || m.Waiting != before.Waiting || m.Applied != before.Applied || m.Goal != before.Goal || m.Routing != before.Routing || time.Until(before.Lease) < lease*2/3 {
			if _, err := s.moves.Put(ctx, id, m, revision); errors.Is(err, backbone.ErrChanged) {
				continue // an abort, or another node
			} else if err != nil {
				return err
			}
		}
		if next != before.Stage {
			s.log.Info().Str("move", id).Str("tenant", m.Tenant).Str("stage", string(next)).Msg("move")
			continue
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// advance does what the stage asks for, as far as it can, and returns the stage
// that follows, or the same with what it waits for.
func (s *Service) advance(ctx context.Context, m *move) (next stage, waiting string, err error) {
	switch m.Stage {
	case stagePlanned:
		// The target takes the tenant up, and calls go where they went.
		_, err := s.place(ctx, m, backbone.Placement{Node: m.Source, Also: m.others(m.Source), Rebalance: m.ID})
		if errors.Is(err, errTaken) {
			m.Reason = err.Error()
			return stageAborted, "", nil
		}
		return stageWarming, "", err
	case stageWarming:
		node, there := s.node(m.Target)
		if !there || !node.Ready || !slices.Contains(node.Tenants, m.Tenant) {
			return m.Stage, "node " + m.Target + " takes the tenant up", nil
		}
		m.Goal, err = s.goal(ctx, m)
		return stageCatching, "", err
	case stageCatching:
		if reached, waiting, err := s.reached(ctx, m); err != nil || !reached {
			return m.Stage, waiting, err
		}
		// Little is missing now: what the journal holds at this moment must be there
		// before calls go to the target, so that nobody goes back behind it.
		m.Goal, err = s.goal(ctx, m)
		return stageFenced, "", err
	case stageFenced:
		if reached, waiting, err := s.reached(ctx, m); err != nil || !reached {
			return m.Stage, waiting, err
		}
		m.Flipped = true // as good as: whoever goes on from here must ask the gateways
		m.Routing, err = s.place(ctx, m, backbone.Placement{Node: m.Target, Also: m.others(m.Target), Rebalance: m.ID})
		return stageFlipped, "", err
	case stageFlipped:
		if behind := s.behind(m.Routing); behind != "" {
			return m.Stage, "gateway " + behind + " hears of it", nil
		}
		return stageVerifying, "", nil
	case stageVerifying:
		if reached, waiting, err := s.reached(ctx, m); err != nil || !reached {
			return m.Stage, waiting, err
		}
		return stageRetiring, "", nil
	case stageRetiring:
		if _, err := s.place(ctx, m, backbone.Placement{Node: m.Target}); err != nil && !errors.Is(err, errTaken) {
			return m.Stage, "", err // taken: it was given free here, and is another's by now
		}
		for _, node := range s.announced() {
			if node.Kind == m.Kind && node.ID != m.Target && slices.Contains(node.Tenants, m.Tenant) {
				return m.Stage, "node " + node.ID + " gives the tenant up", nil
			}
		}
		return stageDone, "", nil
	case stageAborting:
		return s.undo(ctx, m)
	}
	return m.Stage, "", fmt.Errorf("stage %q is not known to this version", m.Stage)
}

// undo puts everything back.
func (s *Service) undo(ctx context.Context, m *move) (next stage, waiting string, err error) {
	kept, err := s.placements.Get(ctx, backbone.PlacementKey(m.Kind, m.tenant()))
	if err != nil && !errors.Is(err, backbone.ErrNotKept) {
		return m.Stage, "", err
	}
	// Calls may go to the target without the move saying so: it was aborted at that moment.
	if m.Flipped = m.Flipped || kept.Value.Rebalance == m.ID && kept.Value.Node == m.Target; m.Flipped {
		if m.Routing, err = s.place(ctx, m, backbone.Placement{Node: m.Source, Also: m.others(m.Source), Rebalance: m.ID}); err != nil {
			return m.Stage, "", err
		}
		if behind := s.behind(m.Routing); behind != "" {
			return m.Stage, "gateway " + behind + " hears of it", nil
		}
	}
	if m.Source == "" {
		err = s.unplace(ctx, m)
	} else if _, err = s.place(ctx, m, backbone.Placement{Node: m.Source}); errors.Is(err, errTaken) {
		err = nil // it was given free here, and is another's by now
	}
	return stageAborted, "", err
}

// place puts the move's placement, unless it stands there already, and returns its
// revision. Nobody else changes it while the move has it.
func (s *Service) place(ctx context.Context, m *move, want backbone.Placement) (uint64, error) {
	key := backbone.PlacementKey(m.Kind, m.tenant())
	kept, err := s.placements.Get(ctx, key)
	if err != nil && !errors.Is(err, backbone.ErrNotKept) {
		return 0, err
	}
	if err == nil && kept.Value.Node == want.Node && slices.Equal(kept.Value.Also, want.Also) && kept.Value.Rebalance == want.Rebalance {
		return kept.Revision, nil
	}
	switch by := kept.Value.Rebalance; {
	case by == m.ID:
	case by != "":
		return 0, fmt.Errorf("%w: by the move %s", errTaken, by)
	case m.Stage == stagePlanned && kept.Value.Node != m.Source:
		return 0, fmt.Errorf("%w: it is on %q now", errTaken, kept.Value.Node)
	}
	return s.placements.Put(ctx, key, want, kept.Revision)
}

// unplace removes the move's placement.
func (s *Service) unplace(ctx context.Context, m *move) error {
	key := backbone.PlacementKey(m.Kind, m.tenant())
	kept, err := s.placements.Get(ctx, key)
	if errors.Is(err, backbone.ErrNotKept) {
		return nil
	}
	if err != nil {
		return err
	}
	if by := kept.Value.Rebalance; by != m.ID {
		return nil // it is another's by now
	}
	return s.placements.Delete(ctx, key, kept.Revision)
}

// behind returns a gateway that does not route by the revision yet, "" for none.
func (s *Service) behind(revision uint64) string {
	for _, node := range s.announced() {
		if node.Kind == "gateway" && node.Routing < revision {
			return node.ID
		}
	}
	return ""
}

// goal is what the target must have applied: what the journal holds now. Kinds
// that keep nothing have none.
func (s *Service) goal(ctx context.Context, m *move) (uint64, error) {
	if m.Kind != kindProjection {
		return 0, nil
	}
	return s.journal.Last(ctx, m.tenant())
}

// reached reports whether the target shows that it serves the tenant, and has
// applied the goal.
func (s *Service) reached(ctx context.Context, m *move) (bool, string, error) {
	node, there := s.node(m.Target)
	if !there || !node.Ready {
		return false, "node " + m.Target + " is ready", nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if m.Kind != kindProjection {
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
		m.Applied = applied
		if generation.GetFailing() {
			return false, "node " + m.Target + "'s projection does not advance: its log says why", nil
		}
		// An empty generation may be shown once it has its own target, too.
		return applied >= m.Goal && applied >= target, "node " + m.Target + " applies the tenant's events", nil
	}
	return false, "node " + m.Target + " opens the tenant's views", nil
}

// progress returns the journal sequence that a generation of views has applied, and the
// sequence that it must reach before it is shown.
func (s *Service) progress(tenant contextkit.TenantID, g *projectionv1.Generation) (applied, target uint64, err error) {
	if g.GetAppliedPosition() == "" { // an older node reports sequences only
		return uint64(g.GetApplied()), uint64(g.GetTarget()), nil //nolint:gosec // sequences
	}
	applied, err = s.positions.Parse(tenant, g.GetAppliedPosition())
	if err != nil {
		return 0, 0, err
	}
	target, err = s.positions.Parse(tenant, g.GetTargetPosition())
	return applied, target, err
}
