package limit

import (
	"context"
	"time"

	"github.com/headgate/headgate/internal/backoff"
)

const (
	// promptShare is the share of a caller's rate, and of its burst, up to which rejections are
	// answered immediately: a client that waits for RetryInfo's delay is not rejected more often.
	promptShare = 0.1
	// minDelay and maxDelay bound the delay of a further rejection.
	minDelay, maxDelay = 50 * time.Millisecond, 150 * time.Millisecond
)

// DelayRejection delays the answer of a rejected call, and reports whether it did: it waits 50 to
// 150 ms while the caller's calls are rejected faster than a tenth of its rate. A rejection costs
// nearly as much as an answer, so a client that retries immediately would take capacity from
// others. At most [Capacity].Delayed rejections of all callers wait, and half as many of one
// caller; further ones do not wait. It returns early when ctx ends.
func (b *Budget) DelayRejection(ctx context.Context) bool {
	if b.promptRejections.Allow() || !b.pin() {
		return false
	}
	defer b.unpin()
	own, all := b.delayed.Add(1), b.shared.delayed.Add(1)
	defer b.delayed.Add(-1)
	defer b.shared.delayed.Add(-1)
	if own > max(b.shared.maxDelayed/2, 1) || all > b.shared.maxDelayed {
		return false
	}
	timer := time.NewTimer(backoff.Around((minDelay+maxDelay)/2, 0.5)) // jitter: not all clients retry together
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// promptBurst is the burst of rejections that are answered immediately.
func promptBurst(bounds bounds) int { return max(int(float64(bounds.burst)*promptShare), 1) }
