package limit

import (
	"context"
	"time"

	"github.com/headgate/headgate/internal/backoff"
)

const (
	// promptRefusals is the share of a caller's rate, and of its burst, up to which refusals
	// are reported immediately: a client that waits as RetryInfo asks is not refused more
	// often.
	promptRefusals = 0.1
	// leastHeld and mostHeld are how long a further refusal is held back.
	leastHeld, mostHeld = 50 * time.Millisecond, 150 * time.Millisecond
)

// HoldBack delays the report of a refusal, and reports whether it has: it waits 50 to 150 ms
// while the caller's refusals come faster than a tenth of its rate, and not at all otherwise.
// A refusal costs nearly as much as an answer, so a client that calls again immediately would
// take capacity from others. At most [Capacity].Held refusals of all callers wait, and half as
// many of one caller; further ones do not wait. It returns early when ctx ends.
func (b *Budget) HoldBack(ctx context.Context) bool {
	if b.refusals.Allow() || !b.pin() {
		return false
	}
	defer b.unpin()
	own, all := b.held.Add(1), b.shared.held.Add(1)
	defer b.held.Add(-1)
	defer b.shared.held.Add(-1)
	if own > max(b.shared.maxHeld/2, 1) || all > b.shared.maxHeld {
		return false
	}
	timer := time.NewTimer(backoff.Around((leastHeld+mostHeld)/2, 0.5)) // not all come back together
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// promptBurst is the burst of refusals that are reported immediately.
func promptBurst(bounds bounds) int { return max(int(float64(bounds.burst)*promptRefusals), 1) }
