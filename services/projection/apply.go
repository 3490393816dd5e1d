package projection

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// viewBatch is a batch of events that are prepared one by one and committed together.
type viewBatch struct {
	follower *follower
	after    store.Checkpoint // the event before the first one
	events   []prepared
}

// batches pools viewBatches, since a batch of a subscription that is behind holds many events.
var batches = sync.Pool{New: func() any { return &viewBatch{} }}

// Batch implements [tail.Handler].
func (f *follower) Batch() tail.Batch {
	b := batches.Get().(*viewBatch) //nolint:forcetypeassert // the pool holds nothing else
	b.follower = f
	return b
}

// Add implements [tail.Batch].
func (b *viewBatch) Add(ctx context.Context, event journal.Event) error {
	if f := b.follower; !f.final {
		f.aim(event.Sequence)
	}
	p, err := b.follower.prepare(ctx, event, nil)
	if err != nil {
		return err
	}
	b.add(p)
	return nil
}

// Pass implements [tail.Passer]: the checkpoint advances over the message.
func (b *viewBatch) Pass(sequence uint64) {
	if f := b.follower; !f.final {
		f.aim(sequence)
	}
	b.add(prepared{sequence: sequence, skipped: true})
}

func (b *viewBatch) add(p prepared) {
	f := b.follower
	if len(b.events) == 0 {
		b.after = f.added
	}
	b.events = append(b.events, p)
	f.added = store.Checkpoint{Sequence: p.sequence, EventID: p.meta.EventID}
}

// Apply implements [tail.Batch].
func (b *viewBatch) Apply(ctx context.Context) error {
	err := b.follower.apply(ctx, b)
	clear(b.events) // release events that have been applied
	b.events, b.follower = b.events[:0], nil
	batches.Put(b)
	return err
}

// prepared is an event that is ready to be applied.
type prepared struct {
	sequence uint64
	skipped  bool // the message is not an event and changes nothing
	size     int  // of its data, in bytes
	ref      model.EventRef
	data     model.Object
	meta     model.Meta
	// unreadable is the reason why the model cannot read the event's data, or nil.
	unreadable error
	// changes are the event's changes per view: nil for none, or deferred.
	changes []*model.Change
	// failed maps a view's index to the error of its change; nil: no errors.
	failed  map[int]error
	context contextkit.RequestContext
}

// deferred marks a change that depends on the row as the preceding events leave it. It is computed once they are
// applied.
var deferred = new(model.Change)

// prepare reads an event and does the work that does not depend on the events before it, for all views in step or, if
// only is set, for that view.
func (f *follower) prepare(ctx context.Context, event journal.Event, only *part) (prepared, error) {
	p := prepared{sequence: event.Sequence, size: len(event.Data), context: event.Context}
	var err error
	if p.ref, p.data, p.meta, err = f.read(ctx, event); err != nil {
		if !errors.Is(err, errUnreadable) {
			return p, fmt.Errorf("event %s at sequence %d: %w", event.ID, event.Sequence, err)
		}
		p.unreadable = err
	}
	p.changes = make([]*model.Change, len(f.parts))
	for i, part := range f.parts {
		switch {
		case p.unreadable != nil || !part.view.Blind(p.ref), only == nil && part.detached.Load():
			p.changes[i] = deferred
			continue
		case only != nil && part != only:
			continue
		}
		p.changes[i], err = part.view.Project(ctx, p.ref, p.data, p.meta, nil)
		switch {
		case err == nil:
		case isViewFailure(ctx, err):
			if p.failed == nil {
				p.failed = map[int]error{}
			}
			p.failed[i] = err
		default:
			return p, fmt.Errorf("event %s at sequence %d: %w", event.ID, event.Sequence, err)
		}
	}
	return p, nil
}

// apply commits a batch of events with the checkpoint of the views in step.
func (f *follower) apply(ctx context.Context, b *viewBatch) error {
	began, events := time.Now(), b.events
	f.applying.Lock()
	defer f.applying.Unlock()
	var (
		touched touchedRows
		next    store.State
		refused map[string]struct{} // views of which the database rejects a row
	)
	for {
		touched = touchedRows{}
		err := f.change(ctx, func(batch *store.Batch, state store.State) (err error) {
			if err := b.follows(state); err != nil {
				return err
			}
			next, err = f.applyInStep(ctx, batch, state, events, refused, touched)
			return err
		})
		if err == nil {
			break
		}
		rejected, ok := errors.AsType[*store.RejectedError](err)
		if !ok {
			return err
		}
		if _, again := refused[rejected.View]; again {
			return err
		}
		if refused == nil {
			refused = map[string]struct{}{}
		}
		refused[rejected.View] = struct{}{} // its catcher finds the event
	}
	f.adopt(next)
	last := events[len(events)-1].sequence
	f.advance(last)
	f.hub.publish(touched, last, f.isDetached)
	f.record(ctx, events, began)
	if f.hidden.Load() {
		f.onChange(f)
	}
	return nil
}

// applyInStep adds the changes of the views in step to a batch, and returns the resulting state. A view that cannot
// apply an event is detached before that event. The views in refused are detached before all events.
func (f *follower) applyInStep(
	ctx context.Context, batch *store.Batch, state store.State, events []prepared, refused map[string]struct{},
	touched touchedRows,
) (next store.State, err error) {
	newest := &events[len(events)-1]
	next = state
	if newest.sequence > state.Sequence {
		next.Checkpoint = store.Checkpoint{Sequence: newest.sequence, EventID: newest.meta.EventID}
		batch.Advance(next.Checkpoint)
		begin(batch, state.Sequence, events)
	}
	for i, part := range f.parts {
		view := state.View(part.view.Name)
		if view.Detached {
			continue
		}
		var failure *Failure
		if _, refused := refused[part.view.Name]; refused {
			view.Detached = true
		} else if view.Checkpoint, failure, err = f.applyTo(
			ctx, batch, i, view.Checkpoint, events, math.MaxUint64, touched,
		); err != nil {
			return next, err
		}
		if failure != nil {
			view.Detached, view.Failure = true, failure.text()
		}
		if view.Detached {
			next = setView(batch, next, part.view.Name, view)
		}
	}
	return next, nil
}

// applyTo adds the changes of one view by the events after a checkpoint, up to a sequence, to a batch. It returns the
// view's new checkpoint and the failure of the event after it, or nil. It adds the affected rows to touched unless
// touched is nil.
func (f *follower) applyTo(
	ctx context.Context, batch *store.Batch, i int, from store.Checkpoint, events []prepared, upTo uint64,
	touched touchedRows,
) (done store.Checkpoint, failure *Failure, err error) {
	view := f.parts[i].view
	skips := f.skips.of(f.tenant, view.Fingerprint())
	done = from
	for n := range events {
		event := &events[n]
		switch {
		case event.sequence > upTo:
			return done, nil, nil
		case event.sequence <= from.Sequence:
			// Another node has applied it; this node's watchers must be notified too.
			if !event.skipped {
				f.touch(ctx, view, event, touched)
			}
			continue
		case event.skipped, skips.skips(event.meta.EventID):
			err = nil
		default:
			err = f.project(ctx, batch, i, event, touched)
		}
		if isViewFailure(ctx, err) {
			return done, newFailure(view, event, err), nil
		}
		if err != nil {
			return done, nil, fmt.Errorf("event %s at sequence %d: %w", event.meta.EventID, event.sequence, err)
		}
		done = store.Checkpoint{Sequence: event.sequence, EventID: event.meta.EventID}
	}
	return done, nil, nil
}

// begin adds the aggregates that begin with the events after a sequence to a batch.
func begin(batch *store.Batch, after uint64, events []prepared) {
	for n := range events {
		event := &events[n]
		if event.sequence > after && !event.skipped && event.meta.Version == 1 {
			batch.Begin(store.Aggregate{
				Type:    event.meta.AggregateType,
				ID:      event.meta.AggregateID,
				Event:   eventType(event.ref.Event),
				Created: event.meta.Time,
			})
		}
	}
}

// isDetached reports whether a view is not in step.
func (f *follower) isDetached(view string) bool {
	p := f.part(view)
	return p != nil && p.detached.Load()
}

// record adds a span to the timeline of each event, which reports that the event's rows are stored. A rebuild adds no
// spans for events that were applied before.
func (f *follower) record(ctx context.Context, events []prepared, began time.Time) {
	if f.timeline == nil {
		return
	}
	took := float64(time.Since(began).Microseconds()) / 1000
	for _, event := range events {
		if event.skipped || event.sequence <= f.appliedBefore {
			continue
		}
		f.timeline.Record(contextkit.NewContext(ctx, event.context), timeline.Span{
			Kind:         timeline.KindProjection,
			Name:         event.ref.Event,
			Started:      began,
			Milliseconds: took,
			Code:         "ok",
			Subject:      event.meta.AggregateType + "/" + event.meta.AggregateID,
			Event:        event.meta.EventID,
		})
	}
}

// read decodes an event for the model's rules. If the data cannot be decoded, the error wraps errUnreadable.
func (f *follower) read(ctx context.Context, event journal.Event) (model.EventRef, model.Object, model.Meta, error) {
	ref := model.EventRef{Aggregate: event.AggregateType, Event: event.Type}
	data, err := f.model.Event(ctx, ref, event.DataVersion, event.Data)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return ref, data, model.Meta{
		Tenant:        f.tenant.String(),
		AggregateType: event.AggregateType,
		AggregateID:   event.AggregateID,
		Version:       event.Version,
		Time:          event.Time.UTC().Format(time.RFC3339Nano),
		EventID:       event.ID,
	}, err
}

// touch records the row of a view that an event affects. An event without a key has changed no row.
func (f *follower) touch(ctx context.Context, view *model.View, event *prepared, touched touchedRows) {
	if touched == nil || event.unreadable != nil {
		return
	}
	if key, concerned, err := view.Key(ctx, event.ref, event.data, event.meta); err == nil && concerned {
		touched.add(view.Name, key)
	}
}

// project adds the change of a view by an event to a batch.
func (f *follower) project(ctx context.Context, batch *store.Batch, i int, event *prepared, touched touchedRows) error {
	view, change := f.parts[i].view, event.changes[i]
	if event.unreadable != nil {
		if view.Concerns(event.ref) {
			return event.unreadable
		}
		return nil
	}
	if err := event.failed[i]; err != nil {
		return err
	}
	if change == deferred {
		var err error
		change, err = view.Project(ctx, event.ref, event.data, event.meta, func(key string) (model.Object, error) {
			return batch.Row(ctx, view, key)
		})
		if err != nil {
			return err
		}
	}
	if change == nil {
		return nil
	}
	if touched != nil {
		touched.add(view.Name, change.Key)
	}
	if change.Row == nil {
		batch.Delete(view, change.Key)
		return nil
	}
	if err := batch.Put(view, change.Key, change.Row); err != nil {
		return fmt.Errorf("%w: %w", errUnstorable, err)
	}
	return nil
}
