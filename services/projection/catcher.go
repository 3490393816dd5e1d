package projection

import (
	"context"
	"errors"
	"sync"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/services/projection/store"
)

// catcherEvents and catcherBytes bound the events that a detached view applies in one batch.
const catcherEvents, catcherBytes = 512, 4 << 20

// catcher lets a detached view catch up with the others, up to an event that it cannot apply. There it waits until
// the event is skipped or the model changes. It handles a separate subscription.
type catcher struct {
	follower *follower
	index    int  // of the view's part
	tried    bool // it is known whether the view still fails; only the handler's methods access it
	at       uint64
	event    string // the id of the event at that sequence, as Cursor has read it

	mu           sync.Mutex // held while the subscription starts
	subscription *tail.Subscription
	requested    uint64 // number of requests to retry the view
}

// catch starts the catch-up of a view. The caller holds f.mu.
func (f *follower) catch(index int) *catcher {
	c := &catcher{follower: f, index: index}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscription = f.tail.Subscribe(f.tenant, c, tail.Options{Events: catcherEvents, Bytes: catcherBytes})
	return c
}

// stop ends the subscription and waits for running calls of its handler. The handler must not call it.
func (c *catcher) stop() {
	var s *tail.Subscription
	c.with(func(begun *tail.Subscription) { s = begun })
	s.Stop() // c.mu must not be held: the handler's methods, which Stop waits for, need it
}

// with calls do with the subscription. do must not wait for the handler.
func (c *catcher) with(do func(*tail.Subscription)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	do(c.subscription)
}

// retry makes the view retry from its checkpoint.
func (c *catcher) retry() {
	c.with(func(s *tail.Subscription) {
		c.requested++
		s.Reset()
		s.Resume()
	})
}

// beginAttempt returns the number of the attempt that starts now, for pause.
func (c *catcher) beginAttempt() (number uint64) {
	c.with(func(*tail.Subscription) { number = c.requested })
	return number
}

// pause stops the delivery of events after an attempt, unless a retry was requested during the attempt, which may
// have missed the reason for that request.
func (c *catcher) pause(attempt uint64) {
	c.with(func(s *tail.Subscription) {
		if c.requested == attempt {
			s.Pause()
		}
	})
}

func (c *catcher) part() *part { return c.follower.parts[c.index] }

// Cursor implements [tail.Handler].
func (c *catcher) Cursor(ctx context.Context) (uint64, error) {
	f, attempt := c.follower, c.beginAttempt()
	f.applying.Lock()
	defer f.applying.Unlock()
	state, err := f.aligned(ctx)
	if err != nil {
		return 0, err
	}
	f.adopt(state)
	view := state.View(c.part().view.Name)
	if !view.Detached || view.Failure != "" && c.tried {
		c.pause(attempt)
	}
	c.at, c.event = view.Sequence, view.EventID
	return c.at, nil
}

// CursorEvent implements [tail.Prover].
func (c *catcher) CursorEvent() string { return c.event }

// Report implements [tail.Handler]. An error other than the view's own failure or a loss of the journal affects the
// other views too, whose follower reports it.
func (c *catcher) Report(err error) {
	if journalLost(err) {
		c.follower.onBeyond(c.at, err)
	}
}

// Batch implements [tail.Handler].
func (c *catcher) Batch() tail.Batch { return &catchBatch{catcher: c} }

// catchBatch is a batch of events for a detached view.
type catchBatch struct {
	catcher *catcher
	events  []prepared
}

// Add implements [tail.Batch].
func (b *catchBatch) Add(ctx context.Context, event journal.Event) error {
	p, err := b.catcher.follower.prepare(ctx, event, b.catcher.part())
	if err == nil {
		b.events = append(b.events, p)
	}
	return err
}

// Pass implements [tail.Passer].
func (b *catchBatch) Pass(sequence uint64) {
	b.events = append(b.events, prepared{sequence: sequence, skipped: true})
}

// Apply implements [tail.Batch].
func (b *catchBatch) Apply(ctx context.Context) error {
	c := b.catcher
	attempt := c.beginAttempt()
	c.follower.applying.Lock()
	defer c.follower.applying.Unlock()
	over, err := c.apply(ctx, b.events)
	if over {
		c.pause(attempt)
	}
	return err
}

// apply applies events to the view. over is true if no further events are wanted, because the view is in step again
// or fails.
func (c *catcher) apply(ctx context.Context, events []prepared) (over bool, err error) {
	var next store.State
	err = c.follower.change(ctx, func(batch *store.Batch, state store.State) error {
		next, over, err = c.applyTo(ctx, batch, state, events, nil)
		return err
	})
	rejected, ok := errors.AsType[*store.RejectedError](err)
	switch {
	case !ok:
	case len(events) > 1: // bisect to find the event that the database rejects
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
	c.follower.adopt(next)
	if now := next.View(c.part().view.Name); now.Sequence > c.at {
		c.at = now.Sequence
	}
	return over, nil
}

// applyTo adds the changes of the view by events to a batch, and returns the resulting state. rejected is the reason
// why the database rejects the only event; nil means that it may accept it.
func (c *catcher) applyTo(
	ctx context.Context, batch *store.Batch, state store.State, events []prepared, rejected error,
) (next store.State, over bool, err error) {
	f, name := c.follower, c.part().view.Name
	view := state.View(name)
	if !view.Detached {
		return state, true, nil
	}
	if view.Sequence < c.at { // it is being rebuilt: the events before are missing
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
	} else if done, failure, err = f.applyTo(
		ctx, batch, c.index, view.Checkpoint, events, state.Sequence, nil,
	); err != nil {
		return state, false, err
	}
	before := parseFailure(name, view)
	view.Checkpoint, view.Failure = done, ""
	switch {
	case failure != nil:
		c.tried = true
		failure.continues(before)
		view.Failure = failure.text()
	case last >= state.Sequence || done.Sequence >= state.Sequence:
		view.Detached, view.Checkpoint = false, state.Checkpoint
	}
	return setView(batch, state, name, view), failure != nil || !view.Detached, nil
}
