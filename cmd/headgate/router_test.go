package main

import (
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
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
