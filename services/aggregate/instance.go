package aggregate

import (
	"context"
	"errors"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
)

// recentCommands bounds the commands whose answers an aggregate's state has. Older ones
// are in pages.
const recentCommands = 128

// aggregateKey names an aggregate.
type aggregateKey struct {
	tenant        contextkit.TenantID
	aggregateType string
	id            string
}

// instance is an aggregate's state, folded up to sequence. Whoever holds its
// lock may use it.
type instance struct {
	lock     chan struct{} // holds one value while free
	model    string        // revision of the model that folded it
	epoch    int64         // of the journal that it was folded from
	known    event         // of a snapshot, also of another model
	counted  int64         // events that the journal had when it had more than were folded
	version  int64
	sequence uint64    // of its last event, or of a message after it that is passed over
	passed   []passed  // messages that are no events, the oldest first
	claimed  int64     // see [backbone.Chain]
	beside   int64     // those of passed that version does not count
	newest   time.Time // when its last event was
	kept     int64     // version of the last snapshot
	measured int64     // version whose size the cache knows
	state    model.Object
	// recent is only added to and peeked at, so that answers fall out of it in the
	// journal's order.
	recent   *lru.Cache[string, answer]
	pages    []*page   // of what fell out, the oldest first; the last may have room
	chapters []uint64  // of the pages before those, the oldest first; by their first sequences
	binding  bool      // the oldest pages are about to be a chapter
	unkept   []*unkept // full pages and chapters that are not known to be in the bucket yet
}

func newInstance() *instance {
	i := &instance{lock: make(chan struct{}, 1), state: model.Object{}}
	i.recent, _ = lru.NewWithEvict(recentCommands, i.fall) // fails for a size below 1 only
	i.lock <- struct{}{}
	return i
}

// acquire returns the aggregate's instance, locked. Commands for one aggregate
// queue here within their deadlines, since only one of them could win.
func (s *Service) acquire(ctx context.Context, key aggregateKey) (*instance, error) {
	i, found := s.cache.get(key)
	if !found {
		i = s.cache.getOrAdd(key, newInstance(), instanceBytes) // another call's may have come first
	}
	select {
	case <-i.lock:
		return i, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release unlocks an instance, and charges the cache for its present size.
func (s *Service) release(key aggregateKey, i *instance) {
	if i.measured != i.version {
		i.measured = i.version
		s.cache.resize(key, i, i.resident())
	}
	i.lock <- struct{}{}
}

// forget makes the next catchUp fold from the first event on.
func (i *instance) forget() {
	i.version, i.sequence, i.kept, i.state, i.measured = 0, 0, 0, model.Object{}, -1
	i.passed, i.claimed, i.beside = nil, 0, 0
	i.recent.Purge()
	i.pages, i.chapters, i.binding, i.unkept = nil, nil, false, nil // folding again makes them again
}

// catchUp folds the events that are new since the last time. What was folded before an
// error is not folded again: an aggregate may have more events than a call has time for. A
// [*damagedError] says that the journal does not have all of them.
func (s *Service) catchUp(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	for attempt := 0; ; attempt++ {
		err := s.fold(ctx, key, by, i)
		for errors.Is(err, errBehind) {
			err = s.fold(ctx, key, by, i)
		}
		var damaged *damagedError
		if !errors.As(err, &damaged) || !s.doubted(ctx, attempt) {
			return err
		}
	}
}

// fold is catchUp by one look at the journal.
func (s *Service) fold(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	if epoch := s.journal.Epoch(); i.model != by.revision || i.epoch != epoch {
		i.forget() // another model, or another journal, may fold to another state
		if i.epoch != epoch {
			i.known = event{}
		}
		i.model, i.epoch = by.revision, epoch
	}
	if i.version == 0 {
		_ = s.journal.While(ctx, func(ctx context.Context) error { // without it all events are folded
			i.known = s.snapshots.restore(ctx, key, i)
			return nil
		})
	}
	if err := s.confirmPassed(ctx, key, i); err != nil {
		return err
	}
	known := event{max(i.version, i.known.version), max(i.sequence, i.known.sequence)}
	var broken error
	last, version, err := s.journal.LoadAll(ctx, key.tenant, key.aggregateType, key.id, i.sequence+1, func(event backbone.Event) error {
		s.loaded.Inc()
		if broken = i.apply(ctx, key, by, event); broken != nil {
			return broken
		}
		return s.settle(ctx, key, i)
	}, i.pass)
	switch {
	case broken != nil:
		i.forget()
		return err
	case errors.Is(err, backbone.ErrUnreadable):
		return &damagedError{key: key, from: i.version + 1, to: version}
	case err == nil && last < known.sequence: // the folded state stays, so that the next call notices it too
		return &damagedError{key: key, from: version + 1, to: known.version}
	}
	if err == nil && i.version > 0 && s.journal.Integrity().Damage() != nil {
		err = s.counted(ctx, key, i)
	}
	if err == nil {
		s.keep(ctx, key, i)
	}
	return s.unreadable(key, err)
}

// event is an event's version and sequence.
type event struct {
	version  int64
	sequence uint64
}

// apply folds one event, and remembers the command that it is of.
func (i *instance) apply(ctx context.Context, key aggregateKey, by rules, event backbone.Event) error {
	if err := i.fold(ctx, key, by, event); err != nil {
		return err
	}
	if event.Command.IdempotencyKey != "" {
		i.remember(event)
	}
	return nil
}

// fold makes the next state of an event.
func (i *instance) fold(ctx context.Context, key aggregateKey, by rules, event backbone.Event) error {
	if !i.continues(event.Version) {
		return &damagedError{key: key, from: min(i.version+1, event.Version), to: max(event.Version-1, i.version)}
	}
	data, err := by.Data(ctx, event.Type, event.DataVersion, event.Data)
	before := i.version
	if err == nil {
		err = i.evolve(ctx, by, event, data, key.meta(event.Version, event.Time, event.ID))
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return &unfoldableError{event: event, err: err}
	}
	i.beside -= event.Version - before - 1
	return nil
}

// evolve makes the next state of an event whose data is there already.
func (i *instance) evolve(ctx context.Context, by rules, event backbone.Event, data model.Object, meta model.Meta) error {
	state, err := by.Evolve(ctx, i.state, event.Type, data, meta)
	if err != nil {
		return err
	}
	i.state, i.version, i.sequence, i.newest = state, event.Version, event.Sequence, event.Time
	return nil
}

// remember notes which command an event is of.
func (i *instance) remember(event backbone.Event) {
	known, ok := i.recent.Peek(event.Command.IdempotencyKey)
	if !ok || known.Fingerprint != event.Command.Fingerprint {
		known = answer{Fingerprint: event.Command.Fingerprint, FirstSequence: event.Sequence}
	}
	known.Events++
	i.recent.Add(event.Command.IdempotencyKey, known)
}

// state returns the state at version, 0 for the newest, and the version reached.
func (s *Service) state(ctx context.Context, key aggregateKey, by rules, version int64) (model.Object, int64, error) {
	if version > 0 {
		return s.stateAt(ctx, key, by, version)
	}
	i, err := s.acquire(ctx, key)
	if err != nil {
		return nil, 0, err
	}
	defer s.release(key, i)
	if err := s.catchUp(ctx, key, by, i); err != nil {
		return nil, 0, err
	}
	return i.state, i.version, s.absent(ctx, key, by, i)
}

// errReached says that a version was passed.
var errReached = errors.New("the version is reached")

// stateAt returns the state at version, or at the last version below, and the version reached.
func (s *Service) stateAt(ctx context.Context, key aggregateKey, by rules, version int64) (model.Object, int64, error) {
	for again := false; ; again = true {
		at := newInstance()
		err := s.journal.Load(ctx, key.tenant, key.aggregateType, key.id, 1, int(version), func(event backbone.Event) error {
			if event.Version > version && at.continues(event.Version) {
				return errReached
			}
			return at.fold(ctx, key, by, event)
		}, at.pass)
		if err = s.unreadable(key, err); errors.Is(err, errReached) {
			return at.state, version, nil // a message that is no event has the version
		}
		if err != nil || at.version == version || again {
			return at.state, at.version, err
		}
		if _, newest, err := s.state(ctx, key, by, 0); err != nil || newest < version {
			return at.state, at.version, err // the journal is damaged, or ends there
		}
	}
}
