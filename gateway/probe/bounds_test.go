package probe_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
)

// prompt is a transport that fails calls immediately, and calls asked before; the error is an answer of the node.
type prompt struct{ asked func() }

// NewClientStream implements [connect.Transport].
func (p prompt) NewClientStream(context.Context, connect.Spec) (connect.ClientStream, error) {
	p.asked()
	return nil, connect.NewError(connect.CodeUnimplemented, "no health checks")
}

// Answered implements [probe.Channels].
func (prompt) Answered(string) time.Time { return time.Now() }

// Abandon implements [probe.Channels].
func (prompt) Abandon(string) {}

// Rounds are 2 s apart by default, more or less a fifth: gateways do not probe together.
func TestBounds_RoundsHaveJitter(t *testing.T) {
	for name, c := range map[string]struct{ configured, every time.Duration }{
		"default": {0, 2 * time.Second}, "configured": {10 * time.Second, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := route.NewTable()
				node := route.Node{
					ID:       "node",
					Kind:     "thing",
					Endpoint: "a:1",
					Ready:    true,
				}
				if err := table.SetNodes([]route.Node{node}); err != nil {
					t.Fatal(err)
				}
				var rounds []time.Time
				peer := prompt{func() { rounds = append(rounds, time.Now()) }}
				prober := probe.New(probe.Config{Every: c.configured}, table, contextkit.NewClient(peer), peer,
					zerolog.Nop())
				const want = 50
				ctx, cancel := context.WithTimeout(t.Context(), want*c.every)
				defer cancel()
				if err := prober.Run(ctx); err != nil {
					t.Fatal(err)
				}
				seen := map[time.Duration]bool{}
				for i := 1; i < len(rounds); i++ {
					wait := rounds[i].Sub(rounds[i-1])
					seen[wait] = true
					if wait < c.every*4/5 || wait > c.every*6/5 {
						t.Errorf("interval before round %d is %v, want %v ± 20 %%", i, wait, c.every)
					}
				}
				if len(rounds) < want*4/5 || len(seen) < want/2 {
					t.Errorf("%d rounds, %d different waits", len(rounds), len(seen))
				}
			})
		})
	}
}
