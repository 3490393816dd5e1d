package gateway

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A stream ends by the wall clock, which is set by minutes or hours while it is open.
func TestLiveStreams_EndByTheClockAlthoughItIsSet(t *testing.T) {
	for _, step := range []time.Duration{
		0, time.Minute, -time.Minute, time.Hour, -time.Hour, -24 * time.Hour, 24 * time.Hour,
	} {
		for _, after := range []time.Duration{0, time.Minute, 29 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				var offset atomic.Int64
				began := time.Now()
				clock := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				until := began.Add(30 * time.Minute)
				ended := make(chan time.Time, 1)
				stop := atTime(until, clock, func() { ended <- time.Now() })
				defer stop()
				time.Sleep(after)
				offset.Store(int64(step))
				// The moment, by a clock that is never set, at which the set one shows the time.
				due := until.Add(-step)
				if set := began.Add(after); due.Before(set) {
					due = set
				}
				if at := <-ended; at.Before(due) || at.After(due.Add(clockCheck)) {
					t.Errorf("clock set by %v after %v: the timer fired %v late", step, after, at.Sub(due))
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		stop := atTime(time.Now().Add(time.Hour), time.Now, func() { t.Error("the timer fired after Stop") })
		stop()
		time.Sleep(2 * time.Hour)
	})
}
