// Package tenantcache is a cache bounded in bytes that tenants share fairly: a tenant that uses more
// than a quarter of a full cache makes room first. It leaves estimates of sizes to its callers.
package tenantcache

import (
	"container/list"
	"sync"

	"github.com/headgate/headgate/contextkit"
)

// tenantShare divides a cache's bytes: a tenant's share is one part of tenantShare.
const tenantShare = 4

// Cache is an LRU cache of all tenants' values, bounded in bytes. While it exceeds its bound, it evicts the least
// recently used entries of the tenant that is furthest beyond its share, or of any tenant if none is. A single tenant
// may use the whole cache. An evicted value may still be in use. The methods may be called concurrently.
type Cache[K, V comparable] struct {
	limit  int64 // bound in bytes
	tenant func(K) contextkit.TenantID

	mu        sync.Mutex
	bytes     int64
	evicted   int64
	entries   map[K]*entry[K, V]
	used      list.List // of all entries, the most recently used first
	tenants   map[contextkit.TenantID]*owner
	overShare map[contextkit.TenantID]*owner // tenants beyond their share; fewer than tenantShare
}

type entry[K, V comparable] struct {
	key             K
	value           V
	bytes           int64
	inAll, inTenant *list.Element
	owner           *owner
	tenant          contextkit.TenantID
}

// owner is a tenant with entries.
type owner struct {
	bytes int64
	used  list.List // of its entries, the most recently used first
}

// New returns an empty cache of at most limit bytes. tenant returns the tenant of a key.
func New[K, V comparable](limit int64, tenant func(K) contextkit.TenantID) *Cache[K, V] {
	return &Cache[K, V]{
		limit:     limit,
		tenant:    tenant,
		entries:   map[K]*entry[K, V]{},
		tenants:   map[contextkit.TenantID]*owner{},
		overShare: map[contextkit.TenantID]*owner{},
	}
}

// Get returns the value of a key, and false if there is none.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.touch(e)
		return e.value, true
	}
	return value, false
}

// GetOrAdd returns the key's value, or adds fresh with its size in bytes and returns it.
func (c *Cache[K, V]) GetOrAdd(key K, fresh V, bytes int64) V {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		c.touch(e)
		return e.value
	}
	tenant := c.tenant(key)
	of := c.tenants[tenant]
	if of == nil {
		of = &owner{}
		c.tenants[tenant] = of
	}
	e := &entry[K, V]{
		key:    key,
		value:  fresh,
		owner:  of,
		tenant: tenant,
	}
	e.inAll, e.inTenant = c.used.PushFront(e), of.used.PushFront(e)
	c.entries[key] = e
	c.charge(e, bytes)
	c.shrink()
	return fresh
}

// Resize sets the size in bytes of a value, unless it was evicted.
func (c *Cache[K, V]) Resize(key K, value V, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.value == value {
		c.charge(e, bytes)
		c.shrink()
	}
}

// touch makes e the most recently used entry. The caller holds c.mu, as for the methods below.
func (c *Cache[K, V]) touch(e *entry[K, V]) {
	c.used.MoveToFront(e.inAll)
	e.owner.used.MoveToFront(e.inTenant)
}

// charge sets the size of an entry.
func (c *Cache[K, V]) charge(e *entry[K, V], bytes int64) {
	c.bytes += bytes - e.bytes
	e.owner.bytes += bytes - e.bytes
	e.bytes = bytes
	if e.owner.bytes > c.limit/tenantShare {
		c.overShare[e.tenant] = e.owner
	} else {
		delete(c.overShare, e.tenant)
	}
}

// shrink evicts entries until the cache is within its bound.
func (c *Cache[K, V]) shrink() {
	for c.bytes > c.limit {
		from := &c.used
		largest := int64(0)
		for _, tenant := range c.overShare {
			if tenant.bytes > largest {
				from, largest = &tenant.used, tenant.bytes
			}
		}
		c.evict(from.Back().Value.(*entry[K, V])) //nolint:forcetypeassert // the lists hold nothing else
	}
}

func (c *Cache[K, V]) evict(e *entry[K, V]) {
	c.charge(e, 0)
	c.used.Remove(e.inAll)
	e.owner.used.Remove(e.inTenant)
	delete(c.entries, e.key)
	if e.owner.used.Len() == 0 {
		delete(c.tenants, e.tenant)
	}
	c.evicted++
}

// Stats is the state of a cache: entries and bytes at present, and evictions since its start.
type Stats struct{ Entries, Bytes, Evicted int64 }

// Stats returns the state of the cache.
func (c *Cache[K, V]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Stats{int64(len(c.entries)), c.bytes, c.evicted}
}
