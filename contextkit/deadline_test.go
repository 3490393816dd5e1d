package contextkit_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

func TestCalleeTime_IsLessThanRemainsAndNeverNegative(t *testing.T) {
	for remaining, want := range map[time.Duration]time.Duration{
		time.Hour:             time.Hour - contextkit.DeadlineMargin,
		time.Second:           980 * time.Millisecond,
		80 * time.Millisecond: 60 * time.Millisecond,
		40 * time.Millisecond: 30 * time.Millisecond,
		5 * time.Millisecond:  3750 * time.Microsecond,
		time.Nanosecond:       time.Nanosecond,
		-5 * time.Millisecond: -3750 * time.Microsecond,
	} {
		if got := contextkit.CalleeTime(remaining); got != want {
			t.Errorf("of %v a callee is given %v, want %v", remaining, got, want)
		}
	}
}
