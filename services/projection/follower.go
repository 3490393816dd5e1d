package projection

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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

// maxResumes bounds a tenant's watchers that concurrently read the events that they have
// missed.
const maxResumes = 4

// follower keeps one tenant's views up to date.
type follower struct {
	tenant  contextkit.TenantID
	journal *backbone.Journal
	model   *model.Model
	rows    store.Store
	log     zerolog.Logger

	hub    *hub
	shared *sharedRows // between watchers

	resumes chan struct{} // holds a value for each watcher that reads missed events

	target   uint64       // what the journal held when the follower was made
	waiting  atomic.Int64 // events that waited when the last one was read
	timeline *backbone.Timeline
	advanced atomic.Pointer[func()] // hears of every batch; nil: nobody does

	damaged atomic.Bool // the rows' store is damaged: Run replaces the follower
	rebuilt bool        // the rows are built anew, since they were damaged

	gone   chan struct{}      // closed by leave: nobody waits for a position here any more
	leave  func()             // the follower is about to be closed
	cancel context.CancelFunc // ends run; nil: it has not begun
	ended  chan struct{}      // closed when run has ended
	use    sync.RWMutex       // held to read while rows are read, to write to close them
	closed bool

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
	gone := make(chan struct{})
	return &follower{
		target: target, gone: gone, leave: sync.OnceFunc(func() { close(gone) }),
		tenant: tenant, journal: journal, model: m, rows: rows, checkpoint: checkpoint,
		log: log.With().Str("tenant", tenant.String()).Logger(), changed: make(chan struct{}), hub: newHub(), shared: newSharedRows(),
		resumes: make(chan struct{}, maxResumes),
	}, nil
}

// run follows the journal until ctx ends. A failure is kept for readiness and
// tried again with growing waits: nothing is skipped.
func (f *follower) run(ctx context.Context) {
	wait := backoff.NewExponentialBackOff()
	wait.MaxInterval = maxFollowWait
	for {
		start := f.position()
		err := backbone.Follow(ctx, f.journal, f.tenant, start+1, func(ctx context.Context, event backbone.Event) (prepared, error) {
			f.waiting.Store(event.Pending)
			return f.prepare(ctx, event)
		}, f.apply)
		if ctx.Err() != nil {
			return
		}
		f.fail(err)
		if f.position() != start {
			wait.Reset()
		}
		pause := wait.NextBackOff()
		f.log.Error().Err(err).Dur("again_in", pause).Uint64("checkpoint", f.position()).Msg("projection does not advance")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		// Where nothing waits, no event will say that it advances again.
		if last, err := f.journal.Last(ctx, f.tenant); err == nil && last <= f.position() {
			f.fail(nil)
		}
	}
}

// prepared is an event that is ready to be applied.
type prepared struct {
	sequence uint64
	size     int // of its data, in bytes
	ref      model.EventRef
	data     model.Object
	meta     model.Meta
	// changes are what the event does to the views, nil for nothing, or later.
	changes []*model.Change
	context contextkit.RequestContext
}

// later stands for a change that can only be told once the events before it have been
// applied, by the row that they leave.
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
	last := events[len(events)-1].sequence
	touched := touchedRows{}
	err := f.rows.Apply(ctx, last, func(batch *store.Batch, from uint64) error {
		for _, event := range events {
			var err error
			if event.sequence <= from {
				// Another node has applied it; this one's watchers are told all the same.
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
		if advanced := f.advanced.Load(); advanced != nil {
			(*advanced)()
		}
	}
	return err
}

// record notes in the timeline that the events' rows are there.
func (f *follower) record(ctx context.Context, events []prepared, began time.Time) {
	if f.timeline == nil {
		return
	}
	took := float64(time.Since(began).Microseconds()) / 1000
	for _, event := range events {
		f.timeline.Record(contextkit.NewContext(ctx, event.context), backbone.Hop{
			Kind: backbone.HopProjection, Name: event.ref.Event, Started: began, Milliseconds: took, Code: "ok",
			Subject: event.meta.AggregateType + "/" + event.meta.AggregateID, Event: event.meta.EventID,
		})
	}
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

// wait returns once the checkpoint has reached sequence, or [errMoved] or ctx's error.
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
		case <-f.gone:
			return errMoved
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
