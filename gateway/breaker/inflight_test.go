package breaker_test

import (
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/breaker"
)

// pass enters a tenant's call without ending it.
func pass(t *testing.T, s *breaker.Set, tenant contextkit.TenantID) breaker.Pass {
	t.Helper()
	p, _, ok := s.Enter(&breaker.Call{
		Kind:      "node",
		Endpoint:  "a:1",
		Procedure: "/s/M",
		Tenant:    tenant,
	}, time.Now(), false)
	if !ok {
		t.Fatal("the call is not admitted")
	}
	return p
}

// Calls that were in flight when the breaker opened and fail afterwards neither lengthen its pause nor, if they are
// the tenant's own, refuse other tenants.
func TestBreaker_CallsInFlightDoNotOpenItAgain(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "noisy", "quiet")
		var flying []breaker.Pass
		for range 20 {
			flying = append(flying, pass(t, s, id[0]))
		}
		time.Sleep(time.Second)
		for _, p := range flying {
			p.Done(breaker.TimedOut)
		}
		if admits(s, id[0], "/s/M") {
			t.Fatal("the tenant whose calls fail is not refused")
		}
		if !admits(s, id[1], "/s/M") {
			t.Error("another tenant is refused")
		}
		time.Sleep(500 * time.Millisecond)
		if !admits(s, id[0], "/s/M") {
			t.Error("after the first pause no trial call is admitted")
		}
	})
}

// A failure while the breaker is open for one tenant refuses everyone if it is another tenant's.
func TestBreaker_AnotherTenantsCallInFlightRefusesEveryone(t *testing.T) {
	bubble(t, func(t *testing.T, s *breaker.Set) {
		id := tenants(t, "noisy", "quiet", "third")
		other := pass(t, s, id[1])
		for range 5 {
			by(s, id[0], "/s/M", time.Second, breaker.TimedOut)
		}
		if !admits(s, id[2], "/s/M") {
			t.Fatal("failures of one tenant reject calls of another")
		}
		other.Done(breaker.TimedOut)
		for range 5 {
			by(s, id[1], "/s/M", time.Second, breaker.TimedOut)
		}
		first := admits(s, id[2], "/s/M") // half-open, the breaker admits one trial
		if first && admits(s, id[2], "/s/M") {
			t.Error("failures of two tenants do not refuse the others")
		}
	})
}
