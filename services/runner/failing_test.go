package runner

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/natstest"
)

func TestFailing_CountsFailingAndStuckInstances(t *testing.T) {
	var f failing
	now := time.Unix(1_800_000_000, 0)
	one := func(tenant, id string) *instance {
		return &instance{Workflow: "w", ID: id, tenant: natstest.Tenant(t, tenant)}
	}
	check := func(what string, at time.Time, wantTotal, wantStuck int, wantMost string) {
		t.Helper()
		total, stuck, most := f.counts(2, at)
		if text := fmt.Sprint(most); total != wantTotal || stuck != wantStuck || text != wantMost {
			t.Errorf("%s: %d failing, %d stuck, %s; want %d, %d, %s", what, total, stuck, text, wantTotal, wantStuck,
				wantMost)
		}
	}
	check("none", now, 0, 0, "[]")
	f.note(one("acme", "a"), true, now)
	f.note(one("globex", "b"), true, now)
	f.note(one("globex", "c"), true, now)
	f.note(one("hooli", "d"), true, now)
	check("the tenants with the most failures", now, 4, 0, "[{globex 2} {acme 1}]")
	f.note(one("globex", "b"), false, now)
	f.note(one("hooli", "d"), false, now)
	later := now.Add(max(stuckAfter, failureRetention) + time.Second)
	f.note(one("acme", "a"), true, later)
	check("one instance fails for long; the other is gone or has another owner", later, 1, 1, "[{acme 1}]")
	f.note(one("acme", "a"), false, later)
	check("the instance succeeded", later, 0, 0, "[]")
	for i := range 2 * maxFailing {
		f.note(one("acme", fmt.Sprint(i)), true, later)
	}
	check("the memory per tenant is bounded", later, maxFailing, 0, fmt.Sprintf("[{acme %d}]", maxFailing))
	for _, id := range []string{"b", "c"} {
		f.note(one("globex", id), true, later)
	}
	check("a tenant with many failures hides no other", later, maxFailing+2, 0,
		fmt.Sprintf("[{acme %d} {globex 2}]", maxFailing))
	f.note(one("globex", "b"), false, later)
	f.note(one("globex", "c"), false, later)
	f.note(one("hooli", "never failed"), false, later)
	if len(f.known) != 1 {
		t.Errorf("%d tenants, want 1: succeeded instances use no memory", len(f.known))
	}
	check("acme has no further attempt", later.Add(failureRetention+time.Second), 0, 0, "[]")
	if len(f.known) != 0 {
		t.Errorf("%d tenants, want none", len(f.known))
	}
}
