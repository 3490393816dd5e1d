// Package fairqueue is a bounded queue that accounts share fairly. It is bounded in items and in bytes. It returns the
// items of the accounts in turn (round robin), and when it is full, it displaces items of the account that occupies the
// most bytes.
//
// An account without competitors may use the whole queue. An account that floods the queue loses its own newest items
// as soon as other accounts need the space. It cannot displace their items, and delays them by at most one item per
// account and turn.
package fairqueue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Bounds are the bounds of a queue, both positive.
type Bounds struct {
	// Items and Bytes bound the waiting items together with the items that were taken and not released.
	Items, Bytes int
}

// Queue is a queue of values; [New] makes one. Its methods may be called concurrently, except Take, which one goroutine
// calls.
type Queue[V any] struct {
	bounds Bounds
	added  chan struct{} // holds a value when there may be items

	mu       sync.Mutex
	accounts map[string]*account[V]
	turns    []*account[V] // accounts with waiting items; the first one is served next
	spare    *account[V]   // an unused account, for reuse by the next account
	items    int           // items that wait, or were taken and not released
	bytes    int           // their bytes
	waiting  int
}

// account is the queue of one account. The queue contains it only while it has waiting items.
type account[V any] struct {
	name  string
	items []Item[V] // waiting items from index head on, the oldest first
	head  int
	bytes int
}

// waiting returns the number of waiting items.
func (a *account[V]) waiting() int { return len(a.items) - a.head }

// push adds an item.
func (a *account[V]) push(item Item[V]) {
	if a.head > 0 && len(a.items) == cap(a.items) { // reuse the space before head
		n := copy(a.items, a.items[a.head:])
		clear(a.items[n:])
		a.items, a.head = a.items[:n], 0
	}
	a.items = append(a.items, item)
	a.bytes += item.Size
}

// first removes and returns the oldest item.
func (a *account[V]) first() Item[V] {
	item := a.items[a.head]
	a.items[a.head] = Item[V]{}
	a.head++
	a.bytes -= item.Size
	return item
}

// last removes and returns the newest item.
func (a *account[V]) last() Item[V] {
	item := a.items[len(a.items)-1]
	a.items[len(a.items)-1] = Item[V]{}
	a.items = a.items[:len(a.items)-1]
	a.bytes -= item.Size
	return item
}

// Item is a value in a queue.
type Item[V any] struct {
	Value V
	// Size is the value's size in bytes, and Since is when it was added.
	Size  int
	Since time.Time
}

// New returns an empty queue.
func New[V any](bounds Bounds) *Queue[V] {
	return &Queue[V]{bounds: bounds, added: make(chan struct{}, 1), accounts: map[string]*account[V]{}}
}

// Add adds a value of size bytes for an account, and returns the displaced values: the newest items of the account that
// occupies the most bytes, or value itself if the queue is full and no other account occupies more than this one would.
// It does not block.
func (q *Queue[V]) Add(name string, size int, value V) (displaced []V) {
	q.mu.Lock()
	defer q.mu.Unlock()
	own := 0
	if a := q.accounts[name]; a != nil {
		own = a.bytes
	}
	for q.items+1 > q.bounds.Items || q.bytes+size > q.bounds.Bytes {
		largest := q.largest()
		if largest == nil || largest.name == name || largest.bytes <= own+size {
			return append(displaced, value)
		}
		displaced = append(displaced, q.drop(largest))
	}
	a := q.accounts[name]
	if a == nil {
		if a, q.spare = q.spare, nil; a == nil {
			a = &account[V]{}
		}
		a.name = name
		q.accounts[name], q.turns = a, append(q.turns, a)
	}
	a.push(Item[V]{Value: value, Size: size, Since: time.Now()})
	q.items, q.bytes, q.waiting = q.items+1, q.bytes+size, q.waiting+1
	select {
	case q.added <- struct{}{}:
	default:
	}
	return displaced
}

// largest returns the account whose waiting items have the most bytes; nil: no items wait.
func (q *Queue[V]) largest() (found *account[V]) {
	for _, a := range q.turns {
		if found == nil || a.bytes > found.bytes {
			found = a
		}
	}
	return found
}

// drop removes and returns an account's newest value.
func (q *Queue[V]) drop(a *account[V]) V {
	item := a.last()
	q.waiting--
	q.items, q.bytes = q.items-1, q.bytes-item.Size
	if a.waiting() == 0 {
		q.turns = slices.DeleteFunc(q.turns, func(other *account[V]) bool { return other == a })
		q.remove(a)
	}
	return item.Value
}

// remove removes an account without waiting items, which must not be in turns.
func (q *Queue[V]) remove(a *account[V]) {
	delete(q.accounts, a.name)
	a.name, a.items, a.head = "", a.items[:0], 0
	if cap(a.items) <= spareItems {
		q.spare = a
	}
}

// spareItems bounds the capacity, in items, of an account that is reused.
const spareItems = 256

// Take removes and returns the next item. It waits for an item until ctx ends, and returns the error of ctx if it has
// ended, even if items wait. The item counts against the queue's bounds until [Queue.Release].
func (q *Queue[V]) Take(ctx context.Context) (Item[V], error) {
	for ctx.Err() == nil {
		if item, ok := q.TryTake(); ok {
			return item, nil
		}
		select {
		case <-q.added:
		case <-ctx.Done():
		}
	}
	return Item[V]{}, ctx.Err()
}

// TryTake is [Queue.Take] without waiting; ok is false if no item waits.
func (q *Queue[V]) TryTake() (item Item[V], ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turns) == 0 {
		return item, false
	}
	a := q.turns[0]
	item = a.first()
	q.waiting--
	copy(q.turns, q.turns[1:])
	if a.waiting() > 0 {
		q.turns[len(q.turns)-1] = a // it is served after all other accounts
		return item, true
	}
	q.turns[len(q.turns)-1] = nil
	q.turns = q.turns[:len(q.turns)-1]
	q.remove(a)
	return item, true
}

// Release makes the space of a taken item available again. It must be called once per item.
func (q *Queue[V]) Release(item Item[V]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.bytes = q.items-1, q.bytes-item.Size
}

// Stats is the state of a queue.
type Stats struct {
	// Items and Bytes count the waiting items together with the items that were taken and not released.
	Items, Bytes int
	// Waiting counts the waiting items, and Oldest is when the oldest of them was added; zero: no items wait.
	Waiting int
	Oldest  time.Time
}

// Stats returns the current state of the queue.
func (q *Queue[V]) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	stats := Stats{Items: q.items, Bytes: q.bytes, Waiting: q.waiting}
	for _, a := range q.turns {
		if since := a.items[a.head].Since; stats.Oldest.IsZero() || since.Before(stats.Oldest) {
			stats.Oldest = since
		}
	}
	return stats
}
