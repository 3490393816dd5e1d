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
	// shards is the number of locks of a table of budgets.
	shards = 16
	// trackedCallers bounds the budgets of a table. While none of them can be forgotten,
	// further callers share one.
	trackedCallers = 65_536
	// sweepPause is the least time between two searches for budgets to forget.
	sweepPause = time.Second
)

// Budgets has a budget for each caller, by key. A budget is forgotten only when a new one
// would be the same, so that callers with many keys cannot reset any limit; while the table is
// full, further callers share a budget.
type Budgets[K comparable] struct {
	shared *Shared
	bounds func(K) bounds
	group  *Budget // see [Budget]
	most   int     // of a shard
	seed   maphash.Seed
	shards [shards]shard[K]
	// others is the budget that callers share for which the table has no place.
	others   *Budget
	overflow atomic.Int64
}

type shard[K comparable] struct {
	mu    sync.RWMutex
	known map[K]*Budget
	swept time.Time
}

func newBudgets[K comparable](shared *Shared, most int, bounds func(K) bounds, group *Budget) *Budgets[K] {
	b := &Budgets[K]{shared: shared, bounds: bounds, group: group, most: max(most/shards, 1), seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].known = map[K]*Budget{}
	}
	var none K
	b.others = newBudget(shared, bounds(none), group)
	return b
}

// NewCallers returns budgets of callers, each of which may use a share of the shared capacity,
// and all together another share; both are above 0 and at most 1. Refusals faster than a tenth
// of rate, which is per second, are held back, see [Budget.HoldBack].
func NewCallers[K comparable](shared *Shared, share, together, rate float64) (*Budgets[K], error) {
	if err := errors.Join(validShare(share), validShare(together)); err != nil {
		return nil, err
	}
	most := shared.portion(share)
	most.rate, most.burst = rate, max(int(2*rate), 1)
	var group *Budget
	if together < 1 {
		group = newBudget(shared, shared.portion(together), nil)
	}
	return newBudgets(shared, trackedCallers, func(K) bounds { return most }, group), nil
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
	if len(s.known) >= b.most && !s.sweep() {
		b.overflow.Add(1)
		return b.others
	}
	fresh := newBudget(b.shared, b.bounds(key), b.group)
	s.known[key] = fresh
	return fresh
}

// sweep forgets the budgets that can be forgotten, and reports whether there is a place. s.mu
// is held.
func (s *shard[K]) sweep() bool {
	now := time.Now()
	if now.Sub(s.swept) < sweepPause {
		return false
	}
	s.swept = now
	before := len(s.known)
	for key, budget := range s.known {
		if budget.forget() {
			delete(s.known, key)
		}
	}
	return len(s.known) < before
}

// pinned returns the caller's budget, which is not forgotten until it is unpinned.
func (b *Budgets[K]) pinned(key K) *Budget {
	for {
		if budget := b.Of(key); budget.pin() {
			return budget
		}
	}
}

// Enter takes a place for a call of the caller, or for a stream of answers, until the use
// leaves. Errors: [ErrConcurrency], [ErrStreams], [ErrFull].
func (b *Budgets[K]) Enter(key K, use *Use, stream bool, priority Priority) error {
	return use.enter(b.pinned(key), stream, priority)
}

// Move charges a use to the caller. On an error it stays charged to its former caller. Errors:
// [ErrConcurrency], [ErrStreams], [ErrBytes], [ErrLeft].
func (b *Budgets[K]) Move(key K, use *Use) error { return use.move(b.pinned(key)) }

// Tracked returns how many callers have a budget of their own.
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

// Overflowed returns how often a caller had to share a budget.
func (b *Budgets[K]) Overflowed() int64 { return b.overflow.Load() }

// Tenants has the budget of each tenant: its quota, and at most a share of the shared
// capacity.
type Tenants struct {
	*Budgets[contextkit.TenantID]

	config Config
	most   bounds                                         // of the share
	own    atomic.Pointer[map[contextkit.TenantID]Config] // tenants' own quotas
}

// NewTenants returns budgets of tenants with a quota, which may each use a share of the shared
// capacity, above 0 and at most 1.
func NewTenants(shared *Shared, quota Config, share float64) (*Tenants, error) {
	if err := errors.Join(quota.Validate(), validShare(share)); err != nil {
		return nil, err
	}
	t := &Tenants{config: quota.WithDefaults(), most: shared.portion(share)}
	t.Budgets = newBudgets(shared, trackedCallers, t.boundsOf, nil)
	return t, nil
}

// SetBounds sets the quotas of single tenants. Other tenants, and fields that are 0, have the
// default. The quotas apply immediately, also to calls in flight.
func (t *Tenants) SetBounds(own map[contextkit.TenantID]Config) {
	t.own.Store(&own)
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock() // budgets that are added later have the new quotas
		for id, budget := range s.known {
			budget.bind(t.boundsOf(id))
		}
		s.mu.Unlock()
	}
}

// boundsOf returns the tenant's bounds.
func (t *Tenants) boundsOf(id contextkit.TenantID) bounds {
	out := t.config
	if own := t.own.Load(); own != nil {
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
		rate: out.Rate, burst: out.Burst,
		calls: min(int64(out.Concurrent), t.most.calls), streams: min(int64(out.Streams), t.most.streams), bytes: t.most.bytes,
	}
}
