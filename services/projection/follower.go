package projection

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
	"github.com/rs/zerolog"
)

// maxFollowWait bounds the wait before a failed follower tries again.
const maxFollowWait = 10 * time.Second

// follower keeps one tenant's views up to date.
type follower struct {
	tenant  contextkit.TenantID
	journal *backbone.Journal
	model   *model.Model
	rows    store.Store
	log     zerolog.Logger

	hub *hub

	target uint64 // what the journal held when the node started

	mu         sync.Mutex
	checkpoint uint64
	changed    chan struct{} // closed and replaced when checkpoint or failure changes
	failure    error         // why the follower does not advance
}

func newFollower(ctx context.Context, tenant contextkit.TenantID, journal *backbone.Journal, m *model.Model, rows store.Store, log zerolog.Logger) (*follower, error) {
	checkpoint, err := rows.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	target, err := journal.Last(ctx, tenant)
	if err != nil {
		return nil, err
	}
	return &follower{
		target: target,
		tenant: tenant, journal: journal, model: m, rows: rows, checkpoint: checkpoint,
		log: log.With().Str("tenant", tenant.String()).Logger(), changed: make(chan struct{}), hub: newHub(),
	}, nil
}

// run follows the journal until ctx ends. A failure is kept for readiness and
// tried again with growing waits: nothing is skipped.
func (f *follower) run(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = maxFollowWait
	for {
		start := f.position()
		err := f.journal.Follow(ctx, f.tenant, start+1, f.apply)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // an end that was asked for is no failure
		}
		f.fail(err)
		if f.position() != start {
			wait.Reset()
		}
		pause := wait.NextBackOff()
		f.log.Error().Err(err).Dur("again_in", pause).Uint64("checkpoint", f.position()).Msg("projection does not advance")
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// apply commits a batch of events with its checkpoint.
func (f *follower) apply(ctx context.Context, events []backbone.Event) error {
	last := events[len(events)-1].Sequence
	touched := touchedRows{}
	err := f.rows.Apply(ctx, last, func(batch store.Batch, from uint64) error {
		for _, event := range events {
			var err error
			if event.Sequence <= from {
				// Another node has applied it; this one's watchers are told all the same.
				err = f.touch(ctx, event, touched)
			} else {
				err = f.project(ctx, batch, event, touched)
			}
			if err != nil {
				return fmt.Errorf("event %s at sequence %d: %w", event.ID, event.Sequence, err)
			}
		}
		return nil
	})
	if err == nil {
		f.advance(last)
		f.hub.publish(touched, last)
	}
	return err
}

// read returns what the model's rules know of an event.
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
func (f *follower) touch(ctx context.Context, event backbone.Event, touched touchedRows) error {
	ref, data, meta, err := f.read(ctx, event)
	if err != nil {
		return err
	}
	for _, view := range f.model.Views() {
		key, concerned, err := view.Key(ctx, ref, data, meta)
		if err != nil {
			return err
		}
		if concerned {
			touched.add(view.Name, key)
		}
	}
	return nil
}

func (f *follower) project(ctx context.Context, batch store.Batch, event backbone.Event, touched touchedRows) error {
	ref, data, meta, err := f.read(ctx, event)
	if err != nil {
		return err
	}
	for _, view := range f.model.Views() {
		change, err := view.Project(ctx, ref, data, meta, func(key string) (model.Object, error) {
			return batch.Row(ctx, view, key)
		})
		switch {
		case err != nil:
			return err
		case change == nil:
		case change.Row == nil:
			err = batch.Delete(ctx, view, change.Key)
		default:
			err = batch.Put(ctx, view, change.Key, change.Row)
		}
		if err != nil {
			return err
		}
		if change != nil {
			touched.add(view.Name, change.Key)
		}
	}
	return nil
}

func (f *follower) position() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.checkpoint
}

func (f *follower) advance(sequence uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checkpoint, f.failure = sequence, nil
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failure = err
}

// failing returns why the follower does not advance, nil when it does.
func (f *follower) failing() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failure
}

// building returns how far the views are, and true until they hold what the
// journal held when the node started: before that they are not shown, since they
// may be anything between nothing and the whole.
func (f *follower) building() (done uint64, building bool) {
	done = f.position()
	return done, done < f.target
}

// wait returns once the checkpoint has reached sequence, or ctx's error.
func (f *follower) wait(ctx context.Context, sequence uint64) error {
	for {
		f.mu.Lock()
		reached, changed := f.checkpoint >= sequence, f.changed
		f.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
