package limit

import (
	"errors"
	"sync"
)

// Use is what one call holds of its caller's budget and of the shared capacity: a slot and bytes.
// The zero value holds nothing. [Budgets.Acquire] fills it, and [Use.ReleaseAll] releases
// everything that it holds. It is safe for concurrent use.
type Use struct {
	mu       sync.Mutex
	budget   *Budget // nil: it holds nothing
	bytes    int64
	shared   bool // it holds a slot of the shared capacity
	stream   bool
	priority Priority
	failed   rejection
}

// rejection is the cause of the last rejected Reserve.
type rejection uint8

const (
	none         rejection = iota
	beyondBudget           // of the caller's budget
	beyondShared           // of its group, or of the shared capacity
)

// acquire acquires a slot of the budget, which is pinned, and of the shared capacity. On an error
// it unpins the budget. The use must hold nothing.
func (u *Use) acquire(b *Budget, stream bool, priority Priority) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := b.acquireSlot(stream); err != nil {
		b.unpin()
		return err
	}
	if !b.shared.limiter(stream).Acquire(1, priority) {
		b.releaseSlot(stream)
		b.unpin()
		return ErrFull
	}
	u.budget, u.shared, u.stream, u.priority, u.bytes, u.failed = b, true, stream, priority, 0, none
	return nil
}

// move charges everything that the use holds to another budget, which is pinned. On an error
// nothing moves, and the other budget is unpinned.
func (u *Use) move(to *Budget) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	from := u.budget
	if from == nil {
		to.unpin()
		return ErrReleased
	}
	if err := to.acquireSlot(u.stream); err != nil {
		to.unpin()
		return err
	}
	if err := to.acquireBytes(u.bytes); err != nil {
		to.releaseSlot(u.stream)
		to.unpin()
		return err
	}
	from.releaseSlot(u.stream)
	from.releaseBytes(u.bytes)
	from.unpin()
	u.budget = to
	return nil
}

// Reserve charges n more bytes of messages in memory. Errors: [ErrBytes] (the budget), [ErrFull]
// (the shared capacity), [ErrReleased].
func (u *Use) Reserve(n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.budget
	if b == nil {
		return ErrReleased
	}
	if err := b.acquireBytes(n); err != nil {
		u.failed = beyondBudget
		if errors.Is(err, ErrFull) {
			u.failed = beyondShared
		}
		return err
	}
	if !b.shared.bytes.Acquire(n, u.priority) {
		b.releaseBytes(n)
		u.failed = beyondShared
		return ErrFull
	}
	u.bytes += n
	return nil
}

// Release releases n bytes, or all reserved bytes if they are fewer.
func (u *Use) Release(n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.release(min(n, u.bytes))
}

func (u *Use) release(n int64) {
	if u.budget == nil || n == 0 {
		return
	}
	u.bytes -= n
	u.budget.releaseBytes(n)
	u.budget.shared.bytes.Release(n)
}

// ReserveError returns the last error of Reserve by which bytes were rejected, nil if there is
// none.
func (u *Use) ReserveError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.failed {
	case beyondBudget:
		return ErrBytes
	case beyondShared:
		return ErrFull
	}
	return nil
}

// Budget returns the charged budget, nil for none.
func (u *Use) Budget() *Budget {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.budget
}

// ReleaseShared releases the bytes and the slot of the shared capacity. The slot of the budget is
// held until ReleaseAll.
func (u *Use) ReleaseShared() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.releaseShared()
}

func (u *Use) releaseShared() {
	u.release(u.bytes)
	if u.shared {
		u.budget.shared.limiter(u.stream).Release(1)
		u.shared = false
	}
}

// ReleaseAll releases everything that the use holds.
func (u *Use) ReleaseAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.budget == nil {
		return
	}
	u.releaseShared()
	u.budget.releaseSlot(u.stream)
	u.budget.unpin()
	u.budget = nil
}
