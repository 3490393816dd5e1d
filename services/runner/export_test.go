package runner

import (
	"context"
	"time"
)

// SetSettled sets for how long every runner must be able to take triggers by cursors before they do.
func (s *Service) SetSettled(d time.Duration) { s.settled = d }

// Owned returns the number of tenants that the runner has taken up.
func (s *Service) Owned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return 0
	}
	return s.term.count()
}

// ByCursors reports whether the runner takes triggers by cursors.
func (s *Service) ByCursors() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursorsSince != 0
}

// DeleteDurables deletes the consumers of earlier versions now, and returns how many are left.
func (s *Service) DeleteDurables(ctx context.Context) (int, error) {
	return s.deleteDurables(ctx, true)
}

// ExpireRevisions removes the model revisions that no unfinished instance needs at a time.
func (s *Service) ExpireRevisions(ctx context.Context, at time.Time) error {
	return s.rearmAll(ctx, at)
}

// HeldCalls returns how many webhooks were not called because of a breaker or for lack of places.
func (s *Service) HeldCalls() int64 {
	_, held := s.webhooks.Receivers()
	return held
}

// HandedBack returns how often triggers of newer models were handed back.
func (s *Service) HandedBack() uint64 { return s.handedBack.Load() }
