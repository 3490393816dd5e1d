package limit

import (
	"fmt"
	"sync/atomic"
)

// Priority says which calls are refused first when room gets scarce.
type Priority int

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
var tenths = [priorities]int{Low: 7, Normal: 9, High: 10}

// Room bounds the calls in flight. As it fills up, what is least important is
// refused first, so that operators still get in.
type Room struct {
	inFlight atomic.Int64
	bound    [priorities]int64
	shed     [priorities]atomic.Int64
}

// NewRoom returns room for so many calls; every priority has room for one.
func NewRoom(calls int) (*Room, error) {
	if calls < 1 {
		return nil, fmt.Errorf("limit: room for %d calls: want at least 1", calls)
	}
	r := &Room{}
	for p := range r.bound {
		r.bound[p] = int64(max(calls*tenths[p]/10, 1))
	}
	return r, nil
}

// Enter counts a call, which Leave ends, or reports that there is no room for
// its priority.
func (r *Room) Enter(p Priority) bool {
	if r.inFlight.Add(1) > r.bound[p] {
		r.inFlight.Add(-1)
		r.shed[p].Add(1)
		return false
	}
	return true
}

// Leave ends a call that was let in.
func (r *Room) Leave() { r.inFlight.Add(-1) }

// InFlight returns how many calls are in the room.
func (r *Room) InFlight() int64 { return r.inFlight.Load() }

// Shed returns how many calls of the priority have been refused.
func (r *Room) Shed(p Priority) int64 { return r.shed[p].Load() }
