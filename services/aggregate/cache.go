package aggregate

import (
	"container/list"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// tenantShare is the divisor of a cache's bytes that yields a tenant's share.
const tenantShare = 4

// cache stores values of all tenants, and evicts the least recently used ones while they exceed
// its bytes: those of the tenant that is furthest beyond its share if there is one, else of any
// tenant. A single tenant may use the whole cache. An evicted value may still be in use. The
// methods may be called concurrently.
type cache[K, V comparable] struct {
	most   int64 // in bytes
	tenant func(K) contextkit.TenantID

	mu      sync.Mutex
	bytes   int64
	evicted int64
	entries map[K]*cacheEntry[K, V]
	used    list.List // of all entries, the most recently used first
	tenants map[contextkit.TenantID]*cachedTenant
	greedy  map[contextkit.TenantID]*cachedTenant // those beyond their share; fewer than tenantShare
}

type cacheEntry[K, V comparable] struct {
	key          K
	value        V
	bytes        int64
	inAll, inOwn *list.Element
	owner        *cachedTenant
	identity     contextkit.TenantID
}

// cachedTenant is what a cache has of a tenant.
type cachedTenant struct {
	bytes int64
	used  list.List // of its entries, the most recently used first
}

func newCache[K, V comparable](most int64, tenant func(K) contextkit.TenantID) *cache[K, V] {
	return &cache[K, V]{
		most: most, tenant: tenant, entries: map[K]*cacheEntry[K, V]{},
		tenants: map[contextkit.TenantID]*cachedTenant{}, greedy: map[contextkit.TenantID]*cachedTenant{},
	}
}

// get returns a value, and false if there is none.
func (c *cache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.touch(e)
		return e.value, true
	}
	return value, false
}

// getOrAdd returns the key's value, or adds fresh, which has a size in bytes, and returns it.
func (c *cache[K, V]) getOrAdd(key K, fresh V, bytes int64) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.touch(e)
		return e.value
	}
	identity := c.tenant(key)
	owner := c.tenants[identity]
	if owner == nil {
		owner = &cachedTenant{}
		c.tenants[identity] = owner
	}
	e := &cacheEntry[K, V]{key: key, value: fresh, owner: owner, identity: identity}
	e.inAll, e.inOwn = c.used.PushFront(e), owner.used.PushFront(e)
	c.entries[key] = e
	c.charge(e, bytes)
	c.shrink()
	return fresh
}

// resize sets the size in bytes of a value, unless it has been evicted.
func (c *cache[K, V]) resize(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.value == value {
		c.charge(e, bytes)
		c.shrink()
	}
}

// touch makes e the most recently used entry. c.mu is held, also by the callers of the methods below.
func (c *cache[K, V]) touch(e *cacheEntry[K, V]) {
	c.used.MoveToFront(e.inAll)
	e.owner.used.MoveToFront(e.inOwn)
}

// charge sets the size of an entry.
func (c *cache[K, V]) charge(e *cacheEntry[K, V], bytes int64) {
	c.bytes += bytes - e.bytes
	e.owner.bytes += bytes - e.bytes
	e.bytes = bytes
	if e.owner.bytes > c.most/tenantShare {
		c.greedy[e.identity] = e.owner
	} else {
		delete(c.greedy, e.identity)
	}
}

// shrink evicts entries until the rest fits.
func (c *cache[K, V]) shrink() {
	for c.bytes > c.most {
		from := &c.used
		largest := int64(0)
		for _, tenant := range c.greedy {
			if tenant.bytes > largest {
				from, largest = &tenant.used, tenant.bytes
			}
		}
		c.evict(from.Back().Value.(*cacheEntry[K, V])) //nolint:forcetypeassert // the lists hold nothing else
	}
}

func (c *cache[K, V]) evict(e *cacheEntry[K, V]) {
	c.charge(e, 0)
	c.used.Remove(e.inAll)
	e.owner.used.Remove(e.inOwn)
	delete(c.entries, e.key)
	if e.owner.used.Len() == 0 {
		delete(c.tenants, e.identity)
	}
	c.evicted++
}

// cacheStats is what metrics show of a cache.
type cacheStats struct{ entries, bytes, evicted int64 }

func (c *cache[K, V]) stats() cacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cacheStats{int64(len(c.entries)), c.bytes, c.evicted}
}
