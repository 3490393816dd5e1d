package fleet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
)

// Foreign nodes are bounded, name their own kind, and displace no node of the platform.
func TestFollow_ForeignNodesAreBounded(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	ctx, stop := context.WithCancel(t.Context())
	ended, fleets := make(chan struct{}), make(chan fleet.Fleet, 1)
	go func() {
		defer close(ended)
		fleet.FollowNodes(ctx, js, fleet.Follower{
			Each: func(f fleet.Fleet) {
				select {
				case <-fleets: // an older one
				default:
				}
				fleets <- f
			},
			// On a busy machine the first ones are silent before the last ones are known.
			Ask: func(_ context.Context, silent []fleet.Node) map[string]fleet.Verdict {
				verdicts := map[string]fleet.Verdict{}
				for _, node := range silent {
					verdicts[node.ID] = fleet.Answers
				}
				return verdicts
			},
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	natstest.Await(t, fleets, "nodes are followed")
	publish := func(subject, text string) {
		t.Helper()
		if err := js.Conn().Publish(subject, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	known := map[string]bool{}
	announce := func() {
		publish("$KV.nodes.runner.runner-1", `{"id":"runner-1","kind":"runner","endpoint":"127.0.0.1:2","ready":true}`)
		publish("nodes.gateway.forged", `{"id":"forged","kind":"gateway","endpoint":"127.0.0.1:1","ready":true}`)
		for n := range 1100 {
			id := fmt.Sprint("thing-", n)
			if known[id] {
				continue
			}
			publish(fleet.ForeignSubject("thing", id),
				fmt.Sprintf(`{"id":%q,"kind":"thing","endpoint":"127.0.0.1:1","ready":true}`, id))
		}
	}
	announce()
	// Nodes announce themselves again and again: a busy follower drops announcements, the last ones of many. Those of
	// known nodes would take the place of others.
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	for foreign, platform := 0, 0; foreign < 1024 || platform < 1; {
		var f fleet.Fleet
		select {
		case f = <-fleets:
		case <-again.C:
			announce()
			continue
		case <-t.Context().Done():
			t.Fatal("the last nodes are not known")
		}
		foreign, platform = 0, 0
		clear(known)
		for _, node := range f.Nodes {
			switch node.Kind {
			case "thing":
				foreign++
				known[node.ID] = true
			case "runner":
				platform++
			default:
				t.Errorf("%+v is known", node)
			}
		}
		if foreign > 1024 {
			t.Fatalf("%d foreign nodes are known", foreign)
		}
	}
}
