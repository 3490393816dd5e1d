package probe

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fanout"
)

// abandoned are channels that record which endpoints are abandoned.
type abandoned struct{ endpoints []string }

func (*abandoned) Answered(string) time.Time { return time.Time{} }

func (a *abandoned) Abandon(endpoint string) { a.endpoints = append(a.endpoints, endpoint) }

// A node is not ready after two missed probes in a row, or when it says so; results that do not state its readiness
// change nothing.
func TestProbe_ReadinessFollowsTheResults(t *testing.T) {
	errSilent := errors.New("no answer")
	type step struct {
		result    string // "miss": none
		ready     bool   // after it
		doubt     bool
		answers   bool
		abandoned int
	}
	for name, steps := range map[string][]step{
		"serves":              {{serving, true, false, true, 0}},
		"reports not serving": {{notServing, false, false, true, 0}, {serving, true, false, true, 0}},
		"misses one probe": {
			{"miss", true, true, false, 0},
			{serving, true, false, true, 0},
			{"miss", true, true, true, 0},
		},
		"misses two": {
			{serving, true, false, true, 0}, {"miss", true, true, true, 0}, {"miss", false, false, false, 1},
			{"miss", false, false, false, 1}, {unknown, true, false, true, 1}, {serving, true, false, true, 1},
		},
		"misses one probe, no answered call": {
			{"miss", true, true, false, 0}, {undecided, true, true, false, 0}, {"miss", false, false, false, 1},
			{undecided, false, false, false, 1},
		},
		"answers calls": {
			{"miss", true, true, false, 0}, {answering, true, false, true, 0}, {"miss", true, true, true, 0},
		},
		"says that it does not, then is late": {
			{notServing, false, false, true, 0}, {undecided, false, false, true, 0},
		},
		"says nothing": {{unknown, true, false, true, 0}, {undecided, true, true, true, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			table, nodes := route.NewTable(), &abandoned{}
			node := route.Node{
				ID:       "node",
				Kind:     "thing",
				Endpoint: "a:1",
				Ready:    true,
			}
			if err := table.SetNodes([]route.Node{node}); err != nil {
				t.Fatal(err)
			}
			p := New(Config{}, table, nil, nodes, zerolog.Nop())
			if _, known := p.Answers("node"); known {
				t.Error("the node's state is known before a probe")
			}
			for n, s := range steps {
				answer := fanout.Answer[route.Node, string]{Node: node, Value: s.result}
				if s.result == "miss" {
					answer.Value, answer.Err = "", errSilent
				}
				answer.Node.Ready = node.Ready
				doubt := p.apply(
					&fanout.Snapshot[route.Node, string]{Answers: []fanout.Answer[route.Node, string]{answer}},
				)
				node, _ = table.Node("node")
				answers, _ := p.Answers("node")
				if got := (step{s.result, node.Ready, doubt, answers, len(nodes.endpoints)}); got != s {
					t.Errorf("step %d: %+v, want %+v", n+1, got, s)
				}
			}
		})
	}
}

// The calls to a node that was missed and has left the table end; those to one that answered go on.
func TestProbe_MissedNodeThatLeftIsAbandoned(t *testing.T) {
	table, nodes := route.NewTable(), &abandoned{}
	all := []route.Node{
		{ID: "silent", Kind: "thing", Endpoint: "a:1", Ready: true},
		{ID: "well", Kind: "thing", Endpoint: "b:1", Ready: true},
		{ID: "stays", Kind: "thing", Endpoint: "c:1", Ready: true},
	}
	p := New(Config{}, table, nil, nodes, zerolog.Nop())
	for _, present := range [][]route.Node{all, nil} {
		if err := table.SetNodes(append(slices.Clone(present), all[2])[:max(len(present), 1)]); err != nil {
			t.Fatal(err)
		}
		var answers []fanout.Answer[route.Node, string]
		for _, node := range present {
			answer := fanout.Answer[route.Node, string]{Node: node, Value: serving}
			if node.ID != "well" {
				answer = fanout.Answer[route.Node, string]{Node: node, Err: errors.New("no answer")}
			}
			answers = append(answers, answer)
		}
		p.apply(&fanout.Snapshot[route.Node, string]{Answers: answers})
	}
	if !slices.Equal(nodes.endpoints, []string{"a:1"}) {
		t.Errorf("calls to %v ended, want those to a:1", nodes.endpoints)
	}
}

// A deadline that was noticed more than half a second late decides nothing.
func TestBounds_LatenessOfAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Config{}, route.NewTable(), nil, &abandoned{}, zerolog.Nop())
		began := time.Now()
		time.Sleep(p.config.FanOut.Timeout + 500*time.Millisecond)
		if p.late(began) {
			t.Error("a delay of 0.5 s is late")
		}
		time.Sleep(time.Nanosecond)
		if !p.late(began) {
			t.Error("a delay over 0.5 s is not late")
		}
	})
}

// The calls to a node that answers again and leaves the table go on, although it missed the probe before.
func TestProbe_NodeThatAnsweredAndLeftIsNotAbandoned(t *testing.T) {
	table, nodes := route.NewTable(), &abandoned{}
	p := New(Config{}, table, nil, nodes, zerolog.Nop())
	node := route.Node{
		ID:       "node",
		Kind:     "thing",
		Endpoint: "a:1",
		Ready:    true,
	}
	for _, answer := range []fanout.Answer[route.Node, string]{
		{Node: node, Err: errors.New("no answer")}, {Node: node, Value: serving},
	} {
		p.apply(&fanout.Snapshot[route.Node, string]{Answers: []fanout.Answer[route.Node, string]{answer}})
	}
	if len(nodes.endpoints) != 0 {
		t.Errorf("calls to %v end", nodes.endpoints)
	}
}
