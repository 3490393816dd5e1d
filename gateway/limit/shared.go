package limit

import (
	"errors"
	"sync/atomic"

	"github.com/headgate/headgate/internal/config"
)

// Capacity bounds what all callers together may use.
type Capacity struct {
	// Calls bounds the unary calls and client streams in flight, and Streams the server streams.
	Calls, Streams int
	// Bytes bounds the bytes of messages in memory.
	Bytes int64
	// Delayed bounds the rejections whose answer is delayed, see [Budget.DelayRejection].
	Delayed int
}

// Shared is the capacity that all callers share. When it is nearly used up, calls of low priority
// are rejected first, so that operators' calls are still admitted.
type Shared struct {
	calls, streams, bytes *Limiter

	delayed    atomic.Int64 // rejections that are being delayed
	maxDelayed int64
}

// NewShared returns an unused capacity. Calls, streams and bytes must be at least 1.
func NewShared(capacity Capacity) (*Shared, error) {
	calls, err := NewLimiter(int64(capacity.Calls))
	streams, wrong := NewLimiter(int64(capacity.Streams))
	bytes, bad := NewLimiter(capacity.Bytes)
	if err := errors.Join(err, wrong, bad, config.AtLeast("delayed rejections", capacity.Delayed, 0)); err != nil {
		return nil, err
	}
	return &Shared{
		calls:      calls,
		streams:    streams,
		bytes:      bytes,
		maxDelayed: int64(capacity.Delayed),
	}, nil
}

// Calls returns the limiter of calls.
func (s *Shared) Calls() *Limiter { return s.calls }

// Streams returns the limiter of server streams.
func (s *Shared) Streams() *Limiter { return s.streams }

// limiter returns the limiter of calls, or of server streams.
func (s *Shared) limiter(stream bool) *Limiter {
	if stream {
		return s.streams
	}
	return s.calls
}

// Bytes returns the limiter of message bytes.
func (s *Shared) Bytes() *Limiter { return s.bytes }

// Delayed returns the number of rejections that are being delayed.
func (s *Shared) Delayed() int64 { return s.delayed.Load() }

// shareOf returns a share of n, at least 1.
func shareOf[N int | int64](n N, share float64) N { return max(N(float64(n)*share), 1) }

// share returns the bounds of a caller that may use a share of the capacity.
func (s *Shared) share(share float64) bounds {
	return bounds{
		calls: shareOf(s.calls.bound[High], share), streams: shareOf(s.streams.bound[High], share),
		bytes: shareOf(s.bytes.bound[High], share),
	}
}
