package breaker_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/breaker"
)

// enter requests the admission of a platform's unary call.
func enter(s *breaker.Set, endpoint string) (breaker.Pass, time.Duration, bool) {
	return s.Enter(&breaker.Call{Kind: "node", Endpoint: endpoint, Procedure: "/s/M"}, time.Now(), false)
}

// call makes a call with an outcome, if it is admitted.
func call(s *breaker.Set, endpoint string, outcome breaker.Outcome) bool {
	pass, _, ok := enter(s, endpoint)
	if ok {
		pass.Done(outcome)
	}
	return ok
}

// by makes a tenant's call with an outcome after a delay, if it is admitted.
func by(
	s *breaker.Set, tenant contextkit.TenantID, procedure string, took time.Duration, outcome breaker.Outcome,
) bool {
	pass, _, ok := s.Enter(&breaker.Call{
		Kind:      "node",
		Endpoint:  "a:1",
		Procedure: procedure,
		Tenant:    tenant,
	}, time.Now(), false)
	if ok {
		time.Sleep(took)
		pass.Done(outcome)
	}
	return ok
}

// admits reports whether a tenant's call is admitted, and leaves it without a result.
func admits(s *breaker.Set, tenant contextkit.TenantID, procedure string) bool {
	return by(s, tenant, procedure, 0, breaker.Unknown)
}

// open counts the open breakers.
func open(s *breaker.Set) (n int) {
	for _, state := range s.States() {
		if state.Open {
			n++
		}
	}
	return n
}

func TestBreaker_OpensOnSilenceAndClosesOnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet(breaker.Config{})
		for i := range 5 {
			if !call(s, "a:1", breaker.Unreached) {
				t.Fatalf("call %d is not let through", i)
			}
		}
		_, wait, ok := enter(s, "a:1")
		if ok || wait <= 0 || wait > 500*time.Millisecond || open(s) != 1 ||
			!s.Open("a:1", "/s/M", contextkit.TenantID{}) {
			t.Fatalf("after five silent calls: let through %v, wait %v", ok, wait)
		}
		if !call(s, "b:1", breaker.Answered) {
			t.Error("another node's breaker opened")
		}
		time.Sleep(500 * time.Millisecond)
		probe, _, ok := enter(s, "a:1")
		if !ok {
			t.Fatal("no call is admitted after the pause")
		}
		if call(s, "a:1", breaker.Answered) {
			t.Error("a second trial call is admitted concurrently")
		}
		probe.Done(breaker.Unreached)
		time.Sleep(500 * time.Millisecond)
		if call(s, "a:1", breaker.Answered) {
			t.Error("the second pause is no longer than the first")
		}
		time.Sleep(500 * time.Millisecond)
		if !call(s, "a:1", breaker.Answered) || open(s) != 0 {
			t.Error("an answer does not close the breaker")
		}
		for range 4 {
			call(s, "a:1", breaker.Unreached)
		}
		call(s, "a:1", breaker.Answered)
		for range 4 {
			call(s, "a:1", breaker.Unreached)
		}
		if !call(s, "a:1", breaker.Answered) {
			t.Error("silent calls with an answer between them open the breaker")
		}
	})
}

func TestBreaker_EarlierCallsDoNotDisturbTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet(breaker.Config{})
		enter := func() breaker.Pass {
			t.Helper()
			pass, _, ok := enter(s, "a:1")
			if !ok {
				t.Fatal("a call is not admitted")
			}
			return pass
		}
		var old []breaker.Pass
		for range 20 {
			old = append(old, enter())
		}
		for range 5 {
			call(s, "a:1", breaker.Unreached)
		}
		time.Sleep(500 * time.Millisecond)
		trial := enter()
		for n, pass := range old {
			pass.Done([]breaker.Outcome{breaker.Unreached, breaker.Unknown}[n%2])
			if call(s, "a:1", breaker.Answered) {
				t.Fatal("a second call is admitted during the trial")
			}
		}
		trial.Done(breaker.Answered)
		if open(s) != 0 || !call(s, "a:1", breaker.Answered) {
			t.Error("the trial's answer does not close the breaker")
		}
	})
}

func TestBreaker_ClientDisconnectDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet(breaker.Config{})
		for range 50 {
			call(s, "a:1", breaker.Unknown)
		}
		if open(s) != 0 {
			t.Error("clients that left opened the breaker")
		}
		for range 5 {
			call(s, "a:1", breaker.Unreached)
		}
		time.Sleep(time.Second)
		if !call(s, "a:1", breaker.Unknown) || !call(s, "a:1", breaker.Answered) {
			t.Error("the client of the admitted call disconnected, and no other call is admitted")
		}
	})
}

func TestBreaker_HalfOpenAdmitsOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet(breaker.Config{})
		for range 5 {
			call(s, "a:1", breaker.Unreached)
		}
		time.Sleep(time.Second)
		var (
			group   sync.WaitGroup
			through atomic.Int64
		)
		for range 100 {
			group.Go(func() {
				if _, _, ok := enter(s, "a:1"); ok {
					through.Add(1)
				}
			})
		}
		group.Wait()
		if through.Load() != 1 {
			t.Errorf("%d calls are admitted, want one", through.Load())
		}
		if _, _, ok := s.Enter(&breaker.Call{Kind: "node", Endpoint: "a:1", Procedure: "/s/M"}, time.Now(), true); !ok {
			t.Error("a forced call is not admitted")
		}
	})
}

// answer makes the node answer n calls, each after a delay.
func answer(s *breaker.Set, endpoint string, n int, took time.Duration) {
	for range n {
		if pass, _, ok := enter(s, endpoint); ok {
			time.Sleep(took)
			pass.Done(breaker.Answered)
		}
	}
}

func TestBreaker_OpensForNodeSlowerThanPeers(t *testing.T) {
	for name, rule := range map[string]struct {
		peers      int
		peer, slow time.Duration
		want       bool
	}{
		"five times slower":                {3, 100 * time.Millisecond, 600 * time.Millisecond, true},
		"four times slower":                {3, 100 * time.Millisecond, 400 * time.Millisecond, false},
		"all are slow":                     {3, time.Second, time.Second, false},
		"slower, and fast all the same":    {3, time.Millisecond, 100 * time.Millisecond, false},
		"single peer":                      {1, 10 * time.Millisecond, 600 * time.Millisecond, false},
		"two peers and the node are three": {2, 10 * time.Millisecond, 600 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := breaker.NewSet(breaker.Config{})
				for i := range rule.peers {
					answer(s, fmt.Sprintf("peer-%d:1", i), 20, rule.peer)
				}
				answer(s, "slow:1", 19, rule.slow)
				if s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
					t.Fatal("the breaker opens before enough is known")
				}
				answer(s, "slow:1", 1, rule.slow)
				if s.Open("slow:1", "/s/M", contextkit.TenantID{}) != rule.want {
					t.Fatalf("open: %v, want %v", !rule.want, rule.want)
				}
				time.Sleep(time.Second)
				if !call(s, "slow:1", breaker.Answered) || s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
					t.Error("the node receives no calls again")
				}
			})
		})
	}
}

func TestBreaker_EarlierCallsDoNotCloseIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := breaker.NewSet(breaker.Config{})
		for i := range 2 {
			answer(s, fmt.Sprintf("peer-%d:1", i), 20, time.Millisecond)
		}
		var under []breaker.Pass // concurrent calls, as at any busy node
		for range 50 {
			pass, _, _ := enter(s, "slow:1")
			under = append(under, pass)
		}
		time.Sleep(time.Second)
		for _, pass := range under {
			pass.Done(breaker.Answered)
		}
		if !s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
			t.Error("slow answers closed the breaker that they opened")
		}
	})
}

func TestBreaker_PanicShareIgnoresBreakers(t *testing.T) {
	s := breaker.NewSet(breaker.Config{})
	nodes := []string{"a:1", "b:1", "c:1", "d:1"}
	for i, want := range []bool{false, false, true, true} {
		for range 5 {
			call(s, nodes[i], breaker.Unreached)
		}
		if s.Panics(nodes, "/s/M", contextkit.TenantID{}) != want {
			t.Errorf("%d of 4 nodes open: panic %v, want %v", i+1, !want, want)
		}
	}
	if s.Panics(nodes[:2], "/s/M", contextkit.TenantID{}) {
		t.Error("two nodes are too few to doubt the breakers")
	}
}

func TestConfig_InvalidThresholdsAreRejected(t *testing.T) {
	for _, config := range []breaker.Config{{Failures: -1}, {SlowFactor: 0.5}, {PanicShare: 2}, {FirstPause: -1}} {
		if config.Validate() == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
	if err := (breaker.Config{}).Validate(); err != nil {
		t.Error(err)
	}
}
