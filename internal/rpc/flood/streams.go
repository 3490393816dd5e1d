package flood

import (
	"sync/atomic"
)

// Streams bounds the open streams of one client over all its connections. A stream is open from
// its HEADERS until its answer has been sent completely. A client that opens no window for its
// answers holds streams, and their memory, after their calls have ended, where no bound of
// calls counts them. Its methods may be called concurrently.
type Streams struct {
	most        int64
	conns, open atomic.Int64
}

// NewStreams returns the bound of a client that may hold most open streams.
func NewStreams(most int) *Streams { return &Streams{most: int64(most)} }

// Open returns how many streams the client holds.
func (s *Streams) Open() int64 { return s.open.Load() }

// exceeds reports whether the client holds too many streams, of which this connection holds at
// least its part: the client's other connections, which may be those of other users at one
// address, stay.
func (s *Streams) exceeds(own int) bool {
	open := s.open.Load()
	return open > s.most && int64(own)*max(s.conns.Load(), 1) >= open
}

// held are the streams of a connection. c.mu is held.
type held struct {
	bound  *Streams // nil: they are not counted
	open   map[uint32]struct{}
	newest uint32
	ended  bool // the connection is closed
}

// Bound counts the connection's streams against the client's bound, from before the first
// Read. A connection that begins a stream beyond it is closed.
func (c *Conn) Bound(streams *Streams) *Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.bound, c.held.open = streams, map[uint32]struct{}{}
	streams.conns.Add(1)
	return c
}

// begin counts a stream, and reports whether it is one too many. HEADERS of a stream that has
// begun before are trailers.
func (h *held) begin(stream uint32) (exceeds bool) {
	if h.bound == nil || stream <= h.newest || h.ended {
		return false
	}
	h.newest = stream
	h.open[stream] = struct{}{}
	h.bound.open.Add(1)
	return h.bound.exceeds(len(h.open))
}

// end ends a stream: its answer has been sent, or it was reset.
func (h *held) end(stream uint32) {
	if _, ok := h.open[stream]; ok && !h.ended {
		delete(h.open, stream)
		h.bound.open.Add(-1)
	}
}

// close returns all that a connection holds.
func (h *held) close() {
	if h.bound == nil || h.ended {
		return
	}
	h.ended = true
	h.bound.open.Add(-int64(len(h.open)))
	h.bound.conns.Add(-1)
	h.open = nil
}
