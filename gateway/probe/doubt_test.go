package probe_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fanout"
)

// A node that has missed one probe is probed again as soon as a new round may begin, not after an interval, and the
// second miss is that of a second probe.
func TestProbe_NodeInDoubtIsProbedAgainWithoutDelay(t *testing.T) {
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
		began := time.Now()
		var prober *probe.Prober
		var after time.Duration
		var probes int64
		silent := stuck{1100 * time.Millisecond, func() { after, probes = time.Since(began), prober.Probes() }}
		prober = probe.New(probe.Config{Every: time.Minute, FanOut: fanout.Config{TTL: 3 * time.Second}}, table,
			contextkit.NewClient(silent), silent, zerolog.Nop())
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := prober.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// The first round's result is reused for 3 s, and a probe takes 1.1 s.
		if probes != 2 || after > 4200*time.Millisecond {
			t.Errorf("the node is left out after %v and %d probes", after, probes)
		}
	})
}
