package aggregate

import (
	"context"
	"errors"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate/idempotency"
)

// aggregateKey identifies an aggregate.
type aggregateKey struct {
	tenant        contextkit.TenantID
	aggregateType string
	id            string
}

// log returns the key of the aggregate's idempotency log.
func (k aggregateKey) log() idempotency.Key {
	return idempotency.Key{Tenant: k.tenant, Type: k.aggregateType, ID: k.id}
}

// instance is the state of an aggregate, folded up to sequence. The holder of lock may use it.
type instance struct {
	lock            chan struct{} // holds one value while unlocked
	model           string        // revision of the model that folded it
	epoch           int64         // of the journal that it was folded from
	snapshotted     event         // of the stored snapshot, even if that is of another model revision
	lastCount       int64         // events in the journal when it had more than were folded
	version         int64
	sequence        uint64           // of its last event, or of a skipped message after it
	skipped         []skippedMessage // messages that were declared non-events, oldest first
	claimed         int64            // see [journal.Chain]
	uncounted       int64            // skipped messages that version does not count
	snapshotVersion int64            // version of the last stored snapshot
	measured        int64            // version at which the cache was charged for its size
	state           model.Object
	log             *idempotency.Log
}

func newInstance(log *idempotency.Log) *instance {
	i := &instance{lock: make(chan struct{}, 1), state: model.Object{}, log: log}
	i.lock <- struct{}{}
	return i
}

// acquire returns the aggregate's instance, locked. Commands for one aggregate queue here until their deadlines,
// since concurrent appends would conflict anyway.
func (s *Service) acquire(ctx context.Context, key aggregateKey) (*instance, error) {
	i, found := s.cache.Get(key)
	if !found {
		i = s.cache.GetOrAdd(key, newInstance(s.logs.New(key.log())),
			instanceBytes) // a concurrent call may have added one
	}
	select {
	case <-i.lock:
		return i, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release unlocks an instance and charges the cache for its current size.
func (s *Service) release(key aggregateKey, i *instance) {
	if i.measured != i.version {
		i.measured = i.version
		s.cache.Resize(key, i, i.resident())
	}
	i.lock <- struct{}{}
}

// forget resets the instance, so that the next catchUp folds from the first event.
func (i *instance) forget() {
	i.version, i.sequence, i.snapshotVersion, i.state, i.measured = 0, 0, 0, model.Object{}, -1
	i.skipped, i.claimed, i.uncounted = nil, 0, 0
	i.log.Reset(i.epoch) // folding records the events again
}

// catchUp folds the events that were appended since the last call. Events folded before an error are not folded
// again, because an aggregate may have more events than one call has time for. A [*damagedError] reports that events
// are missing from the journal.
func (s *Service) catchUp(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	for attempt := 0; ; attempt++ {
		err := s.fold(ctx, key, by, i)
		for errors.Is(err, errBehind) {
			err = s.fold(ctx, key, by, i)
		}
		var damaged *damagedError
		if !errors.As(err, &damaged) || !s.recheckDamage(ctx, attempt) {
			return err
		}
	}
}

// fold is one attempt of catchUp.
func (s *Service) fold(ctx context.Context, key aggregateKey, by rules, i *instance) error {
	if epoch := s.journal.Epoch(); i.model != by.revision || i.epoch != epoch {
		if i.epoch != epoch {
			i.snapshotted = event{}
		}
		i.model, i.epoch = by.revision, epoch
		i.forget() // another model revision, or another journal, may result in another state
	}
	if i.version == 0 {
		_ = s.journal.While(ctx, func(ctx context.Context) error { // without a snapshot, all events are folded
			i.snapshotted = s.snapshots.restore(ctx, key, i)
			return nil
		})
	}
	if err := s.confirmSkipped(ctx, key, i); err != nil {
		return err
	}
	known := event{max(i.version, i.snapshotted.version), max(i.sequence, i.snapshotted.sequence)}
	var broken error
	last, version, err := s.journal.LoadAll(
		ctx, key.tenant, key.aggregateType, key.id, i.sequence+1, func(event journal.Event) error {
			s.loaded.Inc()
			if broken = i.apply(ctx, key, by, event); broken != nil {
				return broken
			}
			return i.log.Flush(ctx)
		}, i.skip,
	)
	switch {
	case broken != nil:
		i.forget()
		return err
	case errors.Is(err, journal.ErrUnreadable):
		return &damagedError{key: key, from: i.version + 1, to: version}
	case err == nil && last < known.sequence: // the folded state stays, so that the next call detects it too
		return &damagedError{key: key, from: version + 1, to: known.version}
	}
	if err == nil && i.version > 0 && s.journal.Integrity().Damage() != nil {
		err = s.verifyCount(ctx, key, i)
	}
	if err == nil {
		s.storeSnapshot(ctx, key, i)
	}
	return s.unreadable(key, err)
}

// event is the version and the sequence of an event.
type event struct {
	version  int64
	sequence uint64
}

// apply folds one event and records its command in the idempotency log.
func (i *instance) apply(ctx context.Context, key aggregateKey, by rules, event journal.Event) error {
	if err := i.fold(ctx, key, by, event); err != nil {
		return err
	}
	i.log.Record(event)
	return nil
}

// fold computes the next state from a stored event.
func (i *instance) fold(ctx context.Context, key aggregateKey, by rules, event journal.Event) error {
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
	i.uncounted -= event.Version - before - 1
	return nil
}

// evolve computes the next state from an event whose data is decoded.
func (i *instance) evolve(
	ctx context.Context, by rules, event journal.Event, data model.Object, meta model.Meta,
) error {
	state, err := by.Evolve(ctx, i.state, event.Type, data, meta)
	if err != nil {
		return err
	}
	i.state, i.version, i.sequence = state, event.Version, event.Sequence
	return nil
}

// state returns the state at version (0: the newest) and the version reached.
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
	return i.state, i.version, s.verifyNewest(ctx, key, by, i)
}

// errReached stops reading once the requested version is passed.
var errReached = errors.New("version reached")

// stateAt returns the state at version, or at the last existing version below it, and that version.
func (s *Service) stateAt(ctx context.Context, key aggregateKey, by rules, version int64) (model.Object, int64, error) {
	for again := false; ; again = true {
		at := newInstance(nil) // for folding alone
		err := s.journal.Load(
			ctx, key.tenant, key.aggregateType, key.id, 1, int(version), func(event journal.Event) error {
				if event.Version > version && at.continues(event.Version) {
					return errReached
				}
				return at.fold(ctx, key, by, event)
			}, at.skip,
		)
		if err = s.unreadable(key, err); errors.Is(err, errReached) {
			return at.state, version, nil // a message that was declared no event has this version
		}
		if err != nil || at.version == version || again {
			return at.state, at.version, err
		}
		if _, newest, err := s.state(ctx, key, by, 0); err != nil || newest < version {
			return at.state, at.version, err // the journal is damaged, or ends there
		}
	}
}
