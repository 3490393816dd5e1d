package aggregate

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// The parts of one batch occupy a bounded number of goroutines and appends, regardless of their number.
func TestSubmitParts_ConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running atomic.Int64
		next, ended := make(chan struct{}), make(chan uint64)
		parts := make([]*part, 3*batchConcurrency+1)
		for n := range parts {
			parts[n] = &part{indexes: []int{n}}
		}
		go func() {
			ended <- submitParts(parts, func(p *part) uint64 {
				running.Add(1)
				<-next
				running.Add(-1)
				return uint64(100 - p.indexes[0])
			})
		}()
		for left := len(parts); left > 0; left-- {
			synctest.Wait()
			if got, want := running.Load(), int64(min(left, 8)); got != want {
				t.Errorf("%d parts run, and %d are left, want %d", got, left, want)
			}
			next <- struct{}{}
		}
		if last := <-ended; last != 100 {
			t.Errorf("the last sequence is %d, want 100", last)
		}
	})
}
