package projection

import (
	"hash/maphash"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// maxMatched bounds the keys of one filter, maxAllMatched those of all of a tenant's filters on a node, and
	// maxNodeMatched those of all tenants' filters. A key takes about 20 bytes.
	maxMatched     = 1 << 16
	maxAllMatched  = 1 << 18
	maxNodeMatched = 1 << 22
)

// nodeKeys counts the stored keys of all tenants' filters.
type nodeKeys struct {
	keys     atomic.Int64
	exceeded atomic.Int64 // sets that have exceeded a bound
}

// tenantKeys counts the stored keys of a tenant's filters.
type tenantKeys struct {
	keys atomic.Int64
	node *nodeKeys
}

func (t *tenantKeys) add(keys int64) {
	t.keys.Add(keys)
	t.node.keys.Add(keys)
}

// full reports whether no further key may be stored.
func (t *tenantKeys) full() bool {
	return t.keys.Load() >= maxAllMatched || t.node.keys.Load() >= maxNodeMatched
}

// matchedKeys stores hashes of the keys of rows that a filter has selected for some watcher, so that removals of
// other rows need not be sent to watchers with the filter. Beyond the bounds it stores no keys, and every row counts
// as possibly selected. It may be used concurrently.
type matchedKeys struct {
	id    uint64 // of this set, in positions; never 0
	seed  maphash.Seed
	total *tenantKeys
	count *atomic.Int64 // of this set

	mu   sync.Mutex
	keys map[uint64]struct{} // nil: any
}

func newMatchedKeys(total *tenantKeys) *matchedKeys {
	m := &matchedKeys{
		id:    rand.Uint64() | 1,
		seed:  maphash.MakeSeed(),
		total: total,
		count: &atomic.Int64{},
		keys:  map[uint64]struct{}{},
	}
	// Sets end with their last watcher, or when they have not been used for long.
	runtime.AddCleanup(m, func(count *atomic.Int64) { total.add(-count.Load()) }, m.count)
	return m
}

// add stores the key of a selected row.
func (m *matchedKeys) add(key string) {
	hash := maphash.String(m.seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		return
	}
	if _, known := m.keys[hash]; known {
		return
	}
	if len(m.keys) == maxMatched || m.total.full() {
		m.keys = nil
		m.total.add(-m.count.Swap(0))
		m.total.node.exceeded.Add(1)
		return
	}
	m.keys[hash] = struct{}{}
	m.count.Add(1)
	m.total.add(1)
}

// has reports whether a row may have been selected.
func (m *matchedKeys) has(key string) bool {
	hash := maphash.String(m.seed, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.keys[hash]
	return known || m.keys == nil
}
