package limit

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// bounds are those of a budget.
type bounds struct {
	rate           float64 // of calls, per second
	burst          int
	calls, streams int64
	bytes          int64
}

// Budget is one caller's use of the gateway, and its bounds.
type Budget struct {
	shared *Shared
	bounds atomic.Pointer[bounds]
	// group bounds what all budgets of a table use together; nil: nothing does.
	group *Budget

	// pins counts the users of the budget, which its table must not forget while there are
	// any; a forgotten budget has a negative number.
	pins                  atomic.Int64
	calls, streams, bytes atomic.Int64
	limiter               *rate.Limiter // of calls
	refusals              *rate.Limiter // of refusals that are reported immediately
	held                  atomic.Int64  // refusals that are held back
	retries               savings
}

func newBudget(shared *Shared, bounds bounds, group *Budget) *Budget {
	b := &Budget{
		shared:   shared,
		group:    group,
		limiter:  rate.NewLimiter(rate.Limit(bounds.rate), bounds.burst),
		refusals: rate.NewLimiter(rate.Limit(bounds.rate*promptRefusals), promptBurst(bounds)),
	}
	b.bounds.Store(&bounds)
	return b
}

// bind sets the bounds, which also apply to calls in flight.
func (b *Budget) bind(bounds bounds) {
	if *b.bounds.Load() == bounds {
		return
	}
	b.limiter.SetLimit(rate.Limit(bounds.rate))
	b.limiter.SetBurst(bounds.burst)
	b.refusals.SetLimit(rate.Limit(bounds.rate * promptRefusals))
	b.refusals.SetBurst(promptBurst(bounds))
	b.bounds.Store(&bounds)
}

// forgotten is the number of pins of a budget that its table has removed.
const forgotten = math.MinInt64 / 2

// pin retains the budget in its table until unpin. It reports false if the table has removed
// the budget.
func (b *Budget) pin() bool {
	if b.pins.Add(1) > 0 {
		return true
	}
	b.pins.Add(-1)
	return false
}

func (b *Budget) unpin() { b.pins.Add(-1) }

// forget marks the budget as removed, and reports true, if a new budget would be the same:
// nothing is in flight, and no limit is partly used up.
func (b *Budget) forget() bool {
	if b.pins.Load() != 0 || b.retries.earned.Load() < 0 {
		return false
	}
	bounds := b.bounds.Load()
	if b.limiter.Tokens() < float64(bounds.burst) || b.refusals.Tokens() < float64(promptBurst(*bounds)) {
		return false
	}
	return b.pins.CompareAndSwap(0, forgotten)
}

// Spend counts a call against the rate. If calls exceed the rate it returns [ErrRate] and the
// time until the next call is allowed.
func (b *Budget) Spend(now time.Time) (wait time.Duration, err error) {
	if !b.limiter.AllowN(now, 1) {
		missing := 1 - b.limiter.TokensAt(now)
		return time.Duration(missing / b.bounds.Load().rate * float64(time.Second)), ErrRate
	}
	b.retries.earn()
	return 0, nil
}

// Denied counts a call that was denied against the rate: a denial costs as much as an
// answer.
func (b *Budget) Denied(now time.Time) { b.limiter.AllowN(now, 1) }

// Retry reports whether a call of the caller may be retried, and counts the retry.
func (b *Budget) Retry() bool { return b.retries.spend() }

// InFlight returns the calls and streams in flight, and the bytes that they hold.
func (b *Budget) InFlight() (calls, streams, bytes int64) {
	return b.calls.Load(), b.streams.Load(), b.bytes.Load()
}

// takeBytes reserves n bytes of the budget and of its group. Errors: [ErrBytes] (of the
// budget), [ErrFull] (of the group).
func (b *Budget) takeBytes(n int64) error {
	if b.bytes.Add(n) > b.bounds.Load().bytes {
		b.bytes.Add(-n)
		return ErrBytes
	}
	if b.group != nil && b.group.takeBytes(n) != nil {
		b.bytes.Add(-n)
		return ErrFull
	}
	return nil
}

func (b *Budget) returnBytes(n int64) {
	b.bytes.Add(-n)
	if b.group != nil {
		b.group.returnBytes(n)
	}
}

// takePlace counts a call or a stream of the budget and of its group. Errors:
// [ErrConcurrency] and [ErrStreams] (of the budget), [ErrFull] (of the group).
func (b *Budget) takePlace(stream bool) error {
	bounds := b.bounds.Load()
	count, bound, full := &b.calls, bounds.calls, ErrConcurrency
	if stream {
		count, bound, full = &b.streams, bounds.streams, ErrStreams
	}
	if count.Add(1) > bound {
		count.Add(-1)
		return full
	}
	if b.group != nil && b.group.takePlace(stream) != nil {
		count.Add(-1)
		return ErrFull
	}
	return nil
}

func (b *Budget) leavePlace(stream bool) {
	if stream {
		b.streams.Add(-1)
	} else {
		b.calls.Add(-1)
	}
	if b.group != nil {
		b.group.leavePlace(stream)
	}
}
