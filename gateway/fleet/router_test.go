package fleet

import (
	"context"
	"encoding/json"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// probes are the results of probes by node.
type probes map[string]bool

func (p probes) Answers(node string) (answers, known bool) {
	answers, known = p[node]
	return answers, known
}

func TestRouter_ProbedReadinessStaysUntilTheAnnouncementChanges(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ready := fleet.Node{
		ID:       "p1",
		Kind:     contextkit.KindProjection,
		Endpoint: "127.0.0.1:9001",
		Started:  started,
		Ready:    true,
	}
	change := func(how func(*fleet.Node)) fleet.Node {
		node := ready
		how(&node)
		return node
	}
	busier := change(func(n *fleet.Node) { n.Load = &fleet.Load{Goroutines: 99} })
	restarted := change(func(n *fleet.Node) { n.Started = started.Add(time.Minute) })
	moved := change(func(n *fleet.Node) { n.Endpoint = "127.0.0.1:9002" })
	draining := change(func(n *fleet.Node) { n.Ready = false })
	for name, c := range map[string]struct {
		probed bool
		then   []fleet.Node
		want   bool
	}{
		"not ready by probe, other load":                {false, []fleet.Node{busier}, false},
		"not ready by probe, the same announcement":     {false, []fleet.Node{ready, busier, ready}, false},
		"not ready by probe, started again":             {false, []fleet.Node{restarted}, true},
		"not ready by probe, another endpoint":          {false, []fleet.Node{moved}, true},
		"not ready by probe, drains and is ready again": {false, []fleet.Node{draining, ready}, true},
		"ready by probe, other load":                    {true, []fleet.Node{busier}, true},
		"ready by probe, drains":                        {true, []fleet.Node{draining}, false},
		"ready by probe, drains with other load":        {true, []fleet.Node{draining, draining}, false},
		"ready by probe, drains, then started again":    {true, []fleet.Node{draining, restarted}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRouter(route.NewTable(), nil, zerolog.Nop())
			announce := func(node fleet.Node) {
				r.announce(fleet.Fleet{Nodes: []fleet.Node{node}})
			}
			announce(ready)
			r.table.SetReady(ready.ID, c.probed)
			for _, node := range c.then {
				announce(node)
			}
			if node, ok := r.table.Node(ready.ID); !ok || node.Ready != c.want {
				t.Errorf("%+v, want ready %t", node, c.want)
			}
		})
	}
}

// A node that stops announcing itself without a farewell leaves the routing table, and is lost until it announces
// itself again.
func TestRouter_NodesWithoutAFarewellAreLost(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	bucket, err := js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRouter(route.NewTable(), nil, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() {
		r.FollowNodes(ctx, js, probes{"n1": false, "n2": false}, func(fleet.Node) {})
	})
	until := func(what string, nodes, lost int) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(30 * time.Second); len(r.table.Nodes()) != nodes ||
			len(r.table.Lost()) != lost; {
			<-tick.C
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v are there, %v lost", what, r.table.Nodes(), r.table.Lost())
			}
		}
	}
	announce := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			data, err := json.Marshal(fleet.Node{
				ID:       id,
				Kind:     contextkit.KindProjection,
				Endpoint: "127.0.0.1:1" + id[1:],
				Ready:    true,
			})
			if err == nil {
				_, err = bucket.Put(t.Context(), id, data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	announce("n1", "n2")
	until("announced", 2, 0)
	if err := bucket.Delete(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	until("one node ends with a farewell, the other without", 0, 1)
	if lost := r.table.Lost()[0]; lost.ID != "n1" || lost.Kind != contextkit.KindProjection || lost.Ready {
		t.Errorf("%+v", lost)
	}
	announce("n1")
	until("it announces itself again", 1, 0)
}

// A silent node stays in the routing table while it answers probes, regardless of its last announcement. A node that
// does not answer, or whose address another node announces, is gone.
func TestRouter_ProbesDecideOnSilentNodes(t *testing.T) {
	r := NewRouter(route.NewTable(), nil, zerolog.Nop())
	node := func(id string, kind contextkit.Kind, endpoint string) fleet.Node {
		return fleet.Node{
			ID:       id,
			Kind:     kind,
			Endpoint: endpoint,
			Ready:    true,
		}
	}
	silent := []fleet.Node{
		node("p1", contextkit.KindProjection, "127.0.0.1:1"), node("p2", contextkit.KindProjection, "127.0.0.1:2"),
		node("p3", contextkit.KindProjection, "127.0.0.1:3"),
		node("p4", contextkit.KindProjection, "127.0.0.1:4"), node("g1", contextkit.KindGateway, "127.0.0.1:5"),
	}
	r.announced = fleet.Fleet{Nodes: append([]fleet.Node{node("r1", contextkit.KindRunner, "127.0.0.1:3")}, silent...)}
	got := r.examine(silent, probes{"p1": true, "p2": false, "p3": true})
	want := map[string]fleet.Verdict{"p1": fleet.Answers, "p2": fleet.Gone, "p3": fleet.Gone}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	refusing := silent[0]
	refusing.Ready = false
	r.announced = fleet.Fleet{Nodes: []fleet.Node{refusing}}
	r.apply()
	r.announced.Silent = map[string]time.Time{"p1": time.Now()}
	r.table.SetReady("p1", true) // by a probe
	r.apply()
	if now, ok := r.table.Node("p1"); !ok || !now.Ready || !now.Silent {
		t.Errorf("%+v: a silent node that is ready by its probe is routed to", now)
	}
	r.announced.Silent = nil
	r.apply()
	if now, ok := r.table.Node("p1"); !ok || now.Ready || now.Silent {
		t.Errorf("%+v: its announcement counts again", now)
	}
}
