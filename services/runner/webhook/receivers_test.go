package webhook

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/internal/natstest"
)

var errAnswer = errors.New("webhook host returned 503 Service Unavailable" + strings.Repeat("!", 10*maxCause))

func TestReceivers_BreakerOpensAndAdmitsTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r receivers
		acme := natstest.Tenant(t, "acme")
		key := receiverKey{"w/tell", "host"}
		call := func(o outcome) error {
			end, err := r.acquire(t.Context(), acme, key, false)
			if err == nil {
				end(o, errAnswer)
			}
			return err
		}
		var held *HeldError
		for range openAfter {
			if err := call(failed); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 4 { // each failed trial call doubles the time
			err := call(failed)
			if !errors.As(err, &held) || time.Until(held.Until) > openFirst<<n ||
				time.Until(held.Until) < openFirst<<n*3/4 {
				t.Fatalf("after %d trials: %v", n, err)
			}
			if !strings.Contains(held.Reason, "returned 503") || len(held.Reason) > 2*maxCause {
				t.Errorf("the reason of a call that is held is %q", held.Reason)
			}
			if open, count := r.counts(); open != 1 || count != int64(n+1) {
				t.Errorf("%d receivers are open, %d calls held", open, count)
			}
			time.Sleep(time.Until(held.Until))
			end, err := r.acquire(t.Context(), acme, key, false)
			if err != nil {
				t.Fatalf("the trial call: %v", err)
			}
			if err := call(succeeded); !errors.As(err, &held) {
				t.Fatalf("a second trial call: %v", err)
			}
			end(failed, errAnswer)
			// Neither another tenant's calls nor those of another step are held.
			for _, other := range []struct {
				tenant string
				key    receiverKey
			}{{"globex", key}, {"acme", receiverKey{"w/other", "host"}}, {"acme", receiverKey{"w/tell", "other"}}} {
				end, err := r.acquire(t.Context(), natstest.Tenant(t, other.tenant), other.key, false)
				if err != nil {
					t.Fatalf("%v: %v", other, err)
				}
				end(succeeded, nil)
			}
			if _, count := r.counts(); count != int64(n+2) {
				t.Errorf("%d calls held", count)
			}
			r.held--
		}
		time.Sleep(openLongest)
		if err := call(succeeded); err != nil {
			t.Fatal(err)
		}
		if open, _ := r.counts(); open != 0 || len(r.tenants) != 0 {
			t.Errorf("%d receivers are open, and %d tenants are tracked", open, len(r.tenants))
		}
	})
}

func TestReceivers_OperatorsCallIsTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r receivers
		acme := natstest.Tenant(t, "acme")
		key := receiverKey{"w/tell", "host"}
		call := func(trial bool, o outcome) error {
			end, err := r.acquire(t.Context(), acme, key, trial)
			if err == nil {
				end(o, errAnswer)
			}
			return err
		}
		for range openAfter {
			if err := call(false, failed); err != nil {
				t.Fatal(err)
			}
		}
		if err := call(true, failed); err != nil {
			t.Errorf("while the breaker is open: %v", err)
		}
		var held *HeldError
		if err := call(false, succeeded); !errors.As(err, &held) || time.Until(held.Until) < openFirst*3/2 {
			t.Errorf("after a trial that failed: %v; want the next, longer wait", err)
		}
		if err := call(true, succeeded); err != nil {
			t.Errorf("while the breaker is open: %v", err)
		}
		if err := call(false, succeeded); err != nil {
			t.Errorf("after a trial that succeeded: %v", err)
		}
		// Concurrency limits also apply to an operator's calls.
		for range receiverSlots {
			if _, err := r.acquire(t.Context(), acme, key, true); err != nil {
				t.Fatal(err)
			}
		}
		if err := call(true, succeeded); !errors.As(err, &held) {
			t.Errorf("at the limit: %v", err)
		}
	})
}

func TestReceivers_UnresponsiveOnesLeaveSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r receivers
		acme := natstest.Tenant(t, "acme")
		silent := receiverKey{"w/tell", "silent"}
		var end func(outcome, error)
		for range receiverSlots {
			var err error
			if end, err = r.acquire(t.Context(), acme, silent, false); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		var held *HeldError
		for range 1000 {
			if _, err := r.acquire(t.Context(), acme, silent, false); !errors.As(err, &held) {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != slotWait {
			t.Errorf("1,000 calls waited for %v, want %v in all", took, slotWait)
		}
		for n := range tenantSlots - receiverSlots {
			if _, err := r.acquire(t.Context(), acme, receiverKey{"w/tell", fmt.Sprint(n)}, false); err != nil {
				t.Errorf("another receiver: %v", err)
			}
		}
		// A freed slot goes to a waiting call.
		other := receiverKey{"w/other", "host"}
		go func() {
			time.Sleep(slotWait / 2)
			end(abandoned, nil)
		}()
		if _, err := r.acquire(t.Context(), acme, other, false); err != nil {
			t.Errorf("a call that waits: %v", err)
		}
	})
}

func TestReceivers_AreBoundedPerTenant(t *testing.T) {
	var r receivers
	acme := natstest.Tenant(t, "acme")
	for n := range 2 * tenantReceivers {
		end, err := r.acquire(t.Context(), acme, receiverKey{"w/tell", fmt.Sprint(n)}, false)
		if err != nil {
			t.Fatal(err)
		}
		end(failed, errAnswer)
	}
	if n := len(r.tenants[acme].known); n != tenantReceivers {
		t.Errorf("%d receivers are tracked, want %d", n, tenantReceivers)
	}
}
