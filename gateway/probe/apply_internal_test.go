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

// A node is not ready after two missed probes in a row, or when it reports so; results that do not state its readiness
// change nothing.
func TestProbe_ReadinessFollowsTheResults(t *testing.T) {
	errSilent := errors.New("no answer")
	const miss Answer = "miss" // the node does not answer
	type step struct {
		result    Answer
		ready     bool // after it
		doubt     bool
		answers   bool
		abandoned int
	}
	for name, steps := range map[string][]step{
		"serves":              {{Serving, true, false, true, 0}},
		"reports not serving": {{NotServing, false, false, true, 0}, {Serving, true, false, true, 0}},
		"misses one probe": {
			{miss, true, true, false, 0},
			{Serving, true, false, true, 0},
			{miss, true, true, true, 0},
		},
		"misses two": {
			{Serving, true, false, true, 0}, {miss, true, true, true, 0}, {miss, false, false, false, 1},
			{miss, false, false, false, 1}, {Unknown, true, false, true, 1}, {Serving, true, false, true, 1},
		},
		"misses one probe, no answered call": {
			{miss, true, true, false, 0}, {Undecided, true, true, false, 0}, {miss, false, false, false, 1},
			{Undecided, false, false, false, 1},
		},
		"answers calls": {
			{miss, true, true, false, 0}, {Answering, true, false, true, 0}, {miss, true, true, true, 0},
		},
		"reports not serving, then is late": {
			{NotServing, false, false, true, 0}, {Undecided, false, false, true, 0},
		},
		"reports nothing": {{Unknown, true, false, true, 0}, {Undecided, true, true, true, 0}},
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
				answer := fanout.Answer[route.Node, Answer]{Node: node, Value: s.result}
				if s.result == miss {
					answer.Value, answer.Err = Undecided, errSilent
				}
				answer.Node.Ready = node.Ready
				doubt := p.apply(
					&fanout.Snapshot[route.Node, Answer]{Answers: []fanout.Answer[route.Node, Answer]{answer}},
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

// The calls to a node that was missed and has left the table end; those to one that answered continue.
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
		var answers []fanout.Answer[route.Node, Answer]
		for _, node := range present {
			answer := fanout.Answer[route.Node, Answer]{Node: node, Value: Serving}
			if node.ID != "well" {
				answer = fanout.Answer[route.Node, Answer]{Node: node, Err: errors.New("no answer")}
			}
			answers = append(answers, answer)
		}
		p.apply(&fanout.Snapshot[route.Node, Answer]{Answers: answers})
	}
	if !slices.Equal(nodes.endpoints, []string{"a:1"}) {
		t.Errorf("calls to %v ended, want those to a:1", nodes.endpoints)
	}
}

// A node that has missed two probes and announces itself as ready is not in doubt: the next round decides.
func TestProbe_LostNodeIsNotInDoubt(t *testing.T) {
	p := New(Config{}, route.NewTable(), nil, &abandoned{}, zerolog.Nop())
	node := route.Node{
		ID:       "node",
		Kind:     "thing",
		Endpoint: "a:1",
		Ready:    true,
	}
	miss := fanout.Answer[route.Node, Answer]{Node: node, Err: errors.New("no answer")}
	late := fanout.Answer[route.Node, Answer]{Node: node, Value: Undecided}
	var doubts []bool
	for _, answer := range []fanout.Answer[route.Node, Answer]{miss, late, miss, late} {
		snapshot := fanout.Snapshot[route.Node, Answer]{Answers: []fanout.Answer[route.Node, Answer]{answer}}
		doubts = append(doubts, p.apply(&snapshot))
	}
	if want := []bool{true, true, false, false}; !slices.Equal(doubts, want) {
		t.Errorf("in doubt: %v, want %v", doubts, want)
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

// The calls to a node that answers again and leaves the table continue, although it missed the probe before.
func TestProbe_NodeThatAnsweredAndLeftIsNotAbandoned(t *testing.T) {
	table, nodes := route.NewTable(), &abandoned{}
	p := New(Config{}, table, nil, nodes, zerolog.Nop())
	node := route.Node{
		ID:       "node",
		Kind:     "thing",
		Endpoint: "a:1",
		Ready:    true,
	}
	for _, answer := range []fanout.Answer[route.Node, Answer]{
		{Node: node, Err: errors.New("no answer")}, {Node: node, Value: Serving},
	} {
		p.apply(&fanout.Snapshot[route.Node, Answer]{Answers: []fanout.Answer[route.Node, Answer]{answer}})
	}
	if len(nodes.endpoints) != 0 {
		t.Errorf("calls to %v end", nodes.endpoints)
	}
}
