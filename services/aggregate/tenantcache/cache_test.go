package tenantcache

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
)

type cached struct{ bytes int64 }

type key struct {
	tenant contextkit.TenantID
	id     string
}

func testCache(t *testing.T, limit int64) (*Cache[key, *cached], func(tenant, id string) key) {
	t.Helper()
	tenants := map[string]contextkit.TenantID{}
	return New[key, *cached](limit, func(k key) contextkit.TenantID { return k.tenant }), func(tenant, id string) key {
		if _, ok := tenants[tenant]; !ok {
			tenants[tenant] = natstest.Tenant(t, tenant)
		}
		return key{tenants[tenant], id}
	}
}

// check compares the cache's counters with its entries.
func (c *Cache[K, V]) check(t *testing.T) {
	t.Helper()
	var bytes int64
	own := map[contextkit.TenantID]int64{}
	for _, e := range c.entries {
		bytes += e.bytes
		own[e.tenant] += e.bytes
	}
	if c.bytes != bytes || c.used.Len() != len(c.entries) {
		t.Fatalf("%d bytes of %d entries are counted, want %d of %d", c.bytes, c.used.Len(), bytes, len(c.entries))
	}
	if c.bytes > c.limit {
		t.Fatalf("%d bytes, want at most %d", c.bytes, c.limit)
	}
	for identity, tenant := range c.tenants {
		_, overShare := c.overShare[identity]
		if tenant.bytes != own[identity] || tenant.used.Len() == 0 ||
			overShare != (tenant.bytes > c.limit/tenantShare) {
			t.Fatalf("%s has %d bytes of %d entries and is over its share: %v; want %d bytes", identity, tenant.bytes,
				tenant.used.Len(), overShare, own[identity])
		}
	}
	if len(c.tenants) != len(own) {
		t.Fatalf("%d tenants are known, %d have entries", len(c.tenants), len(own))
	}
}

func TestCache_Bounds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	c, key := testCache(t, 10_000)
	for range 50_000 {
		k := key(fmt.Sprintf("t%d", random.IntN(6)), fmt.Sprint(random.IntN(100)))
		switch random.IntN(3) {
		case 0:
			c.Get(k)
		case 1:
			v := &cached{int64(random.IntN(500))}
			c.GetOrAdd(k, v, v.bytes)
		case 2:
			if v, ok := c.Get(k); ok {
				c.Resize(k, v, int64(random.IntN(3000)))
			}
			c.Resize(k, &cached{}, 1<<40) // a value that is not the key's has no effect
		}
		c.check(t)
	}
}

func TestCache_TenantBeyondShareIsEvictedFirst(t *testing.T) {
	c, key := testCache(t, 1000)
	for n := range 10 { // 200 bytes: less than a quarter
		c.GetOrAdd(key("quiet", fmt.Sprint(n)), &cached{}, 20)
	}
	for n := range 1000 {
		c.GetOrAdd(key("greedy", fmt.Sprint(n)), &cached{}, 100)
		c.check(t)
	}
	for n := range 10 {
		if _, ok := c.Get(key("quiet", fmt.Sprint(n))); !ok {
			t.Errorf("entry %d of the tenant within its share has been evicted", n)
		}
	}
	if _, ok := c.Get(key("greedy", "999")); !ok {
		t.Error("the greedy tenant's newest entry is not there")
	}
	if stats := c.Stats(); stats.Entries != 18 || stats.Bytes != 1000 || stats.Evicted != 992 {
		t.Errorf("%+v, want 18 entries of 1000 bytes, 992 evicted", stats)
	}
}

func TestCache_SingleTenantUsesWholeCache(t *testing.T) {
	c, key := testCache(t, 1000)
	for n := range 20 {
		c.GetOrAdd(key("only", fmt.Sprint(n)), &cached{}, 50)
	}
	if stats := c.Stats(); stats.Bytes != 1000 || stats.Evicted != 0 {
		t.Errorf("%+v, want 1000 bytes and nothing evicted", stats)
	}
}

func TestCache_LeastRecentlyUsedIsEvictedFirst(t *testing.T) {
	c, key := testCache(t, 1000)
	for n := range 10 {
		c.GetOrAdd(key(fmt.Sprintf("t%d", n), "one"), &cached{}, 100)
	}
	c.Get(key("t0", "one"))
	c.GetOrAdd(key("t10", "one"), &cached{}, 100)
	if _, ok := c.Get(key("t1", "one")); ok {
		t.Error("the least recently used entry is still there")
	}
	if _, ok := c.Get(key("t0", "one")); !ok {
		t.Error("an entry that was just used has been evicted")
	}
}
