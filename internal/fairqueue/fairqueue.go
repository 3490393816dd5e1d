// Package fairqueue is a queue that accounts share: it is bounded in items and bytes,
// hands out the accounts' items in turn, and when it is full makes room for an account at
// the expense of the account that occupies most of it.
//
// An account alone may use the whole queue. An account that floods the queue loses its own
// newest items as soon as others need the room; it can neither displace nor delay theirs
// beyond one item per account and turn.
package fairqueue

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Bounds are the bounds of a queue, both positive.
type Bounds struct {
	// Items and Bytes bound the items that wait, and those taken and not released.
	Items, Bytes int
}

// Queue is a queue of values. Its methods may be called concurrently, except Take, which
// one goroutine calls. It is made by [New].
type Queue[V any] struct {
	bounds Bounds
	added  chan struct{} // holds a token when there may be items

	mu       sync.Mutex
	accounts map[string]*account[V]
	turns    []*account[V] // the accounts with items, the next to be served first
	spare    *account[V]   // one without items, which the next account becomes
	items    int           // waiting or taken
	bytes    int           // likewise
	waiting  int
}

// account is the share of one account. It is in the queue while it has items.
type account[V any] struct {
	name  string
	items []Item[V] // the oldest first, from head on
	head  int
	bytes int
}

// waiting returns how many items the account has.
func (a *account[V]) waiting() int { return len(a.items) - a.head }

// push adds an item.
func (a *account[V]) push(item Item[V]) {
	if a.head > 0 && len(a.items) == cap(a.items) { // there is room where items were
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
	// Size is the value's size in bytes, and Since when it was added.
	Size  int
	Since time.Time
}

// New returns an empty queue.
func New[V any](bounds Bounds) *Queue[V] {
	return &Queue[V]{bounds: bounds, added: make(chan struct{}, 1), accounts: map[string]*account[V]{}}
}

// Add adds a value of size bytes for an account, and returns the values that lost their
// place: newest items of the account that occupied most, or value itself if the queue is
// full and no other account occupies more than its own. It does not block.
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

// largest returns the account whose waiting items have most bytes, nil if none waits.
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

// remove forgets an account without items, which has no turn any more.
func (q *Queue[V]) remove(a *account[V]) {
	delete(q.accounts, a.name)
	a.name, a.items, a.head = "", a.items[:0], 0
	if cap(a.items) <= spareItems {
		q.spare = a
	}
}

// spareItems bounds the room for items that is used again.
const spareItems = 256

// Take removes and returns the next item, and waits for it until ctx ends; after that it
// fails, whether or not there are items. The item counts
// against the queue's bounds until it is passed to [Queue.Release].
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

// TryTake is Take without waiting: ok is false if no item waits.
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
		q.turns[len(q.turns)-1] = a // its next turn comes after the others'
		return item, true
	}
	q.turns[len(q.turns)-1] = nil
	q.turns = q.turns[:len(q.turns)-1]
	q.remove(a)
	return item, true
}

// Release gives the room of an item that was taken back to the queue. It is called once
// per item.
func (q *Queue[V]) Release(item Item[V]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items, q.bytes = q.items-1, q.bytes-item.Size
}

// Stats is the state of a queue.
type Stats struct {
	// Items and Bytes count what waits, and what was taken and is not released.
	Items, Bytes int
	// Waiting counts what waits, and Oldest is since when the first of it does; zero if
	// none.
	Waiting int
	Oldest  time.Time
}

// Stats returns the queue's state now.
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
