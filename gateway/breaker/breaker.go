// Package breaker stops calling a node that does not answer, or that is much
// slower than its peers: calls go elsewhere or fail at once instead of waiting
// for their deadlines, and the node is not buried while it recovers.
//
// A breaker opens after consecutive calls without an answer, or when its node's
// answers take several times as long as those of its peers; it lets one call
// through after a while, and closes when that is answered. An answer of any
// kind, also a refusal, is an answer.
package breaker

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/chassis/config"
)

// Outcome is how a call ended, as far as its node is concerned.
type Outcome int

// Outcomes.
const (
	// Answered: the node said something.
	Answered Outcome = iota
	// Silent: the node could not be reached, let the deadline pass, or says that it
	// cannot serve.
	Silent
	// Unknown: the call ended for another reason, such as that the client left.
	Unknown
)

// Config says when breakers open. The zero value is the default.
type Config struct {
	// Failures is how many calls in a row must stay without an answer. 0: 5.
	Failures int `yaml:"failures"`
	// SlowFactor is how many times slower than the median of its peers a node
	// must be. 0: 5.
	SlowFactor float64 `yaml:"slow_factor"`
	// SlowFloor is the latency below which no node is slow. 0: 200 ms.
	SlowFloor time.Duration `yaml:"slow_floor"`
	// FirstPause is how long a breaker is open at first, and LongestPause at
	// most: it doubles each time that the call let through stays without an
	// answer. 0: 500 ms and 30 s.
	FirstPause   time.Duration `yaml:"first_pause"`
	LongestPause time.Duration `yaml:"longest_pause"`
	// PanicShare is the share of a kind's nodes that may be open: beyond it the
	// fault is more likely ours or everybody's, and breakers are ignored. It
	// holds from three nodes on. 0: a half.
	PanicShare float64 `yaml:"panic_share"`
}

// Validate names the fields that cannot be used.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("failures", c.Failures, 0),
		config.AtLeast("slow_floor", c.SlowFloor, 0),
		config.AtLeast("first_pause", c.FirstPause, 0),
		config.AtLeast("longest_pause", c.LongestPause, 0),
		config.AtLeast("slow_factor", c.WithDefaults().SlowFactor, 1),
		config.Within("panic_share", c.PanicShare, 0, 1),
	)
}

// WithDefaults returns the configuration with what was left out.
func (c Config) WithDefaults() Config {
	if c.Failures == 0 {
		c.Failures = 5
	}
	if c.SlowFactor == 0 {
		c.SlowFactor = 5
	}
	if c.SlowFloor == 0 {
		c.SlowFloor = 200 * time.Millisecond
	}
	if c.FirstPause == 0 {
		c.FirstPause = 500 * time.Millisecond
	}
	if c.LongestPause == 0 {
		c.LongestPause = max(30*time.Second, c.FirstPause)
	}
	if c.PanicShare == 0 {
		c.PanicShare = 0.5
	}
	return c
}

const (
	// trackedEndpoints bounds the endpoints whose breaker is known.
	trackedEndpoints = 4096
	// panicFrom is the least number of nodes among which a share means anything,
	// and of peers that have a median.
	panicFrom = 3
	// slowSamples is how many answers a node's latency is judged by, at least,
	// and latencyWeight what each new one counts.
	slowSamples   = 20
	latencyWeight = 0.1
)

// Set holds the breakers of all endpoints. It may be used concurrently; calls on
// different endpoints do not meet.
type Set struct {
	config Config
	states sync.Map // endpoint → *state
	count  atomic.Int64
}

// state is an endpoint's breaker.
type state struct {
	kind string
	// openUntil is when a call is let through again, in Unix nanoseconds; 0 while
	// closed. It is written under mu.
	openUntil atomic.Int64

	mu      sync.Mutex
	opened  time.Time // the last time
	silent  int       // calls in a row without an answer
	pause   time.Duration
	trying  bool // a call was let through and has not ended
	latency float64
	samples int
}

// NewSet returns breakers that are all closed.
func NewSet(config Config) *Set { return &Set{config: config.WithDefaults()} }

// Pass is a call that was let through.
type Pass struct {
	set   *Set
	state *state
	began time.Time
	trial bool // the one that was let through while the breaker is open
}

// Enter asks to call the endpoint, a node of the kind, now. Done of the pass must be
// called once. ok is false when the breaker is open; wait is then how long until
// a call is let through. forced lets the call through all the same.
func (s *Set) Enter(kind, endpoint string, now time.Time, forced bool) (pass Pass, wait time.Duration, ok bool) {
	b := s.state(kind, endpoint)
	trial := false
	if b.openUntil.Load() != 0 && !forced {
		b.mu.Lock()
		defer b.mu.Unlock()
		if until := b.openUntil.Load(); until != 0 {
			if wait := time.Duration(until - now.UnixNano()); wait > 0 {
				return Pass{}, wait, false
			}
			if b.trying {
				return Pass{}, s.config.FirstPause, false
			}
			b.trying, trial = true, true
		}
	}
	return Pass{s, b, now, trial}, 0, true
}

func (s *Set) state(kind, endpoint string) *state {
	if b, ok := s.states.Load(endpoint); ok {
		return b.(*state)
	}
	if s.count.Load() >= trackedEndpoints {
		s.states.Clear() // nodes have come and gone; all start closed
		s.count.Store(0)
	}
	b, known := s.states.LoadOrStore(endpoint, &state{kind: kind})
	if !known {
		s.count.Add(1)
	}
	return b.(*state)
}

// Open reports whether a call on the endpoint would not be let through now.
func (s *Set) Open(endpoint string) bool {
	found, ok := s.states.Load(endpoint)
	if !ok {
		return false
	}
	b := found.(*state)
	until := b.openUntil.Load()
	if until == 0 {
		return false
	}
	if time.Now().UnixNano() < until {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trying
}

// Panics reports whether so many of the endpoints are open that breakers say
// more of us than of them.
func (s *Set) Panics(endpoints []string) bool {
	if len(endpoints) < panicFrom {
		return false
	}
	open := 0
	for _, endpoint := range endpoints {
		if s.Open(endpoint) {
			open++
		}
	}
	return float64(open) > s.config.PanicShare*float64(len(endpoints))
}

// Done says how the call ended, and reports whether that has opened the breaker, or would
// have if it were not open for slowness alone: then its node has fallen silent too.
func (p Pass) Done(outcome Outcome) (opened bool) {
	b, config := p.state, &p.set.config
	b.mu.Lock()
	defer b.mu.Unlock()
	open := b.openUntil.Load() != 0
	switch outcome {
	case Answered:
		if p.began.Before(b.opened) {
			return false // it says nothing of the node as it is since, and must not close what its own slowness opened
		}
		took := float64(time.Since(p.began))
		if open {
			b.close()
		}
		b.silent = 0
		b.samples++
		if b.samples == 1 {
			b.latency = took
		} else {
			b.latency += latencyWeight * (took - b.latency)
		}
		// Once in slowSamples answers, since it looks at all peers.
		if b.samples >= slowSamples && b.samples%slowSamples == 0 && b.latency > float64(config.SlowFloor) {
			if median, ok := p.set.peers(b); ok && b.latency > config.SlowFactor*median {
				b.open(config)
				b.samples, b.latency = 0, 0 // judged anew when it is back
				return true
			}
		}
	case Unknown:
		b.trying = b.trying && !p.trial
	case Silent:
		b.silent++
		// Calls that began before the breaker opened do not open it further.
		if (open && p.trial) || (!open && b.silent >= config.Failures) {
			b.open(config)
			return true
		}
		return open && b.silent == config.Failures // slowness has opened it
	}
	return false
}

// open opens the breaker for a pause, a quarter of which is jitter, so that
// gateways do not come back together. b.mu is held.
func (b *state) open(config *Config) {
	b.trying, b.opened = false, time.Now()
	b.pause = min(max(2*b.pause, config.FirstPause), config.LongestPause)
	b.openUntil.Store(time.Now().Add(b.pause - rand.N(b.pause/4+1)).UnixNano())
}

// close closes the breaker. b.mu is held.
func (b *state) close() {
	b.trying, b.pause, b.silent = false, 0, 0
	b.openUntil.Store(0)
}

// peers returns the median latency of the kind's other nodes, if enough are
// known. own.mu is held; a peer that is being written to is left out rather than
// waited for.
func (s *Set) peers(own *state) (float64, bool) {
	var latencies []float64
	s.states.Range(func(_, value any) bool {
		b := value.(*state)
		if b == own || b.kind != own.kind || !b.mu.TryLock() {
			return true
		}
		if b.samples > 0 && b.openUntil.Load() == 0 {
			latencies = append(latencies, b.latency)
		}
		b.mu.Unlock()
		return true
	})
	if len(latencies) < panicFrom-1 {
		return 0, false
	}
	slices.Sort(latencies)
	return latencies[len(latencies)/2], true
}

// State is what is known of an endpoint.
type State struct {
	Kind, Endpoint string
	Open           bool
	// Silent counts the calls in a row without an answer.
	Silent int
	// Latency is a moving mean of the time to an answer; 0: not known.
	Latency time.Duration
}

// States returns all endpoints' states.
func (s *Set) States() []State {
	var out []State
	s.states.Range(func(endpoint, value any) bool {
		b := value.(*state)
		b.mu.Lock()
		defer b.mu.Unlock()
		out = append(out, State{b.kind, endpoint.(string), b.openUntil.Load() != 0, b.silent, time.Duration(b.latency)})
		return true
	})
	return out
}
