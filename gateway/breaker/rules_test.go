package breaker_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/breaker"
)

// states returns the states of a node's breaker and of its method /s/M.
func states(t *testing.T, s *breaker.Set) (node, method breaker.State) {
	t.Helper()
	for _, state := range s.States() {
		switch state.Procedure {
		case "":
			node = state
		case "/s/M":
			method = state
		}
	}
	return node, method
}

// A half-open method's trial that the node's breaker rejects has not taken place: the next call is admitted as soon as
// the node admits one.
func TestBreaker_TrialThatTheNodeRejectsIsWithdrawn(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "one", "two")
		for i := range 6 {
			by(s, id[i%2], "/s/M", 0, breaker.TimedOut)
		}
		time.Sleep(300 * time.Millisecond)
		for range 5 {
			by(s, id[0], "/s/Other", 0, breaker.Unreached)
		}
		time.Sleep(200 * time.Millisecond)
		if !s.Open("a:1", "/s/Third", id[0]) || admits(s, id[0], "/s/M") {
			t.Fatal("the node's breaker admits a call before its pause has ended")
		}
		time.Sleep(300 * time.Millisecond)
		if !admits(s, id[0], "/s/M") {
			t.Error("the trial that the node rejected delays the next one")
		}
	})
}

// The pause starts again once a breaker has closed, and Open reports false at the moment at which a trial is admitted.
func TestBreaker_PauseStartsAnewAfterAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		fail := func() (wait time.Duration) {
			t.Helper()
			for range 5 {
				call(s, "a:1", breaker.Unreached)
			}
			_, wait, ok := enter(s, "a:1")
			if ok || wait <= 0 {
				t.Fatal("the breaker is closed after five failures")
			}
			return wait
		}
		trialAfter := func(wait time.Duration, outcome breaker.Outcome) {
			t.Helper()
			time.Sleep(wait - 1)
			if !s.Open("a:1", "/s/M", contextkit.TenantID{}) {
				t.Error("Open reports false before the end of the pause")
			}
			time.Sleep(time.Nanosecond)
			if s.Open("a:1", "/s/M", contextkit.TenantID{}) || !call(s, "a:1", outcome) {
				t.Fatal("no call is admitted at the end of the pause")
			}
		}
		trialAfter(fail(), breaker.Unreached)
		_, second, _ := enter(s, "a:1")
		if second <= 750*time.Millisecond || second > time.Second {
			t.Errorf("the second pause is %v, want above 750 ms and at most 1 s", second)
		}
		trialAfter(second, breaker.Answered)
		if anew := fail(); anew > 500*time.Millisecond {
			t.Errorf("the pause after an answer is %v, want at most 500 ms", anew)
		}
	})
}

// A trial that fails prolongs the rejection of the rejected tenants only; and which tenants are rejected is
// decided again each time that a breaker opens.
func TestBreaker_FailedTrialRejectsTheSameTenants(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "noisy", "quiet", "third")
		for range 5 {
			by(s, id[0], "/s/M", 0, breaker.TimedOut)
		}
		time.Sleep(500 * time.Millisecond)
		if !by(s, id[0], "/s/M", 0, breaker.TimedOut) {
			t.Fatal("no trial is admitted after the pause")
		}
		if s.Open("a:1", "/s/M", id[1]) || !s.Open("a:1", "/s/M", id[0]) {
			t.Error("a tenant's failed trial rejects other tenants")
		}
		by(s, id[1], "/s/M", 0, breaker.TimedOut)
		if !s.Open("a:1", "/s/M", id[2]) {
			t.Error("failures of a second tenant do not reject the third")
		}
		time.Sleep(time.Second)
		if !by(s, id[2], "/s/M", 0, breaker.TimedOut) {
			t.Fatal("no trial is admitted after the second pause")
		}
		if !s.Open("a:1", "/s/M", id[2]) {
			t.Error("a failed trial of a breaker that rejects all tenants admits one of them")
		}
		time.Sleep(2 * time.Second)
		if !by(s, id[2], "/s/M", 0, breaker.Answered) || open(s) != 0 {
			t.Fatal("the breaker does not close")
		}
		time.Sleep(time.Millisecond) // calls that began before the answer do not count
		for range 5 {
			by(s, id[0], "/s/M", 0, breaker.TimedOut)
		}
		if !s.Open("a:1", "/s/M", id[0]) || s.Open("a:1", "/s/M", id[1]) {
			t.Error("one tenant's failures reject another because all were rejected before")
		}
	})
}

// The failures that open a breaker are several tenants' if not all of them are the first one's, in any order.
func TestBreaker_OpensForAllTenantsWhenFailuresAreOfSeveral(t *testing.T) {
	for name, rule := range map[string]struct {
		failed []int // the tenants of the five failed calls
		all    bool
	}{
		"one tenant's":       {[]int{0, 0, 0, 0, 0}, false},
		"the last another's": {[]int{0, 0, 0, 0, 1}, true},
		"one between":        {[]int{0, 0, 1, 0, 0}, true},
		"in turn":            {[]int{0, 1, 0, 1, 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *breaker.Set) {
				id := tenants(t, "one", "two", "three")
				for _, n := range rule.failed {
					by(s, id[n], "/s/M", 0, breaker.TimedOut)
				}
				if !s.Open("a:1", "/s/M", id[0]) || s.Open("a:1", "/s/M", id[2]) != rule.all {
					t.Errorf("another tenant is rejected: %v, want %v", !rule.all, rule.all)
				}
				_, method := states(t, s)
				want := breaker.State{
					Kind:      "node",
					Endpoint:  "a:1",
					Procedure: "/s/M",
					Open:      true,
					Single:    !rule.all,
					Failures:  5,
				}
				if !rule.all {
					want.Tenant = id[0]
				}
				if method != want {
					t.Errorf("%+v, want %+v", method, want)
				}
			})
		})
	}
}

// A breaker that is open for one tenant because its calls are slow rejects all tenants after as many failures of
// another tenant as open a closed one.
func TestBreaker_FailuresOfAnotherTenantWhileOneIsSlow(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "slow", "failing", "third")
		for _, peer := range []string{"peer-1:1", "peer-2:1"} {
			answer(s, peer, 20, 10*time.Millisecond)
		}
		for range 20 {
			by(s, id[0], "/s/M", 600*time.Millisecond, breaker.Answered)
		}
		if !s.Open("a:1", "/s/M", id[0]) || s.Open("a:1", "/s/M", id[2]) {
			t.Fatal("the breaker is not open for the slow tenant alone")
		}
		time.Sleep(time.Millisecond) // calls that began before the answer do not count
		for n := range 5 {
			if s.Open("a:1", "/s/M", id[2]) {
				t.Errorf("%d failures of another tenant reject a third", n)
			}
			by(s, id[1], "/s/M", 0, breaker.TimedOut)
		}
		if !s.Open("a:1", "/s/M", id[2]) {
			t.Error("five failures of another tenant do not reject a third")
		}
	})
}

// Of three nodes of which two are open the gateway doubts the breakers; of two it does not.
func TestBreaker_PanicShareAppliesFromThreeNodes(t *testing.T) {
	s := breaker.NewSet(breaker.Config{})
	nodes := []string{"a:1", "b:1", "c:1"}
	for _, endpoint := range nodes[:2] {
		for range 5 {
			call(s, endpoint, breaker.Unreached)
		}
	}
	for n, want := range []bool{2: false, 3: true} {
		if n >= 2 && s.Panics(nodes[:n], "/s/M", contextkit.TenantID{}) != want {
			t.Errorf("two of %d nodes are open: panic %v, want %v", n, !want, want)
		}
	}
}

// Latency is the first response time, then a moving average; streams do not change it.
func TestBreaker_StateReportsTheMovingAverageOfResponseTimes(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "one")[0]
		for _, step := range []struct {
			took   time.Duration
			stream bool
			want   time.Duration
		}{
			{100 * time.Millisecond, false, 100 * time.Millisecond},
			{200 * time.Millisecond, false, 110 * time.Millisecond},
			{time.Minute, true, 110 * time.Millisecond},
			{10 * time.Millisecond, false, 100 * time.Millisecond},
		} {
			pass, _, _ := s.Enter(&breaker.Call{
				Kind:      "node",
				Endpoint:  "a:1",
				Procedure: "/s/M",
				Tenant:    id,
				Stream:    step.stream,
			}, time.Now(), false)
			time.Sleep(step.took)
			pass.Done(breaker.Answered)
			node, method := states(t, s)
			if node.Latency != step.want || method.Latency != step.want {
				t.Errorf("after %v: the node's latency is %v and the method's %v, want %v", step.took, node.Latency,
					method.Latency, step.want)
			}
			if (node != breaker.State{Kind: "node", Endpoint: "a:1", Latency: step.want}) {
				t.Errorf("%+v: a closed breaker concerns no tenant", node)
			}
		}
	})
}

// A node is slow above the floor and above the factor, not at them.
func TestBounds_SlownessOfANode(t *testing.T) {
	for name, rule := range map[string]struct {
		peer, slow time.Duration
		want       bool
	}{
		"at the factor":    {100 * time.Millisecond, 500 * time.Millisecond, false},
		"above the factor": {100 * time.Millisecond, 500*time.Millisecond + 1, true},
		"at the floor":     {time.Millisecond, 200 * time.Millisecond, false},
		"above the floor":  {time.Millisecond, 200*time.Millisecond + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *breaker.Set) {
				for _, peer := range []string{"peer-1:1", "peer-2:1"} {
					answer(s, peer, 20, rule.peer)
				}
				answer(s, "slow:1", 20, rule.slow)
				if s.Open("slow:1", "/s/M", contextkit.TenantID{}) != rule.want {
					t.Errorf("open: %v, want %v", !rule.want, rule.want)
				}
			})
		})
	}
}

// Streams beside slow calls do not make the node look fast.
func TestBreaker_StreamsDoNotHideSlowness(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		for _, peer := range []string{"peer-1:1", "peer-2:1"} {
			answer(s, peer, 20, 10*time.Millisecond)
		}
		for range 20 {
			answer(s, "slow:1", 1, 300*time.Millisecond)
			if pass, _, ok := s.Enter(&breaker.Call{
				Kind:      "node",
				Endpoint:  "slow:1",
				Procedure: "/s/M",
				Stream:    true,
			}, time.Now(), false); ok {
				pass.Done(breaker.Answered)
			}
		}
		if !s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
			t.Error("the breaker of a slow method is closed")
		}
	})
}

// A method that was slow is judged from new answers once its breaker has closed.
func TestBreaker_SlownessIsForgottenOnceItHasClosed(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		for _, peer := range []string{"peer-1:1", "peer-2:1"} {
			answer(s, peer, 20, 10*time.Millisecond)
		}
		answer(s, "slow:1", 20, 6*time.Second)
		if !s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
			t.Fatal("the breaker is closed")
		}
		time.Sleep(500 * time.Millisecond)
		answer(s, "slow:1", 40, 10*time.Millisecond)
		if s.Open("slow:1", "/s/M", contextkit.TenantID{}) {
			t.Error("answers from before it opened open it again")
		}
	})
}
