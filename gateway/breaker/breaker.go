// Package breaker stops calling a node that does not answer: calls fail at once
// instead of waiting for their deadlines, and the node is not buried while it
// recovers.
//
// A breaker opens after consecutive calls without an answer, lets one call
// through after a while, and closes when that is answered. An answer of any kind,
// also a refusal, is an answer.
package breaker

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Outcome is how a call ended, as far as its node is concerned.
type Outcome int

// Outcomes.
const (
	// Answered: the node said something.
	Answered Outcome = iota
	// Silent: the node could not be reached, or let the deadline pass.
	Silent
	// Unknown: the call ended for another reason, such as that the client left.
	Unknown
)

const (
	// threshold is how many calls in a row must stay without an answer.
	threshold = 5
	// A breaker is open for firstPause, and twice as long each time that the
	// call let through stays without an answer, up to longestPause; a quarter is
	// jitter, so that gateways do not come back together.
	firstPause, longestPause = 500 * time.Millisecond, 30 * time.Second
	// trackedEndpoints bounds the endpoints whose breaker is known.
	trackedEndpoints = 4096
)

// Set holds the breakers of all endpoints. It may be used concurrently.
type Set struct {
	mu     sync.Mutex
	states map[string]*state
}

// state is a breaker; the zero value is closed.
type state struct {
	silent int // calls in a row without an answer
	pause  time.Duration
	until  time.Time // open until then; zero while closed
	trying bool      // a call was let through and has not ended
}

// NewSet returns breakers that are all closed.
func NewSet() *Set { return &Set{states: map[string]*state{}} }

// Enter asks to call the endpoint. done must be called once with how the call
// ended. ok is false when the breaker is open; wait is then how long until a call
// is let through.
func (s *Set) Enter(endpoint string) (done func(Outcome), wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, known := s.states[endpoint]
	if !known {
		if len(s.states) >= trackedEndpoints {
			clear(s.states) // nodes have come and gone; all start closed
		}
		b = &state{}
		s.states[endpoint] = b
	}
	if !b.until.IsZero() {
		if wait := time.Until(b.until); wait > 0 {
			return nil, wait, false
		}
		if b.trying {
			return nil, firstPause, false
		}
		b.trying = true
	}
	var once sync.Once
	return func(outcome Outcome) { once.Do(func() { s.ended(b, outcome) }) }, 0, true
}

func (s *Set) ended(b *state, outcome Outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wasOpen := !b.until.IsZero()
	switch outcome {
	case Answered:
		*b = state{}
	case Unknown:
		b.trying = false
	case Silent:
		b.silent++
		// Calls that began before the breaker opened do not open it further.
		if (wasOpen && b.trying) || (!wasOpen && b.silent >= threshold) {
			b.trying = false
			b.pause = min(max(2*b.pause, firstPause), longestPause)
			b.until = time.Now().Add(b.pause - rand.N(b.pause/4))
		}
	}
}

// Open returns how many breakers are open.
func (s *Set) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := 0
	for _, b := range s.states {
		if !b.until.IsZero() {
			open++
		}
	}
	return open
}
