package limit

import (
	"errors"
	"sync"
)

// Use is the part of its caller's budget and of the shared capacity that one call holds: a
// place and bytes. The zero value holds nothing. [Budgets.Enter] fills it in, and [Use.Leave]
// returns all that it holds. Its methods are safe for concurrent use.
type Use struct {
	mu       sync.Mutex
	budget   *Budget // nil: it holds nothing
	bytes    int64
	sharing  bool // it holds a place in the shared capacity
	stream   bool
	priority Priority
	failed   refusal
}

// refusal is why bytes were refused last.
type refusal uint8

const (
	none         refusal = iota
	beyondBudget         // of the caller's budget
	beyondShared         // of its group, or of the shared capacity
)

// enter takes a place of the budget, which is pinned, and of the shared capacity. On an error
// it releases the pin. The use must hold nothing.
func (u *Use) enter(b *Budget, stream bool, priority Priority) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := b.takePlace(stream); err != nil {
		b.unpin()
		return err
	}
	if !b.shared.places(stream).Acquire(1, priority) {
		b.leavePlace(stream)
		b.unpin()
		return ErrFull
	}
	u.budget, u.sharing, u.stream, u.priority, u.bytes, u.failed = b, true, stream, priority, 0, none
	return nil
}

// move charges all that the use holds to another budget, which is pinned. On an error it
// stays where it is, and the pin is released.
func (u *Use) move(to *Budget) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	from := u.budget
	if from == nil {
		to.unpin()
		return ErrLeft
	}
	if err := to.takePlace(u.stream); err != nil {
		to.unpin()
		return err
	}
	if err := to.takeBytes(u.bytes); err != nil {
		to.leavePlace(u.stream)
		to.unpin()
		return err
	}
	from.leavePlace(u.stream)
	from.returnBytes(u.bytes)
	from.unpin()
	u.budget = to
	return nil
}

// Reserve charges n more bytes of messages in memory. Errors: [ErrBytes] (of the budget),
// [ErrFull] (of the shared capacity), [ErrLeft].
func (u *Use) Reserve(n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := u.budget
	if b == nil {
		return ErrLeft
	}
	if err := b.takeBytes(n); err != nil {
		u.failed = beyondBudget
		if errors.Is(err, ErrFull) {
			u.failed = beyondShared
		}
		return err
	}
	if !b.shared.bytes.Acquire(n, u.priority) {
		b.returnBytes(n)
		u.failed = beyondShared
		return ErrFull
	}
	u.bytes += n
	return nil
}

// Release returns n bytes, or all reserved bytes if they are fewer.
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
	u.budget.returnBytes(n)
	u.budget.shared.bytes.Release(n)
}

// Failed returns the last error of Reserve by which bytes were refused, nil if there is none.
func (u *Use) Failed() error {
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

// Budget returns the budget that is charged, nil for none.
func (u *Use) Budget() *Budget {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.budget
}

// LeaveShared returns the bytes and the place in the shared capacity. The place in the budget
// is held until Leave.
func (u *Use) LeaveShared() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leaveShared()
}

func (u *Use) leaveShared() {
	u.release(u.bytes)
	if u.sharing {
		u.budget.shared.places(u.stream).Release(1)
		u.sharing = false
	}
}

// Leave returns all that the use holds, if it holds anything.
func (u *Use) Leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.budget == nil {
		return
	}
	u.leaveShared()
	u.budget.leavePlace(u.stream)
	u.budget.unpin()
	u.budget = nil
}
