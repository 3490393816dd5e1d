package limit

import (
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/contextkit"
)

const (
	// shards is the number of locks of a table.
	shards = 16
	// maxTracked bounds the budgets of a table. While none of them can be removed, further callers
	// share one.
	maxTracked = 65_536
	// minSweepInterval is the shortest interval between two sweeps.
	minSweepInterval = time.Second
)

// Budgets holds a budget per caller, by key. A budget is removed only when a new one would be
// equal, so that callers with many keys cannot reset a limit; while the table is full, further
// callers share a budget.
type Budgets[K comparable] struct {
	shared      *Shared
	bounds      func(K) bounds
	group       *Budget // see [Budget]
	maxPerShard int     // per shard
	seed        maphash.Seed
	shards      [shards]shard[K]
	// overflowBudget is shared by the callers that do not fit into the table.
	overflowBudget *Budget
	overflow       atomic.Int64
}

type shard[K comparable] struct {
	mu    sync.RWMutex
	known map[K]*Budget
	swept time.Time
}

func newBudgets[K comparable](shared *Shared, most int, bounds func(K) bounds, group *Budget) *Budgets[K] {
	b := &Budgets[K]{
		shared:      shared,
		bounds:      bounds,
		group:       group,
		maxPerShard: max(most/shards, 1),
		seed:        maphash.MakeSeed(),
	}
	for i := range b.shards {
		b.shards[i].known = map[K]*Budget{}
	}
	var none K
	b.overflowBudget = newBudget(shared, bounds(none), group)
	return b
}

// NewCallers returns budgets of callers, each of which may use a share of the shared capacity, and
// all together another share; both are above 0 and at most 1. Rejections faster than a tenth of
// rate, in calls per second, are delayed, see [Budget.DelayRejection].
func NewCallers[K comparable](shared *Shared, share, together, rate float64) (*Budgets[K], error) {
	if err := errors.Join(validShare(share), validShare(together)); err != nil {
		return nil, err
	}
	most := shared.share(share)
	most.rate, most.burst = rate, max(int(2*rate), 1)
	var group *Budget
	if together < 1 {
		group = newBudget(shared, shared.share(together), nil)
	}
	return newBudgets(shared, maxTracked, func(K) bounds { return most }, group), nil
}

func validShare(share float64) error {
	if share <= 0 || share > 1 {
		return fmt.Errorf("limit: a share of %v: want above 0 and at most 1", share)
	}
	return nil
}

// Of returns the caller's budget.
func (b *Budgets[K]) Of(key K) *Budget {
	s := &b.shards[maphash.Comparable(b.seed, key)%shards]
	s.mu.RLock()
	found, ok := s.known[key]
	s.mu.RUnlock()
	if ok {
		return found
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.known[key]; ok {
		return found
	}
	if len(s.known) >= b.maxPerShard && !s.sweep() {
		b.overflow.Add(1)
		return b.overflowBudget
	}
	fresh := newBudget(b.shared, b.bounds(key), b.group)
	s.known[key] = fresh
	return fresh
}

// sweep removes the budgets that can be removed, and reports whether there is space. s.mu is held.
func (s *shard[K]) sweep() bool {
	now := time.Now()
	if now.Sub(s.swept) < minSweepInterval {
		return false
	}
	s.swept = now
	before := len(s.known)
	for key, budget := range s.known {
		if budget.remove() {
			delete(s.known, key)
		}
	}
	return len(s.known) < before
}

// pinned returns the caller's budget, which is not removed until it is unpinned.
func (b *Budgets[K]) pinned(key K) *Budget {
	for {
		if budget := b.Of(key); budget.pin() {
			return budget
		}
	}
}

// Acquire acquires a slot for a call or server stream of the caller, until [Use.ReleaseAll].
// Errors: [ErrConcurrency], [ErrStreams], [ErrFull].
func (b *Budgets[K]) Acquire(key K, use *Use, stream bool, priority Priority) error {
	return use.acquire(b.pinned(key), stream, priority)
}

// Move charges a use to the caller. On an error it stays charged to its previous caller. Errors:
// [ErrConcurrency], [ErrStreams], [ErrBytes], [ErrReleased].
func (b *Budgets[K]) Move(key K, use *Use) error { return use.move(b.pinned(key)) }

// Tracked returns the number of callers with their own budget.
func (b *Budgets[K]) Tracked() int {
	n := 0
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.RLock()
		n += len(s.known)
		s.mu.RUnlock()
	}
	return n
}

// Overflowed returns how often a caller had to use the shared budget.
func (b *Budgets[K]) Overflowed() int64 { return b.overflow.Load() }

// Tenants holds the budget of each tenant: its quota, and at most a share of the shared capacity.
type Tenants struct {
	*Budgets[contextkit.TenantID]

	config   Config
	maxShare bounds                                         // the bounds of the share
	quotas   atomic.Pointer[map[contextkit.TenantID]Config] // quotas of single tenants
}

// NewTenants returns budgets of tenants with a default quota, each of which may use a share of the
// shared capacity, above 0 and at most 1.
func NewTenants(shared *Shared, quota Config, share float64) (*Tenants, error) {
	if err := errors.Join(quota.Validate(), validShare(share)); err != nil {
		return nil, err
	}
	t := &Tenants{config: quota.WithDefaults(), maxShare: shared.share(share)}
	t.Budgets = newBudgets(shared, maxTracked, t.boundsOf, nil)
	return t, nil
}

// SetBounds replaces the quotas of single tenants. Other tenants, and fields that are 0, have the
// default. The quotas apply immediately, also to calls in flight.
func (t *Tenants) SetBounds(own map[contextkit.TenantID]Config) {
	t.quotas.Store(&own)
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock() // budgets that are added later use the new quotas
		for id, budget := range s.known {
			budget.setBounds(t.boundsOf(id))
		}
		s.mu.Unlock()
	}
}

// boundsOf returns the tenant's bounds.
func (t *Tenants) boundsOf(id contextkit.TenantID) bounds {
	out := t.config
	if own := t.quotas.Load(); own != nil {
		c := (*own)[id]
		if c.Rate > 0 {
			out.Rate, out.Burst = c.Rate, max(int(2*c.Rate), 1)
		}
		if c.Burst > 0 {
			out.Burst = c.Burst
		}
		if c.Concurrent > 0 {
			out.Concurrent = c.Concurrent
		}
		if c.Streams > 0 {
			out.Streams = c.Streams
		}
	}
	return bounds{
		rate:    out.Rate,
		burst:   out.Burst,
		calls:   min(int64(out.Concurrent), t.maxShare.calls),
		streams: min(int64(out.Streams), t.maxShare.streams),
		bytes:   t.maxShare.bytes,
	}
}
