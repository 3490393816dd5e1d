package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
)

func TestTop_CountsLastWindowsOnly(t *testing.T) {
	tenant := func(name string) contextkit.TenantID {
		id, err := contextkit.ParseTenantID(name)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	var top limit.Top
	now := time.Unix(1_800_000_000, 0)
	for range 3 {
		top.Add(tenant("acme"), now)
	}
	top.Add(tenant("globex"), now)
	shown := func(n int, at time.Time) (text string) {
		for _, one := range top.Most(n, at) {
			text += fmt.Sprintf("%s %d ", one.Tenant, one.Count)
		}
		return text
	}
	if got := shown(10, now); got != "acme 3 globex 1 " {
		t.Errorf("%q", got)
	}
	if got := shown(1, now); got != "acme 3 " {
		t.Errorf("the first: %q", got)
	}
	later := now.Add(31 * time.Second)
	top.Add(tenant("globex"), later)
	if got := shown(10, later); got != "acme 3 globex 2 " {
		t.Errorf("in the next window: %q", got)
	}
	if got := shown(10, now.Add(3*time.Minute)); got != "" {
		t.Errorf("long after: %q", got)
	}
	// Memory is bounded for any number of tenants.
	for i := range 5000 {
		top.Add(tenant(fmt.Sprintf("t%d", i)), now.Add(4*time.Minute))
	}
	if got := len(top.Most(5000, now.Add(4*time.Minute))); got != 1024 {
		t.Errorf("%d tenants are counted", got)
	}
}
