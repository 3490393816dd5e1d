package limit_test

import (
	"testing"

	"github.com/headgate/headgate/gateway/limit"
)

// Calls of low priority may fill seven tenths of every capacity, normal ones nine, high ones all; each at least one.
func TestLimiter_SharesOfPrioritiesAreExact(t *testing.T) {
	for _, units := range []int64{1, 2, 9, 10, 11, 15, 99, 1234, 1<<62 + 7} {
		for priority, tenths := range map[limit.Priority]int64{limit.Low: 7, limit.Normal: 9, limit.High: 10} {
			l, err := limit.NewLimiter(units)
			if err != nil {
				t.Fatal(err)
			}
			want := max(units/10*tenths+(units%10)*tenths/10, 1) // without an overflow
			if !l.Acquire(want, priority) || l.Used() != want {
				t.Errorf("%v: %d of %d units are not admitted", priority, want, units)
			}
			if l.Acquire(1, priority) || l.Used() != want || l.Shed(priority) != 1 {
				t.Errorf("%v: more than %d of %d units are admitted", priority, want, units)
			}
			l.Release(want)
			if l.Used() != 0 {
				t.Errorf("%v: %d units are used after the release", priority, l.Used())
			}
		}
	}
	for _, units := range []int64{0, -1} {
		if _, err := limit.NewLimiter(units); err == nil {
			t.Errorf("a capacity of %d is valid, want an error", units)
		}
	}
}
