package h2

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// Pauses after failed attempts to connect double up to the longest, each more or less a fifth: the gateways of a node
// that has restarted do not connect together.
func TestBounds_PausesBetweenAttemptsToConnectHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const first, longest, many = 50 * time.Millisecond, time.Second, 40
		config := channels.Config{
			ConnectTimeout: time.Second,
			FirstBackoff:   first,
			MaxBackoff:     longest,
			PingAfter:      time.Minute,
		}
		seen := map[time.Duration]bool{}
		for range many {
			c := NewChannel("an address without a port", config) // dialing fails without I/O
			for _, want := range []time.Duration{first, 2 * first, 4 * first, 8 * first, 16 * first, longest, longest} {
				if _, err := c.connection(t.Context()); err == nil {
					t.Fatal("it is connected")
				}
				wait := time.Until(c.notBefore)
				if wait < want*4/5 || wait > want*6/5 {
					t.Errorf("a pause of %v, want %v and a fifth more or less", wait, want)
				}
				if want == longest {
					seen[wait] = true
				}
				time.Sleep(wait)
			}
			c.Close()
		}
		if len(seen) < many {
			t.Errorf("%d different pauses of %d", len(seen), 2*many)
		}
	})
}
