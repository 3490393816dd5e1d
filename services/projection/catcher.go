package projection

import (
	"context"
	"errors"
	"sync"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/services/projection/store"
)

// catcherEvents and catcherBytes bound the events that a view that is apart applies together.
const catcherEvents, catcherBytes = 512, 4 << 20

// catcher has a view that is apart catch up with the others, up to an event that it cannot apply:
// there it waits until a skip or the model changes. It is the handler of a subscription of its own.
type catcher struct {
	follower *follower
	index    int  // of the view's part
	tried    bool // whether the view fails still is known; only the handler's methods access it
	at       uint64
	event    string // the id of the event at it, as Cursor has read it

	mu           sync.Mutex // held while the subscription begins
	subscription *tail.Subscription
	asked        uint64 // how often the view was asked to try again
}

// catch starts to catch up for a view. f.mu is held.
func (f *follower) catch(index int) *catcher {
	c := &catcher{follower: f, index: index}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscription = f.tail.Subscribe(f.tenant, c, tail.Options{Events: catcherEvents, Bytes: catcherBytes})
	return c
}

// stop ends the subscription, and returns when its handler is not called any longer. The handler
// must not call it.
func (c *catcher) stop() {
	var s *tail.Subscription
	c.with(func(begun *tail.Subscription) { s = begun })
	s.Stop() // c.mu is not held: the handler's methods, for which it waits, need it
}

// with calls do with the subscription. do must not wait for the handler.
func (c *catcher) with(do func(*tail.Subscription)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c.subscription)
}

// again has the view try again, from its checkpoint.
func (c *catcher) again() {
	c.with(func(s *tail.Subscription) {
		c.asked++
		s.Reset()
		s.Resume()
	})
}

// attempt returns the number of the attempt that begins now, for rest.
func (c *catcher) attempt() (number uint64) {
	c.with(func(*tail.Subscription) { number = c.asked })
	return number
}

// rest has no further events delivered after an attempt, unless the view was asked to try again
// meanwhile: the attempt may not have followed what has changed.
func (c *catcher) rest(attempt uint64) {
	c.with(func(s *tail.Subscription) {
		if c.asked == attempt {
			s.Pause()
		}
	})
}

func (c *catcher) part() *part { return c.follower.parts[c.index] }

// Cursor implements [tail.Handler].
func (c *catcher) Cursor(ctx context.Context) (uint64, error) {
	f, attempt := c.follower, c.attempt()
	f.applying.Lock()
	defer f.applying.Unlock()
	state, err := f.aligned(ctx)
	if err != nil {
		return 0, err
	}
	f.settle(state)
	view := state.View(c.part().view.Name)
	if !view.Apart || view.Failure != "" && c.tried {
		c.rest(attempt)
	}
	c.at, c.event = view.Sequence, view.EventID
	return c.at, nil
}

// CursorEvent implements [tail.Prover].
func (c *catcher) CursorEvent() string { return c.event }

// Report implements [tail.Handler]. What keeps a view from catching up beside its own failures, and a
// loss of the journal, keeps the other views from advancing too, which is reported there.
func (c *catcher) Report(err error) {
	if journalLost(err) {
		c.follower.beyond(c.at, err)
	}
}

// Batch implements [tail.Handler].
func (c *catcher) Batch() tail.Batch { return &catchBatch{catcher: c} }

// catchBatch are events for a view that is apart.
type catchBatch struct {
	catcher *catcher
	events  []prepared
}

// Add implements [tail.Batch].
func (b *catchBatch) Add(ctx context.Context, event backbone.Event) error {
	p, err := b.catcher.follower.prepare(ctx, event, b.catcher.part())
	if err == nil {
		b.events = append(b.events, p)
	}
	return err
}

// Pass implements [tail.Passer].
func (b *catchBatch) Pass(sequence uint64) {
	b.events = append(b.events, prepared{sequence: sequence, passed: true})
}

// Apply implements [tail.Batch].
func (b *catchBatch) Apply(ctx context.Context) error {
	c := b.catcher
	attempt := c.attempt()
	c.follower.applying.Lock()
	defer c.follower.applying.Unlock()
	over, err := c.apply(ctx, b.events)
	if over {
		c.rest(attempt)
	}
	return err
}

// apply applies events to the view. It returns true when the view is in step again or fails: no
// further events are wanted.
func (c *catcher) apply(ctx context.Context, events []prepared) (over bool, err error) {
	var next store.State
	err = c.follower.change(ctx, func(batch *store.Batch, state store.State) error {
		next, over, err = c.applyTo(ctx, batch, state, events, nil)
		return err
	})
	rejected, ok := errors.AsType[*store.RejectedError](err)
	switch {
	case !ok:
	case len(events) > 1: // which of them the database refuses is found by halves
		half := len(events) / 2
		if over, err = c.apply(ctx, events[:half]); over || err != nil {
			return over, err
		}
		return c.apply(ctx, events[half:])
	default:
		err = c.follower.change(ctx, func(batch *store.Batch, state store.State) error {
			next, over, err = c.applyTo(ctx, batch, state, events, rejected)
			return err
		})
	}
	if err != nil {
		return false, err
	}
	c.follower.settle(next)
	if now := next.View(c.part().view.Name); now.Sequence > c.at {
		c.at = now.Sequence
	}
	return over, nil
}

// applyTo adds what events do to the view to a batch, and returns the state that results. rejected
// is why the database refuses the only event; nil: it may accept it.
func (c *catcher) applyTo(ctx context.Context, batch *store.Batch, state store.State, events []prepared, rejected error) (next store.State, over bool, err error) {
	f, name := c.follower, c.part().view.Name
	view := state.View(name)
	if !view.Apart {
		return state, true, nil
	}
	if view.Sequence < c.at { // it is made again: the events before are missing
		c.tried = false
		defer c.with((*tail.Subscription).Reset)
		return state, false, nil
	}
	last := events[len(events)-1].sequence
	if last <= view.Sequence {
		return state, false, nil // another node has applied them, and may have found a failure after them
	}
	var failure *Failure
	done := view.Checkpoint
	if rejected != nil && events[0].sequence > view.Sequence {
		failure = newFailure(c.part().view, &events[0], rejected)
	} else if done, failure, err = f.applyTo(ctx, batch, c.index, view.Checkpoint, events, state.Sequence, nil); err != nil {
		return state, false, err
	}
	view.Checkpoint, view.Failure = done, ""
	switch {
	case failure != nil:
		c.tried = true
		view.Failure = failure.text()
	case last >= state.Sequence || done.Sequence >= state.Sequence:
		view.Apart, view.Checkpoint = false, state.Checkpoint
	}
	return setView(batch, state, name, view), failure != nil || !view.Apart, nil
}
