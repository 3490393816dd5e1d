package projection

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/tail"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

// viewBatch is a batch of events that are prepared one after the other and committed together.
type viewBatch struct {
	follower *follower
	events   []prepared
}

// batches are viewBatches for reuse: a batch of a subscription that is behind has many events.
var batches = sync.Pool{New: func() any { return &viewBatch{} }}

// Batch implements [tail.Handler].
func (f *follower) Batch() tail.Batch {
	b := batches.Get().(*viewBatch) //nolint:forcetypeassert // there is nothing else in it
	b.follower = f
	return b
}

// Add implements [tail.Batch].
func (b *viewBatch) Add(ctx context.Context, event backbone.Event) error {
	if f := b.follower; !f.final {
		f.aim(event.Sequence)
	}
	p, err := b.follower.prepare(ctx, event)
	if err != nil {
		return err
	}
	b.events = append(b.events, p)
	b.follower.added = event.Sequence
	return nil
}

// Apply implements [tail.Batch].
func (b *viewBatch) Apply(ctx context.Context) error {
	err := b.follower.apply(ctx, b.events)
	clear(b.events) // nothing holds events that have been applied
	b.events, b.follower = b.events[:0], nil
	batches.Put(b)
	return err
}

// prepared is an event that is ready to be applied.
type prepared struct {
	sequence uint64
	size     int // of its data, in bytes
	ref      model.EventRef
	data     model.Object
	meta     model.Meta
	// changes are the event's changes of the views, nil for none, or later.
	changes []*model.Change
	context contextkit.RequestContext
}

// later stands for a change that is computed from the row that the events before it leave, once
// they are applied.
var later = new(model.Change)

// prepare reads an event and does what can be done before those before it are
// applied.
func (f *follower) prepare(ctx context.Context, event backbone.Event) (prepared, error) {
	p := prepared{sequence: event.Sequence, size: len(event.Data), context: event.Context}
	var err error
	if p.ref, p.data, p.meta, err = f.read(ctx, event); err != nil {
		return p, fmt.Errorf("event %s at sequence %d: %w", event.ID, event.Sequence, err)
	}
	p.changes = make([]*model.Change, len(f.model.Views()))
	for i, view := range f.model.Views() {
		if !view.Blind(p.ref) {
			p.changes[i] = later
			continue
		}
		if p.changes[i], err = view.Project(ctx, p.ref, p.data, p.meta, nil); err != nil {
			return p, fmt.Errorf("event %s at sequence %d: %w", event.ID, event.Sequence, err)
		}
	}
	return p, nil
}

// apply commits a batch of events with its checkpoint.
func (f *follower) apply(ctx context.Context, events []prepared) error {
	began := time.Now()
	newest := &events[len(events)-1]
	last := newest.sequence
	touched := touchedRows{}
	err := f.rows.Apply(ctx, func(batch *store.Batch, state store.State) error {
		batch.Advance(store.Checkpoint{Sequence: last, EventID: newest.meta.EventID})
		for _, event := range events {
			var err error
			if event.sequence <= state.Sequence {
				// Another node has applied it; this node's watchers are notified too.
				err = f.touch(ctx, event, touched)
			} else {
				err = f.project(ctx, batch, event, touched)
			}
			if err != nil {
				return fmt.Errorf("event %s at sequence %d: %w", event.meta.EventID, event.sequence, err)
			}
		}
		return nil
	})
	if err == nil {
		f.advance(last)
		f.hub.publish(touched, last)
		f.record(ctx, events, began)
		if f.next.Load() {
			f.changes(f)
		}
	}
	return err
}

// record notes in the timeline that the events' rows are there. A rebuild adds nothing to the
// timelines of events that were applied before.
func (f *follower) record(ctx context.Context, events []prepared, began time.Time) {
	if f.timeline == nil {
		return
	}
	took := float64(time.Since(began).Microseconds()) / 1000
	for _, event := range events {
		if event.sequence <= f.past {
			continue
		}
		f.timeline.Record(contextkit.NewContext(ctx, event.context), backbone.Hop{
			Kind: backbone.HopProjection, Name: event.ref.Event, Started: began, Milliseconds: took, Code: "ok",
			Subject: event.meta.AggregateType + "/" + event.meta.AggregateID, Event: event.meta.EventID,
		})
	}
}

// read decodes an event for the model's rules.
func (f *follower) read(ctx context.Context, event backbone.Event) (model.EventRef, model.Object, model.Meta, error) {
	ref := model.EventRef{Aggregate: event.AggregateType, Event: event.Type}
	if event.Context.TenantID != f.tenant {
		return ref, nil, model.Meta{}, errors.New("it is of another tenant") // the subject says one tenant, the header another
	}
	data, err := f.model.Event(ctx, ref, event.DataVersion, event.Data)
	return ref, data, model.Meta{
		Tenant: f.tenant.String(), AggregateType: event.AggregateType, AggregateID: event.AggregateID,
		Version: event.Version, Time: event.Time.UTC().Format(time.RFC3339Nano), EventID: event.ID,
	}, err
}

// touch notes the rows that an event concerns.
func (f *follower) touch(ctx context.Context, event prepared, touched touchedRows) error {
	for _, view := range f.model.Views() {
		key, concerned, err := view.Key(ctx, event.ref, event.data, event.meta)
		if err != nil {
			return err
		}
		if concerned {
			touched.add(view.Name, key)
		}
	}
	return nil
}

// project writes what an event does to the views.
func (f *follower) project(ctx context.Context, batch *store.Batch, event prepared, touched touchedRows) error {
	for i, view := range f.model.Views() {
		change := event.changes[i]
		if change == later {
			var err error
			change, err = view.Project(ctx, event.ref, event.data, event.meta, func(key string) (model.Object, error) {
				return batch.Row(ctx, view, key)
			})
			if err != nil {
				return err
			}
		}
		if change == nil {
			continue
		}
		touched.add(view.Name, change.Key)
		if change.Row == nil {
			batch.Delete(view, change.Key)
		} else if err := batch.Put(view, change.Key, change.Row); err != nil {
			return err
		}
	}
	return nil
}
