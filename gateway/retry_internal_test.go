package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
)

// A wait between attempts has full jitter: calls that have failed together are not repeated together. It is at most
// 20 ms, and 40 ms before the third attempt.
func TestBounds_WaitsBetweenAttemptsHaveJitter(t *testing.T) {
	unavailable := connect.NewError(connect.CodeUnavailable, "in trouble")
	method := &policy.Method{Spec: connect.Spec{IdempotencyLevel: connect.IdempotencyNoSideEffects}}
	for attempts, longest := range map[int]time.Duration{1: 20 * time.Millisecond, 2: 40 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			g := &Gateway{counters: newCounters(prometheus.NewRegistry())}
			const calls = 100
			seen := map[time.Duration]bool{}
			var lowest, highest time.Duration = longest, 0
			for range calls {
				g.retries = limit.NewRetries() // no call is over budget
				call := &Call{Method: method, Attempts: attempts, BypassBreaker: true}
				began := time.Now()
				if !g.retry(t.Context(), call, unavailable) {
					t.Fatal("the call is not retried")
				}
				wait := time.Since(began)
				if call.Waited != wait {
					t.Errorf("the call waited for %v, reported %v", wait, call.Waited)
				}
				seen[wait] = true
				lowest, highest = min(lowest, wait), max(highest, wait)
			}
			if len(seen) < calls/2 || lowest > longest/5 || highest < longest*4/5 || highest > longest {
				t.Errorf("attempt %d: %d different waits, from %v to %v; want up to %v", attempts+1, len(seen), lowest,
					highest, longest)
			}
		})
	}
}
