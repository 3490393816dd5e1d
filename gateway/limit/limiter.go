package limit

import (
	"fmt"
	"sync/atomic"
)

// Priority is the priority of a call, by which a nearly used up capacity sheds load.
type Priority uint8

// Priorities, the lowest first.
const (
	Low Priority = iota
	Normal
	High
	priorities
)

// String returns the priority's name in metrics.
func (p Priority) String() string { return [...]string{"low", "normal", "high"}[p] }

// prioritySharesTenths is the share of the capacity that a priority may fill, in tenths.
var prioritySharesTenths = [priorities]int64{Low: 7, Normal: 9, High: 10}

// Limiter is a concurrency limiter: it bounds the number of units (calls, streams or bytes) in use.
// When it is nearly full it rejects low priorities first (load shedding).
type Limiter struct {
	used  atomic.Int64
	bound [priorities]int64
	shed  [priorities]atomic.Int64
}

// NewLimiter returns a limiter of a number of units, at least 1; every priority may use at least
// one.
func NewLimiter(units int64) (*Limiter, error) {
	if units < 1 {
		return nil, fmt.Errorf("limit: a capacity of %d: want at least 1", units)
	}
	r := &Limiter{}
	for p := range r.bound {
		r.bound[p] = max(units/10*prioritySharesTenths[p]+units%10*prioritySharesTenths[p]/10, 1)
	}
	return r, nil
}

// Acquire acquires n units, which the caller must Release. It reports false if the priority has no
// n units left.
func (r *Limiter) Acquire(n int64, p Priority) bool {
	if r.used.Add(n) > r.bound[p] {
		r.used.Add(-n)
		r.shed[p].Add(1)
		return false
	}
	return true
}

// Release releases n acquired units.
func (r *Limiter) Release(n int64) { r.used.Add(-n) }

// Used returns the number of units in use.
func (r *Limiter) Used() int64 { return r.used.Load() }

// Shed returns the number of rejections at the priority.
func (r *Limiter) Shed(p Priority) int64 { return r.shed[p].Load() }
