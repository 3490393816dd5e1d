package runner

import (
	"testing"
	"time"
)

// Retries wait longer after each failure, up to ten minutes, and the upper half of each wait is jitter: workflows that
// have failed together are not retried together.
func TestRetryDelay_DoublesWithJitterUpToTenMinutes(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 5: 4 * time.Second, 12: 512 * time.Second,
		13: 10 * time.Minute, 1 << 40: 10 * time.Minute,
	} {
		seen := map[time.Duration]bool{}
		for range 100 {
			delay := retryDelay(failures)
			seen[delay] = true
			if delay <= want/2 || delay > want {
				t.Errorf("after %d failures: delay %v, want above %v and at most %v", failures, delay, want/2, want)
			}
		}
		if len(seen) < 50 {
			t.Errorf("after %d failures: %d different delays of 100", failures, len(seen))
		}
	}
}
