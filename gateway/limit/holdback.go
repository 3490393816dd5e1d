package limit

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// promptRefusals is the share of a caller's rate, and of its burst, at which it is
	// refused immediately: clients that wait as they are asked to are not refused more
	// often.
	promptRefusals = 0.1
	// leastHeld and mostHeld are how long a further refusal is held back.
	leastHeld, mostHeld = 50 * time.Millisecond, 150 * time.Millisecond
)

// HoldBack waits until the caller may learn that its call is refused, and reports whether
// it waited: not at all as a rule, and for a moment while the caller's refusals come faster
// than a tenth of its rate. A refusal costs nearly as much as an answer, and a client that
// calls again immediately would take for it what others need. No more than [Capacity].Held
// refusals wait, of all callers together, and half as many of one; the others do not wait.
// It returns early when ctx ends.
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
	timer := time.NewTimer(leastHeld + rand.N(mostHeld-leastHeld)) // not all come back together
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// promptBurst is how many refusals a caller learns of immediately after none.
func promptBurst(bounds bounds) int { return max(int(float64(bounds.burst)*promptRefusals), 1) }
