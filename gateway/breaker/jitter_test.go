package breaker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/breaker"
)

// Breakers that open together have their trials at different times: a quarter of each pause is
// jitter.
func TestBreaker_PausesHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes, pause = 100, 500 * time.Millisecond
		s := breaker.NewSet(breaker.Config{})
		waits := map[time.Duration]bool{}
		for i := range nodes {
			endpoint := fmt.Sprintf("node-%d:1", i)
			for range 5 {
				call(s, endpoint, breaker.Unreached)
			}
			_, wait, admitted := enter(s, endpoint)
			if admitted || wait <= pause*3/4 || wait > pause {
				t.Errorf("%s: admitted %v, waits %v, want above %v and at most %v", endpoint, admitted, wait, pause*3/4,
					pause)
			}
			waits[wait] = true
		}
		if len(waits) < nodes/2 {
			t.Errorf("%d different waits of %d breakers", len(waits), nodes)
		}
	})
}
