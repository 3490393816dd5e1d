package runner

import (
	"context"
	"time"
)

// SetSettled sets the time for which every runner must support cursors before they switch.
func (s *Service) SetSettled(d time.Duration) { s.settled = d }

// Owned returns the number of tenants that the runner owns.
func (s *Service) Owned() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return 0
	}
	return s.term.count()
}

// ByCursors reports whether the runner reads triggers by cursors.
func (s *Service) ByCursors() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cursorsSince != 0
}

// DeleteDurables deletes the consumers of earlier versions now, and returns the number of remaining ones.
func (s *Service) DeleteDurables(ctx context.Context) (int, error) {
	return s.deleteDurables(ctx, true)
}

// ExpireRevisions removes the model revisions that no unfinished instance needs at a time.
func (s *Service) ExpireRevisions(ctx context.Context, at time.Time) error {
	return s.rearmAll(ctx, at)
}

// HeldCalls returns the number of webhooks that were not called because of a breaker or a concurrency limit.
func (s *Service) HeldCalls() int64 {
	_, held := s.webhooks.Receivers()
	return held
}

// HandedBack returns the number of triggers of newer models that were handed back.
func (s *Service) HandedBack() uint64 { return s.handedBack.Load() }
