package limit

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// bounds are the bounds of a budget.
type bounds struct {
	rate           float64 // of calls, per second
	burst          int
	calls, streams int64
	bytes          int64
}

// Budget is what one caller uses of the gateway, and its bounds.
type Budget struct {
	shared *Shared
	bounds atomic.Pointer[bounds]
	// group bounds the total of all budgets of a table; nil: there is no such bound.
	group *Budget

	// pins counts the users of the budget. Its table must not remove it while there are any; a
	// removed budget has a negative number.
	pins                  atomic.Int64
	calls, streams, bytes atomic.Int64
	limiter               *rate.Limiter // rate limit of calls
	promptRejections      *rate.Limiter // rate limit of rejections that are answered immediately
	delayed               atomic.Int64  // rejections that are being delayed
	retries               retryTokens
}

func newBudget(shared *Shared, bounds bounds, group *Budget) *Budget {
	b := &Budget{
		shared:           shared,
		group:            group,
		limiter:          rate.NewLimiter(rate.Limit(bounds.rate), bounds.burst),
		promptRejections: rate.NewLimiter(rate.Limit(bounds.rate*promptShare), promptBurst(bounds)),
	}
	b.bounds.Store(&bounds)
	return b
}

// setBounds sets the bounds, which also apply to calls in flight.
func (b *Budget) setBounds(bounds bounds) {
	if *b.bounds.Load() == bounds {
		return
	}
	b.limiter.SetLimit(rate.Limit(bounds.rate))
	b.limiter.SetBurst(bounds.burst)
	b.promptRejections.SetLimit(rate.Limit(bounds.rate * promptShare))
	b.promptRejections.SetBurst(promptBurst(bounds))
	b.bounds.Store(&bounds)
}

// removedPins is the number of pins of a budget that its table has removed.
const removedPins = math.MinInt64 / 2

// pin keeps the budget in its table until unpin. It reports false if the table has removed the
// budget.
func (b *Budget) pin() bool {
	if b.pins.Add(1) > 0 {
		return true
	}
	b.pins.Add(-1)
	return false
}

func (b *Budget) unpin() { b.pins.Add(-1) }

// remove marks the budget as removed, and reports true, if a new budget would be equal: nothing is
// in flight, and no limit is partly used up.
func (b *Budget) remove() bool {
	if b.pins.Load() != 0 || b.retries.tenths.Load() < 0 {
		return false
	}
	bounds := b.bounds.Load()
	if b.limiter.Tokens() < float64(bounds.burst) || b.promptRejections.Tokens() < float64(promptBurst(*bounds)) {
		return false
	}
	return b.pins.CompareAndSwap(0, removedPins)
}

// Spend counts a call against the rate limit. If calls exceed it, it returns [ErrRate] and the time
// until the next call is admitted.
func (b *Budget) Spend(now time.Time) (wait time.Duration, err error) {
	if !b.limiter.AllowN(now, 1) {
		missing := 1 - b.limiter.TokensAt(now)
		return time.Duration(missing / b.bounds.Load().rate * float64(time.Second)), ErrRate
	}
	b.retries.deposit()
	return 0, nil
}

// Denied counts a denied call against the rate limit: a denial costs as much as an answer.
func (b *Budget) Denied(now time.Time) { b.limiter.AllowN(now, 1) }

// Retry reports whether a call of the caller may be retried, and spends a retry token if so.
func (b *Budget) Retry() bool { return b.retries.spend() }

// InFlight returns the calls and streams in flight, and the bytes that they hold.
func (b *Budget) InFlight() (calls, streams, bytes int64) {
	return b.calls.Load(), b.streams.Load(), b.bytes.Load()
}

// acquireBytes acquires n bytes of the budget and of its group. Errors: [ErrBytes] (the budget),
// [ErrFull] (the group).
func (b *Budget) acquireBytes(n int64) error {
	if b.bytes.Add(n) > b.bounds.Load().bytes {
		b.bytes.Add(-n)
		return ErrBytes
	}
	if b.group != nil && b.group.acquireBytes(n) != nil {
		b.bytes.Add(-n)
		return ErrFull
	}
	return nil
}

func (b *Budget) releaseBytes(n int64) {
	b.bytes.Add(-n)
	if b.group != nil {
		b.group.releaseBytes(n)
	}
}

// acquireSlot counts a call or a stream of the budget and of its group. Errors: [ErrConcurrency]
// and [ErrStreams] (the budget), [ErrFull] (the group).
func (b *Budget) acquireSlot(stream bool) error {
	bounds := b.bounds.Load()
	count, bound, full := &b.calls, bounds.calls, ErrConcurrency
	if stream {
		count, bound, full = &b.streams, bounds.streams, ErrStreams
	}
	if count.Add(1) > bound {
		count.Add(-1)
		return full
	}
	if b.group != nil && b.group.acquireSlot(stream) != nil {
		count.Add(-1)
		return ErrFull
	}
	return nil
}

func (b *Budget) releaseSlot(stream bool) {
	if stream {
		b.streams.Add(-1)
	} else {
		b.calls.Add(-1)
	}
	if b.group != nil {
		b.group.releaseSlot(stream)
	}
}
