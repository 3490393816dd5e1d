package aggregate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/model"
)

// exploreVariable makes explorations deeper: it is the number of faults of an interleaving.
const exploreVariable = "HEADGATE_EXPLORE"

// plannedCommand is a command that a client sends, again and again, until its outcome is known.
type plannedCommand struct {
	key, name string
	amount    int
	first     int // the node that it is sent to first
}

// simulatedClient is the progress of a client.
type simulatedClient struct {
	plan    plannedCommand
	command command
	// running is set while a node works on it; node is the node that does, or did last.
	running  bool
	node     int
	attempts int
	trace    []string // the answers of the journal in this attempt
	stale    bool     // one of them was out of date
	// outcome is set when the client knows the outcome.
	outcome string
	version int64
}

// execution is one run of the simulation from the start.
type execution struct {
	t       *testing.T
	rules   rules
	key     aggregateKey
	loaded  prometheus.Counter
	journal *journalState
	nodes   [2]*Service
	access  [2]*simulatedJournal
	starts  [2]int
	clients []*simulatedClient
	faults  int // that may still happen
	results chan simulatedResult
	over    bool
	lines   []string
}

type simulatedResult struct {
	client, node int
	decided      []decision
	err          error
}

// choice is something that may happen next.
type choice struct {
	text string
	do   func()
}

func (x *execution) start(node int) {
	x.nodes[node], x.access[node] = newNode(x.journal, x.loaded)
	x.starts[node]++
}

// send lets a client send its command to a node.
func (x *execution) send(c, node int) {
	client, service := x.clients[c], x.nodes[node]
	client.running, client.node, client.trace, client.stale = true, node, nil, false
	client.attempts++
	ctx := context.WithValue(x.t.Context(), clientKey{}, c)
	go func() {
		decided, err := service.submit(ctx, submission{key: x.key, rules: x.rules, commands: []command{client.command}})
		x.results <- simulatedResult{c, node, decided, err}
	}()
}

// settle waits until every node waits for the journal, and takes the results of attempts that have ended.
func (x *execution) settle() {
	for {
		synctest.Wait()
		select {
		case r := <-x.results:
			x.end(r)
		default:
			return
		}
	}
}

// end notes the result of an attempt, as the client gets it.
func (x *execution) end(r simulatedResult) {
	c := x.clients[r.client]
	c.running = false
	if r.err == nil {
		c.outcome, c.version = "accepted", r.decided[0].version
		return
	}
	switch code := connect.CodeOf(asConnectError(r.err)); {
	case errors.Is(r.err, errCrashed): // the client's connection ends
	case code == connect.CodeFailedPrecondition:
		c.outcome = "rejected"
	case code == connect.CodeAlreadyExists:
		c.outcome = "key reused"
	case code == connect.CodeUnavailable, code == connect.CodeAborted:
	default:
		c.outcome = fmt.Sprintf("%v: %v", code, r.err)
	}
}

const maxAttempts = 3

// choices returns what may happen next.
func (x *execution) choices() []choice {
	var all []choice
	add := func(text string, do func()) { all = append(all, choice{text, do}) }
	fault := func(text string, do func()) {
		if x.faults > 0 {
			add(text, func() {
				x.faults--
				do()
			})
		}
	}
	for n, c := range x.clients {
		if c.running || c.outcome != "" || c.attempts >= maxAttempts {
			continue
		}
		nodes := []int{c.plan.first}
		if c.attempts > 0 {
			nodes = []int{1 - c.node, c.node} // the gateway takes another node; this one may be the only one
		}
		for _, node := range nodes {
			add(
				fmt.Sprintf("client %d sends %s %d under key %s to node %d", n, c.plan.name, c.plan.amount, c.plan.key,
					node),
				func() { x.send(n, node) },
			)
		}
	}
	for _, r := range slices.Clone(x.journal.requests) {
		c := x.clients[r.client]
		who := fmt.Sprintf("node %d, for client %d: %s", c.node, r.client, r.name)
		add(who, func() { x.answer(r, 0, true) })
		if r.name == "append" {
			fault(who+", which may arrive later, and its answer never does", func() {
				x.take(r)
				r.leave()
				x.reply(r, x.early())
			})
			fault(who+" is executed, and its answer is lost", func() { x.answer(r, 0, false) })
		} else {
			if len(x.journal.events) > 1 {
				fault(who+" by a server that lost the leadership one event ago", func() { x.answer(r, 1, true) })
			}
			fault(who+" fails", func() {
				x.take(r)
				x.reply(r, errNoAnswer)
			})
		}
	}
	for n := range x.journal.late {
		l := x.journal.late[n]
		add("the late append of "+l.key+" arrives", func() {
			x.journal.late = slices.Delete(x.journal.late, n, n+1)
			_, _ = x.journal.append(l)
		})
	}
	for n := range x.nodes {
		if slices.ContainsFunc(x.clients, func(c *simulatedClient) bool { return c.running && c.node == n }) {
			fault(fmt.Sprintf("node %d crashes and starts again", n), func() {
				close(x.access[n].crashed)
				x.settle()
				x.start(n)
			})
		}
	}
	if len(x.journal.recent) > 0 {
		fault("the deduplication window passes", func() { clear(x.journal.recent) })
	}
	return all
}

func (x *execution) take(r *request) {
	x.journal.requests = slices.DeleteFunc(x.journal.requests, func(other *request) bool { return other == r })
}

// answer executes a request; its answer reaches the node or is lost.
func (x *execution) answer(r *request, stale int, reaches bool) {
	x.take(r)
	err := r.execute(stale)
	if stale > 0 {
		x.clients[r.client].stale = true
	}
	if !reaches {
		err = errNoAnswer
	}
	x.reply(r, err)
}

// early is the answer to an append that the journal does not have yet.
func (x *execution) early() error {
	if x.journal.flaw == flawAcknowledged {
		return nil
	}
	return errNoAnswer
}

func (x *execution) reply(r *request, err error) {
	c := x.clients[r.client]
	c.trace = append(c.trace, fmt.Sprintf("%s %d %v %v", r.name, len(x.journal.events), c.stale, err))
	r.answer <- err
}

// describe returns the state of the execution: two with equal ones have equal futures.
func (x *execution) describe() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s faults %d", x.journal.describe(), x.faults)
	for n, node := range x.nodes {
		if i, ok := node.cache.Get(x.key); ok {
			fmt.Fprintf(&out, " node %d: %d %d", n, i.version, i.sequence)
		}
	}
	for _, c := range x.clients {
		fmt.Fprintf(&out, " %v %d %d %v %s %d", c.running, c.node, c.attempts, c.trace, c.outcome, c.version)
	}
	return out.String()
}

// wrong returns the invariant that does not hold, "" if all do.
func (x *execution) wrong() string {
	effects, balance := map[string]int{}, 0
	for n, event := range x.journal.events {
		if event.Version != int64(n+1) {
			return fmt.Sprintf("versions have no gaps: event %d has version %d", n+1, event.Version)
		}
		if key := event.Command.IdempotencyKey; key != "" {
			if effects[key]++; effects[key] > 1 {
				return "a command under an idempotency key takes effect once: " + key
			}
		}
		var amount int
		_, _ = fmt.Sscanf(string(event.Data), `{"amount":%d`, &amount)
		switch event.Type {
		case "deposited":
			balance += amount
		case "withdrawn":
			balance -= amount
		}
		if balance < 0 {
			return "a command is decided on the state that its events follow: the balance is negative"
		}
	}
	for n, c := range x.clients {
		stored := slices.ContainsFunc(x.journal.events, func(e journal.Event) bool {
			return e.Command.Fingerprint == c.command.ref.Fingerprint &&
				(c.outcome != "accepted" || e.Version == c.version)
		})
		switch c.outcome {
		case "", "accepted":
			if c.outcome != "" && !stored {
				return fmt.Sprintf(
					"an acknowledged command is in the journal, at its answer's version: client %d, version %d",
					n, c.version,
				)
			}
		case "rejected", "key reused":
			if stored && !c.stale {
				return fmt.Sprintf("a rejected command has no effect: client %d", n)
			}
		default:
			return fmt.Sprintf("client %d gets %s", n, c.outcome)
		}
	}
	return ""
}

// stuck returns the client that never gets an answer, once nothing can happen any more.
func (x *execution) stuck() string {
	for n, c := range x.clients {
		if c.running {
			return fmt.Sprintf("every call ends: client %d's does not", n)
		}
	}
	return ""
}

// submitExplorer visits the states of executions, depth first. A state is reached again by repeating its choices.
type submitExplorer struct {
	plans  []plannedCommand
	faults int
	flaw   flaw
	models *model.Registry
	seen   map[string]bool
	runs   int
}

// explore visits all states, and returns the broken invariant with the trace to it, "" for none.
func (e *submitExplorer) explore(t *testing.T) (broken string) {
	e.seen = map[string]bool{}
	synctest.Test(t, func(t *testing.T) {
		for open := [][]int{nil}; len(open) > 0 && broken == ""; {
			path := open[len(open)-1]
			open = open[:len(open)-1]
			x := e.execution(t)
			e.runs++
			for depth := 0; ; depth++ {
				x.settle()
				choices := x.choices()
				if depth >= len(path) {
					state := x.describe()
					if e.seen[state] {
						break
					}
					e.seen[state] = true
				}
				rule := x.wrong()
				if len(choices) == 0 && rule == "" {
					if rule = x.stuck(); strings.Contains(rule, "does not") && x.waits() {
						time.Sleep(recheckInterval) // only time must pass
						continue
					}
				}
				if rule != "" {
					broken = fmt.Sprintf("%s\n%s", rule, strings.Join(x.lines, "\n"))
					break
				}
				if len(choices) == 0 {
					break
				}
				next := 0
				if depth < len(path) {
					next = path[depth]
				} else {
					for other := len(choices) - 1; other > 0; other-- {
						open = append(open, append(slices.Clone(path), other))
					}
					path = append(slices.Clone(path), 0)
				}
				x.lines = append(x.lines, fmt.Sprintf("%3d: %s", depth+1, choices[next].text))
				choices[next].do()
			}
			x.stop()
		}
	})
	return broken
}

// waits reports whether a node waits for time to pass; it cannot wait forever, since its rechecks are bounded.
func (x *execution) waits() bool { return len(x.journal.requests) == 0 && !x.over && x.rechecks() }

// rechecks counts the waits of an execution.
func (x *execution) rechecks() bool {
	x.lines = append(x.lines, "     time passes")
	return len(x.lines) < 200
}

// stop ends the calls that are under way.
func (x *execution) stop() {
	x.over = true
	for _, j := range x.access {
		close(j.crashed)
	}
	for {
		x.settle()
		if !slices.ContainsFunc(x.clients, func(c *simulatedClient) bool { return c.running }) {
			return
		}
		time.Sleep(recheckInterval)
	}
}

// execution returns a new execution: an open wallet, and two nodes that have just started.
func (e *submitExplorer) execution(t *testing.T) *execution {
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	by, err := rulesOf(e.models.Current(), "wallet")
	if err != nil {
		t.Fatal(err)
	}
	x := &execution{
		t:      t,
		rules:  by,
		key:    aggregateKey{tenant, "wallet", "w"},
		loaded: prometheus.NewCounter(prometheus.CounterOpts{Name: "loaded"}),
		faults: e.faults,
		journal: &journalState{
			flaw:   e.flaw,
			recent: map[string]bool{},
			events: []journal.Event{{
				ID: "opened", Type: "opened", AggregateType: "wallet", AggregateID: "w", Version: 1, Sequence: 1,
				DataVersion: 1,
				Data:        []byte(`{"owner":"ada"}`), Time: time.Now(),
			}},
		},
		results: make(chan simulatedResult, len(e.plans)),
	}
	for n := range x.nodes {
		x.start(n)
	}
	for _, plan := range e.plans {
		payload, err := structpb.NewStruct(map[string]any{"amount": plan.amount})
		if err != nil {
			t.Fatal(err)
		}
		_, c, err := prepare(e.models.Current(), &aggregatev1.SubmitRequest{
			AggregateType:  "wallet",
			AggregateId:    "w",
			Command:        plan.name,
			Payload:        payload,
			IdempotencyKey: plan.key,
		})
		if err != nil {
			t.Fatal(err)
		}
		x.clients = append(x.clients, &simulatedClient{plan: plan, command: c})
	}
	return x
}

func newSubmitExplorer(t *testing.T, faults int, flaw flaw, plans ...plannedCommand) *submitExplorer {
	t.Helper()
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	return &submitExplorer{
		plans:  plans,
		faults: faults,
		flaw:   flaw,
		models: models,
	}
}

// The commands of the explorations: one that two clients send to two nodes under one key, one that the model accepts
// only after it, and another one under its key.
var (
	depositHere  = plannedCommand{"a", "deposit", 1, 0}
	depositThere = plannedCommand{"a", "deposit", 1, 1}
	withdraw     = plannedCommand{"b", "withdraw", 1, 1}
	reuse        = plannedCommand{"a", "deposit", 2, 1}
)

// TestSubmit_EveryInterleavingOfTwoNodes explores every interleaving of the requests of two nodes to the journal, with
// a crash of a node, a lost answer, an append that arrives late, a failed read, a read from a server that has lost the
// leadership and the end of JetStream's deduplication window at every step, up to a number of them. The nodes are the
// real Service; what is simulated is JetStream. The invariants are named in docs/guarantees.md.
func TestSubmit_EveryInterleavingOfTwoNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs thousands of executions")
	}
	faults := 1
	if n, err := strconv.Atoi(os.Getenv(exploreVariable)); err == nil {
		faults = n
	}
	for name, plans := range map[string][]plannedCommand{
		"command sent twice, and a command that depends on it": {depositHere, depositThere, withdraw},
		"two commands under one key":                           {depositHere, reuse},
	} {
		t.Run(name, func(t *testing.T) {
			e := newSubmitExplorer(t, faults, flawNone, plans...)
			if broken := e.explore(t); broken != "" {
				t.Errorf("broken: %s", broken)
			}
			t.Logf("%d faults: %d states, %d executions", faults, len(e.seen), e.runs)
		})
	}
}

// The exploration finds flaws of the transitions, with a trace.
func TestSubmit_ExplorationFindsFlaws(t *testing.T) {
	if testing.Short() {
		t.Skip("it visits thousands of states in one goroutine")
	}
	for flaw, invariant := range map[flaw]string{
		flawKeysForgotten: "a rejected command has no effect",
		flawUnconditional: "versions have no gaps",
		flawAcknowledged:  "an acknowledged command is in the journal",
	} {
		t.Run(string(flaw), func(t *testing.T) {
			e := newSubmitExplorer(t, 2, flaw, depositHere, depositThere, withdraw)
			broken := e.explore(t)
			if broken == "" {
				t.Fatalf("no violation found in %d states", len(e.seen))
			}
			t.Logf("found: %s", broken)
			if !strings.Contains(broken, invariant) {
				t.Errorf("found, but not %s", invariant)
			}
		})
	}
}
