package breaker_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/breaker"
)

// call makes a call with an outcome, if it is let through.
func call(s *breaker.Set, endpoint string, outcome breaker.Outcome) bool {
	done, _, ok := s.Enter(endpoint)
	if ok {
		done(outcome)
		done(breaker.Answered) // only the first counts
	}
	return ok
}

func TestABreakerOpensWhenANodeStaysSilentAndClosesWhenItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet()
		for i := range 5 {
			if !call(s, "a:1", breaker.Silent) {
				t.Fatalf("call %d is not let through", i)
			}
		}
		done, wait, ok := s.Enter("a:1")
		if ok || done != nil || wait <= 0 || wait > 500*time.Millisecond || s.Open() != 1 {
			t.Fatalf("after five silent calls: let through %v, wait %v", ok, wait)
		}
		if !call(s, "b:1", breaker.Answered) {
			t.Error("another node pays for it")
		}
		time.Sleep(500 * time.Millisecond)
		probe, _, ok := s.Enter("a:1")
		if !ok {
			t.Fatal("after the pause no call is let through")
		}
		if call(s, "a:1", breaker.Answered) {
			t.Error("a second call is let through beside the first")
		}
		probe(breaker.Silent)
		time.Sleep(500 * time.Millisecond)
		if call(s, "a:1", breaker.Answered) {
			t.Error("the second pause is no longer than the first")
		}
		time.Sleep(500 * time.Millisecond)
		if !call(s, "a:1", breaker.Answered) || s.Open() != 0 {
			t.Error("an answer does not close the breaker")
		}
		for range 4 {
			call(s, "a:1", breaker.Silent)
		}
		call(s, "a:1", breaker.Answered)
		for range 4 {
			call(s, "a:1", breaker.Silent)
		}
		if !call(s, "a:1", breaker.Answered) {
			t.Error("silent calls with an answer between them open the breaker")
		}
	})
}

func TestAClientThatLeavesSaysNothingOfTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet()
		for range 50 {
			call(s, "a:1", breaker.Unknown)
		}
		if s.Open() != 0 {
			t.Error("clients that left opened the breaker")
		}
		for range 5 {
			call(s, "a:1", breaker.Silent)
		}
		time.Sleep(time.Second)
		if !call(s, "a:1", breaker.Unknown) || !call(s, "a:1", breaker.Answered) {
			t.Error("the client of the call that was let through left, and no other is let through")
		}
	})
}

func TestOneCallIsLetThroughHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet()
		for range 5 {
			call(s, "a:1", breaker.Silent)
		}
		time.Sleep(time.Second)
		var (
			group   sync.WaitGroup
			through atomic.Int64
		)
		for range 100 {
			group.Go(func() {
				if _, _, ok := s.Enter("a:1"); ok {
					through.Add(1)
				}
			})
		}
		group.Wait()
		if through.Load() != 1 {
			t.Errorf("%d calls are let through, want one", through.Load())
		}
	})
}
