package runner

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// The outcome of a running attempt would be lost: the step would be recorded as skipped, and not compensated,
// although it may have taken effect.
func TestSkip_RunningStepIsRejected(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		attempts *attempts
		waiting  *waiting
		want     bool
	}{
		"due":                {&attempts{Step: "a", Next: now.Add(-time.Second)}, nil, true},
		"due later":          {&attempts{Step: "a", Next: now.Add(clockMargin / 2)}, nil, true},
		"next attempt later": {&attempts{Step: "a", Next: now.Add(time.Minute)}, nil, false},
		"stuck":              {&attempts{Step: "a", Stuck: true}, nil, false},
		"wait step":          {nil, &waiting{Step: "a", Until: now}, false},
	} {
		i := &instance{State: stateRunning, Attempts: tc.attempts, Waiting: tc.waiting}
		err := i.skip("a", "no reason", now)
		if (connect.CodeOf(err) == connect.CodeFailedPrecondition) != tc.want || err == nil && len(i.Steps) != 1 {
			t.Errorf("%s: %v, steps %v", name, err, i.Steps)
		}
	}
}
