package natstest

import (
	"testing"
	"time"
)

// awaitTimeout bounds [Await]: far longer than any event takes, and far shorter than the time that
// the test binary has.
const awaitTimeout = time.Minute

// Await returns the next value of events, or the zero value if it is closed. Without one it fails
// the test, which runs in the calling goroutine, and names the event that did not happen.
func Await[T any](t testing.TB, events <-chan T, event string) T {
	t.Helper()
	timeout := time.NewTimer(awaitTimeout)
	defer timeout.Stop()
	select {
	case value := <-events:
		return value
	case <-timeout.C:
		t.Fatalf("%s: not within %v", event, awaitTimeout)
	}
	panic("unreachable")
}

// Eventually polls condition until it holds, and fails the test after a minute; what describes
// the condition.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !condition(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
