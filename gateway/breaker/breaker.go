// Package breaker implements the circuit breakers between the gateway and its nodes. They divert calls from failing
// nodes: the calls go to another node, or fail immediately instead of waiting for their deadlines, and a recovering
// node is not overloaded.
//
// Each node has a breaker, which opens after consecutive calls that do not reach the node or that the node refuses.
// Each method of a node has a further breaker, which opens after consecutive calls that exceed the deadline of the
// method's policy while no call of the method is answered, and when the method's answers take several times as long as
// those of the node's peers. Deadlines that clients choose do not count.
//
// A breaker that opens because of one tenant's calls only rejects this tenant. It rejects all tenants when calls of a
// second tenant fail too, or when the node cannot be reached.
//
// An open breaker becomes half-open after a pause: it admits a trial call. It closes when a call that began after it
// opened is answered. A trial without a result does not delay the next one.
package breaker

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// Outcome is the outcome of a call with respect to its node.
type Outcome int

// Outcomes of calls.
const (
	// Answered: the node answered, with a message or an error.
	Answered Outcome = iota
	// Unreached: no connection to the node could be established.
	Unreached
	// Refused: the node answered UNAVAILABLE, or the connection was lost during the call.
	Refused
	// TimedOut: the call exceeded the deadline of the method's policy.
	TimedOut
	// Unknown: the call ended for another reason, such as a client that disconnected or a deadline
	// that the client chose.
	Unknown
)

const (
	// trackedNodes bounds the breakers of nodes, and trackedMethods the breakers of methods per node.
	trackedNodes   = 4096
	trackedMethods = 4096
	// panicMinNodes is the minimum number of nodes for which the panic share applies, and of peers for which a median
	// is computed.
	panicMinNodes = 3
)

// Set contains the breakers of all nodes. It is safe for concurrent use; calls of different nodes do not contend.
type Set struct {
	config Config
	mu     sync.Mutex                       // held to replace nodes
	nodes  atomic.Pointer[map[string]*node] // by endpoint
}

// node contains the breakers of a node.
type node struct {
	kind    contextkit.Kind
	whole   breaker
	mu      sync.Mutex                         // held to replace methods
	methods atomic.Pointer[map[string]*method] // by procedure
}

// method is the breaker of a method of a node.
type method struct {
	breaker

	procedure string
	times     latencies // guarded by breaker.mu
}

// NewSet returns a set in which all breakers are closed.
func NewSet(config Config) *Set {
	s := &Set{config: config.WithDefaults()}
	s.nodes.Store(&map[string]*node{})
	return s
}

// Call identifies an upstream call.
type Call struct {
	// Kind and Endpoint identify the node, and Procedure the method.
	Kind                contextkit.Kind
	Endpoint, Procedure string
	// Tenant is the tenant of the call; zero: the platform.
	Tenant contextkit.TenantID
	// Stream reports whether the call is a stream.
	Stream bool
}

// Pass is an admitted call. Its Done must be called once.
type Pass struct {
	set     *Set
	node    *node
	method  *method
	tenant  contextkit.TenantID
	stream  bool
	entered time.Time
	// nodeTrial and methodTrial report whether the call is the trial call of an open breaker.
	nodeTrial, methodTrial bool
}

// Enter admits a call and returns its pass. If a breaker rejects the call, ok is false, and wait is the time until the
// breaker admits a trial call. With forced, the call is admitted in any state of its breakers.
func (s *Set) Enter(call *Call, now time.Time, forced bool) (pass Pass, wait time.Duration, ok bool) {
	n := s.node(call.Kind, call.Endpoint)
	pass = Pass{
		set:     s,
		node:    n,
		method:  n.method(call.Procedure),
		tenant:  call.Tenant,
		stream:  call.Stream,
		entered: now,
	}
	if forced {
		return pass, 0, true
	}
	if pass.methodTrial, wait, ok = pass.method.enter(&s.config, call.Tenant, now); !ok {
		return Pass{}, wait, false
	}
	if pass.nodeTrial, wait, ok = n.whole.enter(&s.config, call.Tenant, now); !ok {
		if pass.methodTrial {
			pass.method.withdraw(now)
		}
		return Pass{}, wait, false
	}
	return pass, 0, true
}

func (s *Set) node(kind contextkit.Kind, endpoint string) *node {
	if n := (*s.nodes.Load())[endpoint]; n != nil {
		return n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := *s.nodes.Load()
	if n := known[endpoint]; n != nil {
		return n
	}
	next := map[string]*node{}
	if len(known) < trackedNodes { // otherwise all breakers are replaced by closed ones
		next = maps.Clone(known)
	}
	n := &node{kind: kind}
	n.methods.Store(&map[string]*method{})
	next[endpoint] = n
	s.nodes.Store(&next)
	return n
}

// Retain removes the breakers of nodes whose endpoints are not in use, so that a removed node is not reported as
// failing, and a new node at its address starts with closed breakers.
func (s *Set) Retain(used func(endpoint string) bool) {
	unused := func(endpoint string, _ *node) bool { return !used(endpoint) }
	if !anyOf(*s.nodes.Load(), unused) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(*s.nodes.Load())
	maps.DeleteFunc(next, unused)
	s.nodes.Store(&next)
}

func anyOf(nodes map[string]*node, is func(string, *node) bool) bool {
	for endpoint, n := range nodes {
		if is(endpoint, n) {
			return true
		}
	}
	return false
}

func (n *node) method(procedure string) *method {
	if m := (*n.methods.Load())[procedure]; m != nil {
		return m
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	known := *n.methods.Load()
	if m := known[procedure]; m != nil {
		return m
	}
	next := map[string]*method{}
	if len(known) < trackedMethods {
		next = maps.Clone(known)
	}
	m := &method{procedure: procedure}
	next[procedure] = m
	n.methods.Store(&next)
	return m
}

// Open reports whether the breakers would now reject a tenant's call of the method at the endpoint; with the procedure
// "", whether the node's breaker would reject the tenant's calls of all methods.
func (s *Set) Open(endpoint, procedure string, tenant contextkit.TenantID) bool {
	n := (*s.nodes.Load())[endpoint]
	if n == nil {
		return false
	}
	m := (*n.methods.Load())[procedure]
	if n.whole.closed() && (m == nil || m.closed()) {
		return false // the usual case; the clock is not read
	}
	now := time.Now()
	return n.whole.refuses(&s.config, tenant, now) || m != nil && m.refuses(&s.config, tenant, now)
}

// Panics reports whether the breakers of more than the panic share of the endpoints reject the tenant's calls of the
// method: the nodes are then probably not at fault.
func (s *Set) Panics(endpoints []string, procedure string, tenant contextkit.TenantID) bool {
	if len(endpoints) < panicMinNodes {
		return false
	}
	open := 0
	for _, endpoint := range endpoints {
		if s.Open(endpoint, procedure, tenant) {
			open++
		}
	}
	return float64(open) > s.config.PanicShare*float64(len(endpoints))
}

// Done reports the outcome of the call.
func (p *Pass) Done(outcome Outcome) {
	now := p.entered.Add(time.Since(p.entered)) // cheaper than reading the wall clock
	ofNode, ofMethod := Unknown, Unknown
	switch outcome {
	case Answered:
		p.answered(now)
		return
	case Unreached, Refused:
		ofNode = outcome
	case TimedOut:
		ofMethod = outcome
	}
	p.node.whole.failed(&p.set.config, p, ofNode, p.nodeTrial, now)
	p.method.failed(&p.set.config, p, ofMethod, p.methodTrial, now)
}

// answered records an answer, and opens the method's breaker if the node is slow. The latency of streams is not
// measured.
func (p *Pass) answered(now time.Time) {
	took := now.Sub(p.entered)
	if p.stream {
		took = 0
	}
	p.node.whole.mu.Lock()
	p.node.whole.answered(p.entered, took, now)
	p.node.whole.mu.Unlock()
	m := p.method
	m.mu.Lock()
	judge := m.answered(p.entered, took, now) && took > 0 && m.times.add(p.tenant, took)
	m.mu.Unlock()
	if judge {
		p.judge(now)
	}
}

// State is the state of the breaker of a node, or of one of its methods.
type State struct {
	Kind     contextkit.Kind
	Endpoint string
	// Procedure is the method; "": the node as a whole.
	Procedure string
	// Open reports whether calls are rejected: if Single is set, only those of Tenant.
	Open, Single bool
	Tenant       contextkit.TenantID
	// Failures counts consecutive failed calls.
	Failures int
	// Latency is a moving average of the latency; 0: unknown.
	Latency time.Duration
}

// States returns the states of the breakers of all nodes, and of the methods that have been called.
func (s *Set) States() []State {
	var out []State
	for endpoint, n := range *s.nodes.Load() {
		out = append(out, n.whole.state(n.kind, endpoint, ""))
		for procedure, m := range *n.methods.Load() {
			out = append(out, m.state(n.kind, endpoint, procedure))
		}
	}
	return out
}
