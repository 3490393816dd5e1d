package limit

import (
	"fmt"
	"sync/atomic"
)

// Priority says which calls are refused first when room gets scarce.
type Priority uint8

// Priorities, the first to be refused first.
const (
	Low Priority = iota
	Normal
	High
	priorities
)

// String names the priority as metrics do.
func (p Priority) String() string { return [...]string{"low", "normal", "high"}[p] }

// tenths is how much of the room a priority may fill.
var tenths = [priorities]int64{Low: 7, Normal: 9, High: 10}

// Room bounds the number of units (calls, streams or bytes) in use. As it fills up, low
// priorities are refused first.
type Room struct {
	used  atomic.Int64
	bound [priorities]int64
	shed  [priorities]atomic.Int64
}

// NewRoom returns room for a number of units; every priority has room for one.
func NewRoom(units int64) (*Room, error) {
	if units < 1 {
		return nil, fmt.Errorf("limit: room for %d: want at least 1", units)
	}
	r := &Room{}
	for p := range r.bound {
		r.bound[p] = max(units/10*tenths[p]+units%10*tenths[p]/10, 1)
	}
	return r, nil
}

// Acquire takes n units, to be returned by Release, and reports false if there is no room for
// them at this priority.
func (r *Room) Acquire(n int64, p Priority) bool {
	if r.used.Add(n) > r.bound[p] {
		r.used.Add(-n)
		r.shed[p].Add(1)
		return false
	}
	return true
}

// Release returns n units that were acquired.
func (r *Room) Release(n int64) { r.used.Add(-n) }

// Used returns how many units are in use.
func (r *Room) Used() int64 { return r.used.Load() }

// Shed returns how often units were refused at the priority.
func (r *Room) Shed(p Priority) int64 { return r.shed[p].Load() }
