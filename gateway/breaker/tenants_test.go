package breaker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/breaker"
)

// tenants are the tenants of a test.
func tenants(t *testing.T, names ...string) (all []contextkit.TenantID) {
	t.Helper()
	for _, name := range names {
		id, err := contextkit.ParseTenantID(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, id)
	}
	return all
}

// bubble runs a test of closed breakers with a first pause of 500 ms.
func bubble(t *testing.T, test func(t *testing.T, s *breaker.Set)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, breaker.NewSet(breaker.Config{})) })
}

func TestBreaker_FailuresOfOneTenantRejectOnlyThatTenant(t *testing.T) {
	for name, outcome := range map[string]breaker.Outcome{
		"policy timeouts": breaker.TimedOut, "refusals": breaker.Refused,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *breaker.Set) {
				id := tenants(t, "noisy", "quiet")
				for range 100 {
					by(s, id[0], "/s/M", time.Second, outcome)
				}
				if admits(s, id[0], "/s/M") {
					t.Error("the tenant whose calls fail is not refused")
				}
				if !admits(s, id[1], "/s/M") || !admits(s, contextkit.TenantID{}, "/s/M") {
					t.Error("another tenant is refused")
				}
				if !by(s, id[1], "/s/M", time.Millisecond, breaker.Answered) || !admits(s, id[0], "/s/M") {
					t.Error("an answer to another tenant does not close the breaker")
				}
			})
		})
	}
}

func TestBreaker_FailuresOfTwoTenantsRejectAllTenants(t *testing.T) {
	for name, outcome := range map[string]breaker.Outcome{
		"policy timeouts": breaker.TimedOut, "refusals": breaker.Refused,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *breaker.Set) {
				id := tenants(t, "one", "two", "three")
				for range 5 {
					by(s, id[0], "/s/M", 0, outcome)
				}
				if !by(s, id[1], "/s/M", 0, outcome) {
					t.Fatal("the second tenant is refused before its call failed")
				}
				for _, tenant := range id {
					if admits(s, tenant, "/s/M") {
						t.Errorf("%s is admitted", tenant)
					}
				}
				if other := admits(s, id[2], "/s/Other"); other != (outcome == breaker.TimedOut) {
					t.Errorf("another method of the node is admitted: %v", other)
				}
			})
		})
	}
}

func TestBreaker_UnreachableNodeRejectsAllTenants(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "one", "two")
		for range 5 {
			by(s, id[0], "/s/M", 0, breaker.Unreached)
		}
		if admits(s, id[1], "/s/Other") {
			t.Error("another tenant's call of another method is admitted")
		}
	})
}

func TestBreaker_TimeoutDuringWhichMethodAnsweredDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "one", "two", "three")
		var waiting []breaker.Pass
		for i := range 20 {
			pass, _, _ := s.Enter(&breaker.Call{
				Kind:      "node",
				Endpoint:  "a:1",
				Procedure: "/s/M",
				Tenant:    id[i%2],
			}, time.Now(), false)
			waiting = append(waiting, pass)
		}
		time.Sleep(time.Second)
		by(s, id[2], "/s/M", 0, breaker.Answered)
		time.Sleep(time.Second)
		for _, pass := range waiting {
			pass.Done(breaker.TimedOut)
		}
		if open(s) != 0 {
			t.Error("timeouts open the breaker of a method that answered in the meantime")
		}
		for i := range 5 {
			by(s, id[i%2], "/s/M", time.Second, breaker.TimedOut)
		}
		if open(s) != 1 {
			t.Error("timeouts without an answer do not open the breaker")
		}
	})
}

func TestBreaker_TrialWithoutResultDoesNotDelayNext(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "quiet", "other")
		for range 5 {
			by(s, id[0], "/s/M", 0, breaker.Unreached)
		}
		time.Sleep(500 * time.Millisecond)
		stream := &breaker.Call{
			Kind:      "node",
			Endpoint:  "a:1",
			Procedure: "/s/Watch",
			Tenant:    id[0],
			Stream:    true,
		}
		quiet, _, ok := s.Enter(stream, time.Now(), false)
		if !ok {
			t.Fatal("no trial is admitted after the pause")
		}
		if admits(s, id[1], "/s/M") {
			t.Error("a second trial is admitted concurrently")
		}
		time.Sleep(500 * time.Millisecond)
		if admits(s, id[0], "/s/M") {
			t.Error("the tenant of the first trial is admitted before others")
		}
		if !by(s, id[1], "/s/M", 0, breaker.Answered) || open(s) != 0 {
			t.Error("the next trial does not close the breaker")
		}
		quiet.Done(breaker.Unknown)
		if open(s) != 0 {
			t.Error("the end of the first trial opens the breaker")
		}
	})
}

func TestBreaker_SameTenantRetriesTrialAfterTwoPauses(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "only")
		for range 5 {
			by(s, id[0], "/s/M", 0, breaker.Refused)
		}
		time.Sleep(500 * time.Millisecond)
		if _, _, ok := s.Enter(&breaker.Call{
			Kind:      "node",
			Endpoint:  "a:1",
			Procedure: "/s/Watch",
			Tenant:    id[0],
			Stream:    true,
		}, time.Now(), false); !ok {
			t.Fatal("no trial is admitted after the pause")
		}
		time.Sleep(time.Second)
		if !by(s, id[0], "/s/M", 0, breaker.Answered) || open(s) != 0 {
			t.Error("the only tenant's next trial does not close the breaker")
		}
	})
}

func TestBreaker_SlowCallsOfOneTenantRejectOnlyThatTenant(t *testing.T) {
	for name, rule := range map[string]struct {
		slow []int // the tenants whose calls are slow
		want []int // the refused tenants
	}{
		"one of two nodes": {[]int{0}, nil}, // the other's answers are fast: the node is
		"both":             {[]int{0, 1}, []int{0, 1, 2}},
		"only node":        {[]int{0, 0}, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *breaker.Set) {
				id := tenants(t, "one", "two", "three")
				for _, peer := range []string{"peer-1:1", "peer-2:1"} {
					answer(s, peer, 20, 10*time.Millisecond)
				}
				for i := range 40 {
					tenant := i % 2
					if name == "only node" {
						tenant = 0
					}
					took := 10 * time.Millisecond
					for _, one := range rule.slow {
						if one == tenant {
							took = 600 * time.Millisecond
						}
					}
					by(s, id[tenant], "/s/M", took, breaker.Answered)
					if s.Open("a:1", "/s/M", id[0]) {
						break
					}
				}
				var refused []int
				for i := range id {
					if s.Open("a:1", "/s/M", id[i]) {
						refused = append(refused, i)
					}
				}
				if len(refused) != len(rule.want) {
					t.Errorf("the tenants %v are refused, want %v", refused, rule.want)
				}
				if s.Open("a:1", "/s/Other", id[0]) {
					t.Error("another method is refused")
				}
			})
		})
	}
}

func TestBreaker_StreamsFirstMessageIsNotMeasured(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		for _, peer := range []string{"peer-1:1", "peer-2:1"} {
			answer(s, peer, 20, 10*time.Millisecond)
		}
		for range 100 {
			pass, _, ok := s.Enter(&breaker.Call{
				Kind:      "node",
				Endpoint:  "a:1",
				Procedure: "/s/M",
				Stream:    true,
			}, time.Now(), false)
			if !ok {
				t.Fatal("quiet streams make the node slow")
			}
			time.Sleep(time.Minute)
			pass.Done(breaker.Answered)
		}
	})
}

// The latencies of the tenants with the most calls are stored, regardless of the number of other
// tenants.
func TestBreaker_RareTenantsDoNotHideSlowness(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		names := make([]string, 200)
		for i := range names {
			names[i] = fmt.Sprintf("t%d", i)
		}
		id := tenants(t, names...)
		for _, peer := range []string{"peer-1:1", "peer-2:1"} {
			answer(s, peer, 20, 10*time.Millisecond)
		}
		refused := func() bool { return s.Open("a:1", "/s/M", id[0]) && s.Open("a:1", "/s/M", id[199]) }
		for i := 0; i < 400 && !refused(); i++ {
			for _, busy := range id[:3] {
				by(s, busy, "/s/M", 600*time.Millisecond, breaker.Answered)
			}
			by(s, id[3+i%197], "/s/M", 600*time.Millisecond, breaker.Answered)
		}
		if !refused() {
			t.Error("calls of a node that is slow for all tenants are not diverted")
		}
	})
}
