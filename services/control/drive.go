package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/kv"
)

const (
	// lease is the time for which a control node drives a move without renewing its lease; it renews it a few times
	// within.
	lease = 2 * time.Second
	// lookEvery is the interval at which a gate without an event to wait for is checked.
	lookEvery = 100 * time.Millisecond
	// askTimeout bounds a request to the target.
	askTimeout = 2 * time.Second
	// abandonAfter is the time for which the target may be unreachable before the move is aborted.
	abandonAfter = 30 * time.Second
)

// driveAll drives the moves that no other control node drives, until ctx ends.
func (s *Service) driveAll(ctx context.Context) {
	changed := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.moves.Follow(ctx, func(all map[string]kv.Entry[move]) {
			s.mu.Lock()
			s.known = all
			s.mu.Unlock()
			select {
			case changed <- struct{}{}:
			default: // a check is pending anyway
			}
		}, func(err error) { s.log.Error().Err(err).Msg("following moves failed, retrying") })
	}()
	// The expiry of a lease causes no event.
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
			if m.ended() || m.drivenByOther(s.id, time.Now()) || !s.claim(id) {
				continue
			}
			driving.Go(func() {
				defer s.disclaim(id)
				if err := s.drive(ctx, id); err != nil && ctx.Err() == nil {
					s.log.Warn().Err(err).Str("move", id).Msg(
						"driving a move failed, leaving it to the next control node",
					)
				}
			})
		}
	}
}

// claim marks the move as driven by this process, and reports whether it was not before; disclaim undoes that.
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

// drive advances the move step by step until it has ended, ctx ends, or another node has claimed it.
func (s *Service) drive(ctx context.Context, id string) error {
	var away time.Time // time since which the target is unreachable
	for {
		kept, err := s.moves.Get(ctx, id)
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if m := kept.Value; m.ended() || m.drivenByOther(s.id, time.Now()) {
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

// abandoned returns why the move must be aborted, "" if it must not. away is the time since which its target is
// unreachable.
func (s *Service) abandoned(m *move, away *time.Time) string {
	_, there := s.node(m.Target)
	switch {
	case there || m.Step == stepAborting || m.Step == stepRetiring:
		*away = time.Time{} // the target is not needed, or has everything that it needs
	case away.IsZero():
		*away = time.Now()
	case time.Since(*away) > abandonAfter:
		return fmt.Sprintf("node %s is unreachable", m.Target)
	}
	return ""
}

// advance executes the next action of the move if its gate is open, and reports whether it did. It aborts the move if
// there is a reason. Errors concern the move's record; other failures are stored as what the move waits for.
func (s *Service) advance(ctx context.Context, kept kv.Entry[move], reason string) (acted bool, err error) {
	m := kept.Value
	acted, waiting, err := s.act(ctx, kept, &m, reason)
	switch {
	case acted || ctx.Err() != nil:
		return acted, ctx.Err()
	case errors.Is(err, kv.ErrChanged):
		return false, nil // another node, or an abort
	case err != nil:
		waiting = "retrying: " + err.Error()
	}
	before := kept.Value
	if left := time.Until(before.Lease); waiting == before.Waiting && m.Checkpoint == before.Checkpoint &&
		left > lease*2/3 && left <= lease {
		return false, nil
	}
	m.Waiting = waiting
	s.own(&m)
	if _, err := s.moves.Put(ctx, m.ID, m, kept.Revision); err != nil && !errors.Is(err, kv.ErrChanged) {
		return false, err
	}
	return false, nil
}

// own records that this node drives the move.
func (s *Service) own(m *move) { m.own(s.id, time.Now()) }

func (m *move) own(node string, now time.Time) { m.Owner, m.Lease = node, now.Add(lease) }

// drivenByOther reports whether another control node drives the move. Clocks of nodes differ, and are set: a lease that
// ends later than any lease of a clock that is nearly right does not count, so that a control node whose clock was
// ahead when it died delays its moves by two leases at most.
func (m *move) drivenByOther(node string, now time.Time) bool {
	left := m.Lease.Sub(now)
	return m.Owner != node && left > 0 && left <= 2*lease
}

// act executes the next write of the move if its gate is open, and reports whether it did, or what the move waits
// for. It records the target's progress in m.
func (s *Service) act(
	ctx context.Context, kept kv.Entry[move], m *move, reason string,
) (acted bool, waiting string, err error) {
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
		return false, fmt.Sprintf("the placement is read again, or step %q is unknown to this version", m.Step), nil
	}
	return err == nil, "", err
}

// record stores the move after an action, at the KV revision that was read.
func (s *Service) record(ctx context.Context, revision uint64, m *move, a action) (err error) {
	next := a.move
	next.Checkpoint = m.Checkpoint
	if a.fence {
		if next.FenceSequence, err = s.fenceSequence(ctx, m); err != nil {
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
	if errors.Is(err, kv.ErrNotFound) {
		return placed{Revision: kept.Revision}, nil
	}
	return placed{Placement: kept.Value, Revision: kept.Revision, Exists: err == nil}, err
}
