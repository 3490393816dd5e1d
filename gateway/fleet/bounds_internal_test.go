package fleet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/upstream"
)

// attempts records when a reflector reports that a node's services are not served.
type attempts struct{ at []time.Time }

func (*attempts) Describe(string, contextkit.Kind, time.Time, []byte) error { return nil }

func (a *attempts) SetUndescribed(string, contextkit.Kind) { a.at = append(a.at, time.Now()) }

// Waits between requests to a node that does not answer double up to ten seconds, more or less a quarter: the gateways
// of a cluster do not ask together.
func TestBounds_RequestsForDescriptorsHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked attempts
		node := &describedNode{Node: Node{ID: "node", Kind: "thing", Endpoint: "an address without a port"}}
		r := NewReflector(&asked, nil, upstream.PoolConfig{}, zerolog.Nop())
		defer r.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		asked.at = append(asked.at, time.Now())
		r.renew(ctx, node) // as at the start
		r.follow(ctx, node)
		seen, want := map[time.Duration]bool{}, 500*time.Millisecond
		waits := asked.at[1:]
		for i := 1; i < len(waits); i++ {
			wait := waits[i].Sub(waits[i-1])
			if wait < want*3/4 || wait > want*5/4 {
				t.Errorf("request %d follows after %v, want %v and a quarter more or less", i, wait, want)
			}
			if want = min(2*want, 10*time.Second); want == 10*time.Second {
				seen[wait] = true
			}
		}
		if len(waits) < 40 || len(seen) < 20 {
			t.Errorf("%d requests in ten minutes, %d different waits", len(waits), len(seen))
		}
	})
}
