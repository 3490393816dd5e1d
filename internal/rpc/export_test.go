package rpc

import "time"

// BoundWatches sets the bounds of Health/Watch. Call it before Listen, or while no watch is
// open.
func (s *Server) BoundWatches(total, perAddress int, life time.Duration) {
	s.watches.mu.Lock()
	defer s.watches.mu.Unlock()
	s.watches.total, s.watches.perAddress, s.watches.life = total, perAddress, life
}
