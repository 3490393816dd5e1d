package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/headgate/headgate/backbone"
)

const (
	// lease is how long a silent control node is taken to drive a move; it is renewed a few times
	// within.
	lease = 2 * time.Second
	// lookEvery is how often a gate that has no event to wait for is tried.
	lookEvery = 100 * time.Millisecond
	// askTimeout bounds a question to the target.
	askTimeout = 2 * time.Second
	// abandonAfter is how long the target may be away before the move is aborted.
	abandonAfter = 30 * time.Second
)

// driveAll drives the moves that no other control node does, until ctx ends.
func (s *Service) driveAll(ctx context.Context) {
	changed := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.moves.Follow(ctx, func(all map[string]backbone.Kept[move]) {
			s.mu.Lock()
			s.known = all
			s.mu.Unlock()
			select {
			case changed <- struct{}{}:
			default: // it will look anyway
			}
		}, func(err error) { s.log.Error().Err(err).Msg("moves are not followed; it is tried again") })
	}()
	// A lease ends without an event.
	ticker := time.NewTicker(lease / 3)
	defer ticker.Stop()
	var driving sync.WaitGroup
	defer driving.Wait()
	for {
		select {
		case <-changed:
		case <-ticker.C:
		case <-ended:
			return
		}
		for id, kept := range s.knownMoves() {
			m := kept.Value
			if m.ended() || m.Owner != s.id && time.Now().Before(m.Lease) || !s.claim(id) {
				continue
			}
			driving.Go(func() {
				defer s.disclaim(id)
				if err := s.drive(ctx, id); err != nil && ctx.Err() == nil {
					s.log.Warn().Err(err).Str("move", id).Msg("the move is left to the next control node that takes it up")
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

// drive takes the move from step to step until it has ended, ctx ends, or another node has taken it.
func (s *Service) drive(ctx context.Context, id string) error {
	var away time.Time // since when the target is not there
	for {
		kept, err := s.moves.Get(ctx, id)
		if errors.Is(err, backbone.ErrNotKept) {
			return nil
		}
		if err != nil {
			return err
		}
		if m := kept.Value; m.ended() || m.Owner != s.id && time.Now().Before(m.Lease) {
			return nil
		}
		reason := s.abandoned(&kept.Value, &away)
		acted, err := s.advance(ctx, kept, reason)
		if acted {
			continue
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// abandoned returns why the move is to be aborted, "" if it is not. away is since when its target
// has been away.
func (s *Service) abandoned(m *move, away *time.Time) string {
	_, there := s.node(m.Target)
	switch {
	case there || m.Step == stepAborting || m.Step == stepRetiring:
		*away = time.Time{} // the target is not needed, or has all that it needs
	case away.IsZero():
		*away = time.Now()
	case time.Since(*away) > abandonAfter:
		return fmt.Sprintf("node %s is away", m.Target)
	}
	return ""
}

// advance does what comes next in the move, once its gate is open, and reports whether it has. It
// aborts the move if there is a reason. Errors: those of the move's record; others are what the
// move waits for.
func (s *Service) advance(ctx context.Context, kept backbone.Kept[move], reason string) (acted bool, err error) {
	m := kept.Value
	acted, waiting, err := s.act(ctx, kept, &m, reason)
	switch {
	case acted || ctx.Err() != nil:
		return acted, ctx.Err()
	case errors.Is(err, backbone.ErrChanged):
		return false, nil // another node, or an abort
	case err != nil:
		waiting = "it is tried again: " + err.Error()
	}
	before := kept.Value
	if waiting == before.Waiting && m.Applied == before.Applied && time.Until(before.Lease) > lease*2/3 {
		return false, nil
	}
	m.Waiting = waiting
	s.own(&m)
	if _, err := s.moves.Put(ctx, m.ID, m, kept.Revision); err != nil && !errors.Is(err, backbone.ErrChanged) {
		return false, err
	}
	return false, nil
}

// own notes that this node drives the move.
func (s *Service) own(m *move) { m.Owner, m.Lease = s.id, time.Now().Add(lease) }

// act makes the write that comes next in the move, once its gate is open, and reports whether it
// has, and else what it waits for. It notes the target's progress in m.
func (s *Service) act(ctx context.Context, kept backbone.Kept[move], m *move, reason string) (acted bool, waiting string, err error) {
	p, err := s.placed(ctx, m.placementKey())
	if err != nil {
		return false, "", err
	}
	a := m.next(p)
	if reason != "" {
		a = m.abort(reason)
	}
	if open, waiting, err := s.open(ctx, m, p, a); !open || err != nil {
		return false, waiting, err
	}
	switch a.write {
	case writePlacement:
		_, err = s.placements.PutAt(ctx, m.placementKey(), a.placement, p.Revision)
	case removePlacement:
		err = s.placements.Delete(ctx, m.placementKey(), p.Revision)
	case writeMove:
		err = s.record(ctx, kept.Revision, m, a)
	case writeNothing:
		return false, fmt.Sprintf("the placement is read anew, or step %q is known", m.Step), nil
	}
	return err == nil, "", err
}

// record writes the move as an action has it, at the revision that was read.
func (s *Service) record(ctx context.Context, revision uint64, m *move, a action) (err error) {
	next := a.move
	next.Applied = m.Applied
	if a.goal {
		if next.Goal, err = s.goal(ctx, m); err != nil {
			return err
		}
	}
	if a.enter != "" {
		next.enter(a.enter, s.id)
	}
	s.own(&next)
	if _, err := s.moves.Put(ctx, next.ID, next, revision); err != nil {
		return err
	}
	if a.enter != "" {
		s.log.Info().Str("move", next.ID).Str("tenant", next.Tenant).Str("step", string(next.Step)).Msg("move")
	}
	return nil
}

// placed reads a placement.
func (s *Service) placed(ctx context.Context, key string) (placed, error) {
	kept, err := s.placements.Get(ctx, key)
	if errors.Is(err, backbone.ErrNotKept) {
		return placed{Revision: kept.Revision}, nil
	}
	return placed{Placement: kept.Value, Revision: kept.Revision, Exists: err == nil}, err
}
