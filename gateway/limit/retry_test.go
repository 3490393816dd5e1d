package limit_test

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/gateway/limit"
)

// A release of more bytes than are reserved releases those alone: other calls' stay counted.
func TestUse_ReleasesAtMostItsReservation(t *testing.T) {
	tenants := budgets(t, limit.Config{}, 0)
	first, _, err := enter(t, tenants, "acme", false)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := enter(t, tenants, "acme", false)
	if err != nil {
		t.Fatal(err)
	}
	bytes := func() int64 { _, _, bytes := second.Budget().InFlight(); return bytes }
	for _, use := range []*limit.Use{first, second} {
		if err := use.Reserve(100); err != nil {
			t.Fatal(err)
		}
	}
	first.Release(1000)
	if got := bytes(); got != 100 {
		t.Errorf("%d bytes counted, want the second call's 100", got)
	}
	first.Release(1)
	first.ReleaseAll()
	if got := bytes(); got != 100 {
		t.Errorf("%d bytes are counted after the first call's end, want 100", got)
	}
	second.Release(40)
	if got := bytes(); got != 60 {
		t.Errorf("%d bytes are counted, want 60", got)
	}
	second.ReleaseAll()
}

// The savings of at most 4096 endpoints are known: nodes come and go, and memory is bounded.
func TestRetries_NumberOfEndpointsIsBounded(t *testing.T) {
	r := limit.NewRetries()
	const first, known = "first:1", 4096
	for range 10 {
		if !r.Retry(first) {
			t.Fatal("the initial savings are less than ten")
		}
	}
	for n := range known - 1 {
		r.Call(fmt.Sprintf("node-%d:1", n))
	}
	if r.Retry(first) {
		t.Errorf("an endpoint was evicted although only %d are known", known)
	}
	r.Call("one-more:1")
	if !r.Retry(first) {
		t.Errorf("more than %d endpoints are known", known)
	}
}
