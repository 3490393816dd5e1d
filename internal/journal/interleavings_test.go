package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// groupedAppend is an append of the exploration, of a separate aggregate; a wrong one is of an aggregate that has
// changed.
type groupedAppend struct {
	name   string
	wrong  bool // the expected sequence is not the last one
	cancel context.CancelFunc
	left   bool // its caller has left
	result *committed
}

// publishing is a publication that the simulated server has not answered yet.
type publishing struct {
	messages []*nats.Msg
	answer   chan committed
}

// groupExecution is one run of the committer with a simulated server.
type groupExecution struct {
	committer *committer
	appends   []*groupedAppend
	waiting   []*publishing
	arrived   chan *publishing
	results   chan groupResult
	stored    []string // the journal
	faults    int
	flaw      string
	lines     []string
}

type groupResult struct {
	which  int
	result committed
}

func newGroupExecution(appends []groupedAppend, faults int, flaw string) *groupExecution {
	x := &groupExecution{
		arrived: make(chan *publishing, 2*len(appends)),
		results: make(chan groupResult, len(appends)),
		faults:  faults,
		flaw:    flaw,
	}
	x.committer = &committer{
		maxAlone: 1,
		minGroup: 2,
		grouped:  func(int) {},
		publish: func(_ context.Context, messages []*nats.Msg) committed {
			p := &publishing{messages, make(chan committed, 1)}
			x.arrived <- p
			return <-p.answer
		},
	}
	for n := range appends {
		one := appends[n]
		x.appends = append(x.appends, &one)
	}

	return x
}

func (x *groupExecution) start(ctx context.Context, which int) {
	one := x.appends[which]
	ctx, one.cancel = context.WithCancel(ctx)
	go func() {
		x.results <- groupResult{
			which, x.committer.commit(ctx, []*nats.Msg{{Subject: one.name, Header: nats.Header{}}}),
		}
	}()
}

// settle waits until everything waits for the server or a caller.
func (x *groupExecution) settle() {
	for {
		synctest.Wait()
		select {
		case p := <-x.arrived:
			x.waiting = append(x.waiting, p)
		case r := <-x.results:
			x.appends[r.which].result = &r.result
		default:
			return
		}
	}
}

func (x *groupExecution) of(name string) *groupedAppend {
	at := slices.IndexFunc(x.appends, func(a *groupedAppend) bool { return a.name == name })
	return x.appends[at]
}

// store does what the server does with a publication: all of it or none.
func (x *groupExecution) store(messages []*nats.Msg) committed {
	for _, msg := range messages {
		if x.of(msg.Subject).wrong {
			return committed{err: &jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}}
		}
	}
	for _, msg := range messages {
		x.stored = append(x.stored, msg.Subject)
	}
	return committed{last: uint64(len(x.stored))}
}

var errLost = errors.New("no acknowledgement")

// choices returns what may happen next.
func (x *groupExecution) choices(ctx context.Context) (texts []string, do []func()) {
	add := func(text string, f func()) { texts, do = append(texts, text), append(do, f) }
	for n, one := range x.appends {
		switch {
		case one.cancel == nil:
			add("the append of "+one.name+" begins", func() { x.start(ctx, n) })
		case one.result == nil && !one.left && x.faults > 0:
			add("the caller of "+one.name+" leaves", func() {
				x.faults--
				one.left = true
				one.cancel()
			})
		}
	}
	for _, p := range slices.Clone(x.waiting) {
		var names []string
		for _, msg := range p.messages {
			names = append(names, msg.Subject)
		}
		text := "the server gets " + strings.Join(names, ", ")
		answer := func(answer func() committed) func() {
			return func() {
				x.waiting = slices.DeleteFunc(x.waiting, func(other *publishing) bool { return other == p })
				p.answer <- answer()
			}
		}
		add(text, answer(func() committed { return x.store(p.messages) }))
		if x.faults > 0 {
			add(text+", and its answer is lost", answer(func() committed {
				x.faults--
				x.store(p.messages)
				if x.flaw == "refused" {
					return committed{err: &jetstream.APIError{Code: 503, ErrorCode: 10008}}
				}
				return committed{err: errLost}
			}))
			add(text+" is lost", answer(func() committed {
				x.faults--
				if x.flaw == "stored" {
					return committed{last: uint64(len(x.stored)) + uint64(len(p.messages))}
				}
				return committed{err: errLost}
			}))
		}
	}
	return texts, do
}

// wrong returns the invariant that does not hold, "" if all do.
func (x *groupExecution) wrong() string {
	for _, one := range x.appends {
		count := 0
		at := uint64(0)
		for n, name := range x.stored {
			if name == one.name {
				count++
				at = uint64(n) + 1
			}
		}
		var refusal jetstream.JetStreamError
		switch {
		case count > 1:
			return "an append is stored once: " + one.name
		case one.result == nil:
		case one.result.err == nil && (count != 1 || one.result.last != at):
			return fmt.Sprintf("an acknowledged append is stored, at its sequence: %s, at %d, acknowledged %d",
				one.name, at, one.result.last)
		case errors.As(one.result.err, &refusal) && count > 0:
			return "of a refused append nothing is stored: " + one.name
		case errors.As(one.result.err, &refusal) && !one.wrong:
			return "an append is refused only for its own fault: " + one.name
		case errors.Is(one.result.err, context.Canceled) && count > 0:
			return "an append whose caller left before it was sent is not stored: " + one.name
		}
	}
	return ""
}

// exploreGroups visits every interleaving, and returns the broken invariant with its trace, "" for none.
func exploreGroups(t *testing.T, faults int, flaw string, appends ...groupedAppend) (broken string, runs int) {
	synctest.Test(t, func(t *testing.T) {
		for open := [][]int{nil}; len(open) > 0 && broken == ""; runs++ {
			path := open[len(open)-1]
			open = open[:len(open)-1]
			ctx, cancel := context.WithCancel(t.Context())
			x := newGroupExecution(appends, faults, flaw)
			for depth := 0; ; depth++ {
				x.settle()
				texts, do := x.choices(ctx)
				rule := x.wrong()
				if rule == "" && len(do) == 0 &&
					slices.ContainsFunc(x.appends, func(a *groupedAppend) bool { return a.result == nil }) {
					rule = "every append ends"
				}
				if rule != "" {
					broken = rule + "\n" + strings.Join(x.lines, "\n")
				}
				if rule != "" || len(do) == 0 {
					break
				}
				next := 0
				if depth < len(path) {
					next = path[depth]
				} else {
					for other := len(do) - 1; other > 0; other-- {
						open = append(open, append(slices.Clone(path), other))
					}
					path = append(slices.Clone(path), 0)
				}
				x.lines = append(x.lines, fmt.Sprintf("%3d: %s", depth+1, texts[next]))
				do[next]()
			}
			cancel()
			for x.settle(); len(x.waiting) > 0; x.settle() {
				x.waiting[0].answer <- committed{err: errLost}
				x.waiting = x.waiting[1:]
			}
		}
	})
	return broken, runs
}

// TestCommit_EveryInterleavingOfAGroup explores the committer: every order in which appends begin, the server answers,
// callers leave, and publications or their answers are lost.
func TestCommit_EveryInterleavingOfAGroup(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs thousands of executions, one step at a time")
	}
	for name, appends := range map[string][]groupedAppend{
		"valid appends":           {{name: "a"}, {name: "b"}, {name: "c"}},
		"one wrong last sequence": {{name: "a"}, {name: "b", wrong: true}, {name: "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			broken, runs := exploreGroups(t, 1, "", appends...)
			if broken != "" {
				t.Errorf("broken: %s", broken)
			}
			t.Logf("%d executions", runs)
		})
	}
}

// The exploration finds flaws, with a trace.
func TestCommit_ExplorationFindsFlaws(t *testing.T) {
	for flaw, invariant := range map[string]string{
		"refused": "stored once", // a lost answer is taken for a refusal
		"stored":  "an acknowledged append is stored",
	} {
		t.Run(flaw, func(t *testing.T) {
			broken, runs := exploreGroups(t, 1, flaw, groupedAppend{name: "a"}, groupedAppend{name: "b"},
				groupedAppend{name: "c"})
			if !strings.Contains(broken, invariant) {
				t.Errorf("after %d executions: %q, want %q", runs, broken, invariant)
			}
			t.Log(broken)
		})
	}
}
