package aggregate

import (
	"container/list"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// tenantShare divides a cache's bytes: a tenant's share is one part of tenantShare.
const tenantShare = 4

// cache is an LRU cache of all tenants' values, bounded in bytes. While it exceeds its bound, it evicts the least
// recently used entries of the tenant that is furthest beyond its share, or of any tenant if none is. A single tenant
// may use the whole cache. An evicted value may still be in use. The methods may be called concurrently.
type cache[K, V comparable] struct {
	limit  int64 // bound in bytes
	tenant func(K) contextkit.TenantID

	mu        sync.Mutex
	bytes     int64
	evicted   int64
	entries   map[K]*cacheEntry[K, V]
	used      list.List // all entries, most recently used first
	tenants   map[contextkit.TenantID]*cachedTenant
	overShare map[contextkit.TenantID]*cachedTenant // tenants beyond their share; fewer than tenantShare
}

type cacheEntry[K, V comparable] struct {
	key             K
	value           V
	bytes           int64
	inAll, inTenant *list.Element
	owner           *cachedTenant
	identity        contextkit.TenantID
}

// cachedTenant is the part of a cache that belongs to one tenant.
type cachedTenant struct {
	bytes int64
	used  list.List // its entries, most recently used first
}

func newCache[K, V comparable](limit int64, tenant func(K) contextkit.TenantID) *cache[K, V] {
	return &cache[K, V]{
		limit: limit, tenant: tenant, entries: map[K]*cacheEntry[K, V]{},
		tenants: map[contextkit.TenantID]*cachedTenant{}, overShare: map[contextkit.TenantID]*cachedTenant{},
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

// getOrAdd returns the key's value, or adds fresh with its size in bytes and returns it.
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
	e.inAll, e.inTenant = c.used.PushFront(e), owner.used.PushFront(e)
	c.entries[key] = e
	c.charge(e, bytes)
	c.shrink()
	return fresh
}

// resize sets the size in bytes of a value, unless it was evicted.
func (c *cache[K, V]) resize(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.value == value {
		c.charge(e, bytes)
		c.shrink()
	}
}

// touch makes e the most recently used entry. The caller holds c.mu, as for the methods below.
func (c *cache[K, V]) touch(e *cacheEntry[K, V]) {
	c.used.MoveToFront(e.inAll)
	e.owner.used.MoveToFront(e.inTenant)
}

// charge sets the size of an entry.
func (c *cache[K, V]) charge(e *cacheEntry[K, V], bytes int64) {
	c.bytes += bytes - e.bytes
	e.owner.bytes += bytes - e.bytes
	e.bytes = bytes
	if e.owner.bytes > c.limit/tenantShare {
		c.overShare[e.identity] = e.owner
	} else {
		delete(c.overShare, e.identity)
	}
}

// shrink evicts entries until the cache is within its bound.
func (c *cache[K, V]) shrink() {
	for c.bytes > c.limit {
		from := &c.used
		largest := int64(0)
		for _, tenant := range c.overShare {
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
	e.owner.used.Remove(e.inTenant)
	delete(c.entries, e.key)
	if e.owner.used.Len() == 0 {
		delete(c.tenants, e.identity)
	}
	c.evicted++
}

// cacheStats are the statistics of a cache for its metrics.
type cacheStats struct{ entries, bytes, evicted int64 }

func (c *cache[K, V]) stats() cacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cacheStats{int64(len(c.entries)), c.bytes, c.evicted}
}
