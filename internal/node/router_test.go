package node

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/headgate/headgate/gateway/route"
	"github.com/rs/zerolog"
)

func TestAProbesWordStaysUntilTheNodeHasSomethingElseToSay(t *testing.T) {
	started := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ready := backbone.Node{ID: "p1", Kind: "projection", Endpoint: "127.0.0.1:9001", Started: started, Ready: true}
	change := func(how func(*backbone.Node)) backbone.Node {
		node := ready
		how(&node)
		return node
	}
	busier := change(func(n *backbone.Node) { n.Load = &backbone.Load{Goroutines: 99} })
	restarted := change(func(n *backbone.Node) { n.Started = started.Add(time.Minute) })
	moved := change(func(n *backbone.Node) { n.Endpoint = "127.0.0.1:9002" })
	draining := change(func(n *backbone.Node) { n.Ready = false })
	for name, c := range map[string]struct {
		probed bool
		then   []backbone.Node
		want   bool
	}{
		"silent, and announces other load":           {false, []backbone.Node{busier}, false},
		"silent, and announces the same":             {false, []backbone.Node{ready, busier, ready}, false},
		"silent, and is started again":               {false, []backbone.Node{restarted}, true},
		"silent, and announces another endpoint":     {false, []backbone.Node{moved}, true},
		"silent, drains and takes calls again":       {false, []backbone.Node{draining, ready}, true},
		"answers, and announces other load":          {true, []backbone.Node{busier}, true},
		"answers, and announces that it drains":      {true, []backbone.Node{draining}, false},
		"answers, and drains with other load":        {true, []backbone.Node{draining, draining}, false},
		"answers, drains, and is started again then": {true, []backbone.Node{draining, restarted}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(route.NewTable(), nil, zerolog.Nop())
			announce := func(node backbone.Node) {
				r.announced = []backbone.Node{node}
				r.apply()
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

// A node that falls silent without a goodbye leaves the routing, and is known as lost until
// it is back; one that has said goodbye is not.
func TestRouter_KnowsTheNodesThatAreLost(t *testing.T) {
	js := backbonetest.Start(t)
	bucket, err := js.KeyValue(t.Context(), backbone.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	r := newRouter(route.NewTable(), nil, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	following.Go(func() {
		if err := r.followNodes(ctx, js); err != nil {
			t.Error(err)
		}
	})
	until := func(what string, nodes, lost int) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.Now().Add(30 * time.Second); len(r.table.Nodes()) != nodes || len(r.table.Lost()) != lost; {
			<-tick.C
			if time.Now().After(deadline) {
				t.Fatalf("%s: %v are there, %v lost", what, r.table.Nodes(), r.table.Lost())
			}
		}
	}
	announce := func(ids ...string) {
		t.Helper()
		for _, id := range ids {
			data, err := json.Marshal(backbone.Node{ID: id, Kind: "projection", Endpoint: "127.0.0.1:1" + id[1:], Ready: true})
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
	until("one says goodbye, the other nothing", 0, 1)
	if lost := r.table.Lost()[0]; lost.ID != "n1" || lost.Kind != "projection" || lost.Ready {
		t.Errorf("%+v", lost)
	}
	announce("n1")
	until("it is back", 1, 0)
}
