package tail

import (
	"testing"
	"time"
)

// Waits double up to ten seconds, and half of each is jitter: tenants whose reads have failed together are not retried
// together.
func TestBounds_RetriesDoubleWithJitter(t *testing.T) {
	for failures, want := range map[int]time.Duration{
		1: 500 * time.Millisecond, 2: time.Second, 5: 8 * time.Second, 6: 10 * time.Second, 1 << 40: 10 * time.Second,
	} {
		const samples = 50
		seen := map[time.Duration]bool{}
		for range samples {
			wait := retryDelay(failures)
			seen[wait] = true
			if wait <= want/2 || wait > want {
				t.Errorf("after %d failures: %v, want above %v and at most %v", failures, wait, want/2, want)
			}
		}
		if len(seen) < samples/2 {
			t.Errorf("after %d failures: %d different waits of %d", failures, len(seen), samples)
		}
	}
}
