package limit

import (
	"errors"
	"sync/atomic"

	"github.com/headgate/headgate/internal/config"
)

// Capacity is how much all callers together may use.
type Capacity struct {
	// Calls and Streams are the calls and the streams of answers in flight.
	Calls, Streams int
	// Bytes is the bytes of messages in memory.
	Bytes int64
	// Held bounds the refusals that are held back, see [Budget.HoldBack].
	Held int
}

// Shared is the capacity that all callers share. As it fills up, low priorities are refused
// first, so that operators are still admitted.
type Shared struct {
	calls, streams, bytes *Room

	held    atomic.Int64 // refusals that are held back
	maxHeld int64
}

// NewShared returns a capacity of which nothing is used. Calls, streams and bytes must be
// at least 1.
func NewShared(capacity Capacity) (*Shared, error) {
	calls, err := NewRoom(int64(capacity.Calls))
	streams, wrong := NewRoom(int64(capacity.Streams))
	bytes, bad := NewRoom(capacity.Bytes)
	if err := errors.Join(err, wrong, bad, config.AtLeast("refusals held back", capacity.Held, 0)); err != nil {
		return nil, err
	}
	return &Shared{calls: calls, streams: streams, bytes: bytes, maxHeld: int64(capacity.Held)}, nil
}

// Calls returns the room for calls.
func (s *Shared) Calls() *Room { return s.calls }

// Streams returns the room for streams of answers.
func (s *Shared) Streams() *Room { return s.streams }

// places returns the room for calls, or for streams of answers.
func (s *Shared) places(stream bool) *Room {
	if stream {
		return s.streams
	}
	return s.calls
}

// Bytes returns the room for bytes of messages.
func (s *Shared) Bytes() *Room { return s.bytes }

// Held returns how many refusals are held back now.
func (s *Shared) Held() int64 { return s.held.Load() }

// part returns a share of n, at least 1.
func part[N int | int64](n N, share float64) N { return max(N(float64(n)*share), 1) }

// portion returns the bounds of a caller that may use a share of the capacity.
func (s *Shared) portion(share float64) bounds {
	return bounds{
		calls: part(s.calls.bound[High], share), streams: part(s.streams.bound[High], share), bytes: part(s.bytes.bound[High], share),
	}
}
