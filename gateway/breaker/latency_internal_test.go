package breaker

import (
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

// of returns latencies of tenants: a mean and a number of answers each.
func of(t *testing.T, tenants ...latency) (l latencies) {
	t.Helper()
	for i, one := range tenants {
		id, err := contextkit.ParseTenantID(fmt.Sprintf("t%d", i))
		if err != nil {
			t.Fatal(err)
		}
		one.tenant = id
		l.tenants[i], l.answers = one, l.answers+one.count
	}
	return l
}

// A tenant's latency counts from five answers; of an even number of tenants the lower median counts.
func TestLatencies_MedianTenant(t *testing.T) {
	for name, c := range map[string]struct {
		tenants []latency
		median  float64
		count   int
	}{
		"none":           {nil, 0, 0},
		"too few":        {[]latency{{mean: 9, count: 4}}, 0, 0},
		"just enough":    {[]latency{{mean: 9, count: 5}}, 9, 1},
		"two":            {[]latency{{mean: 9, count: 5}, {mean: 3, count: 6}}, 3, 2},
		"three":          {[]latency{{mean: 9, count: 5}, {mean: 3, count: 6}, {mean: 4, count: 7}}, 4, 3},
		"one is unknown": {[]latency{{mean: 9, count: 5}, {mean: 3, count: 4}, {mean: 4, count: 7}}, 4, 2},
	} {
		l := of(t, c.tenants...)
		if median, count := l.medianTenant(); median != c.median || count != c.count {
			t.Errorf("%s: %v of %d, want %v of %d", name, median, count, c.median, c.count)
		}
	}
}

// A tenant without a slot displaces the one with the fewest answers, whose latency is forgotten; older answers count
// half after 320, so that a tenant that was busy once loses its slot.
func TestLatencies_RarestTenantLosesItsSlot(t *testing.T) {
	full := make([]latency, slots)
	for i := range full {
		full[i] = latency{mean: 7, count: 100 + i}
	}
	full[5].count = 1
	l := of(t, full...)
	fresh, err := contextkit.ParseTenantID("fresh")
	if err != nil {
		t.Fatal(err)
	}
	l.answers = 318
	for _, took := range []time.Duration{100, 200} {
		l.add(fresh, took)
	}
	if got, want := l.tenants[5], (latency{fresh, 110, 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if l.tenants[0].count != 50 || l.tenants[slots-1].count != (100+slots-1)/2 {
		t.Errorf("%+v: older answers do not count half", l.tenants)
	}
	var platform contextkit.TenantID // the zero value, as that of an empty slot
	var empty latencies
	empty.add(fresh, 100)
	for range 3 {
		empty.add(platform, 300)
	}
	if empty.tenants[0] != (latency{fresh, 100, 1}) || empty.tenants[1] != (latency{platform, 300, 3}) {
		t.Errorf("%+v", empty.tenants[:2])
	}
}

// The peers of a node are the other nodes of its kind whose method is closed and whose latency is known; one that has
// never answered the method is none.
func TestSet_PeersOfANode(t *testing.T) {
	s := NewSet(Config{})
	add := func(kind contextkit.Kind, endpoint string, mean float64) *method {
		m := s.node(kind, endpoint).method("/s/M")
		m.times = of(t, latency{mean: mean, count: 5})
		return m
	}
	own := s.node("thing", "own:1")
	add("thing", "own:1", 1000)
	s.node("thing", "idle:1").method("/s/Other")
	add("thing", "fresh:1", 1000).times = latencies{}
	add("other", "other-1:1", 1000)
	add("other", "other-2:1", 1000)
	add("thing", "open:1", 1000).openUntil.Store(1)
	add("thing", "a:1", 10)
	if median, ok := s.peerLatency(own, "/s/M"); ok {
		t.Errorf("%v is the median of one peer", median)
	}
	add("thing", "b:1", 30)
	add("thing", "c:1", 20)
	for range 20 { // nodes are visited in random order
		if median, ok := s.peerLatency(own, "/s/M"); !ok || median != 20 {
			t.Fatalf("%v, %v, want 20", median, ok)
		}
	}
}

// Of two calls that find a method slow at the same time the second changes nothing: the pause would grow.
func TestPass_OpensASlowMethodOnce(t *testing.T) {
	s := NewSet(Config{})
	for endpoint, mean := range map[string]time.Duration{"a:1": 1, "b:1": 1, "slow:1": time.Second} {
		s.node("thing", endpoint).method("/s/M").times = of(t, latency{mean: float64(mean), count: 20})
	}
	now := time.Now()
	p, _, _ := s.Enter(&Call{Kind: "thing", Endpoint: "slow:1", Procedure: "/s/M"}, now, false)
	slow := p.method.times
	for range 2 {
		p.judge(now)
		if p.method.closed() || p.method.pause != s.config.FirstPause {
			t.Errorf("closed: %v, pause %v, want %v", p.method.closed(), p.method.pause, s.config.FirstPause)
		}
		p.method.times = slow // as the second call has read it
	}
}

// The numbers of nodes and of methods of a node are bounded: at the bound all breakers restart, closed.
func TestBounds_BreakersOfNodesAndMethods(t *testing.T) {
	for _, c := range []struct{ known, want int }{{4095, 4096}, {4096, 1}} {
		nodes, methods := map[string]*node{}, map[string]*method{}
		s, n := NewSet(Config{}), &node{}
		for i := range c.known {
			nodes[fmt.Sprint(i)], methods[fmt.Sprint(i)] = n, nil
		}
		n.methods.Store(&methods)
		s.nodes.Store(&nodes)
		s.node("thing", "new")
		n.method("new")
		if got := len(*s.nodes.Load()); got != c.want {
			t.Errorf("%d nodes after %d, want %d", got, c.known, c.want)
		}
		if got := len(*n.methods.Load()); got != c.want {
			t.Errorf("%d methods after %d, want %d", got, c.known, c.want)
		}
	}
}
