package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/model"
)

// maxConflicts bounds how often a command is decided again because another node
// appended first.
const maxConflicts = 8

// submission is a command with everything needed to decide it.
type submission struct {
	key       aggregateKey
	aggregate *model.Aggregate
	command   *model.Command
	payload   model.Object
	ref       backbone.CommandRef
	expected  *int64
	dryRun    bool
}

// Errors of submit beyond the model's and the journal's.
var (
	errContended  = errors.New("other commands for the aggregate kept winning")
	errUncertain  = errors.New("the journal did not acknowledge the events")
	errKeyReused  = errors.New("the idempotency key was used for another command")
	errUnrecorded = errors.New("the idempotency key was used moments ago and its answer is not recorded yet")
)

// versionError says that expected_version is not the aggregate's version.
type versionError struct{ expected, current int64 }

func (e *versionError) Error() string {
	return fmt.Sprintf("the aggregate is at version %d, not at the expected %d", e.current, e.expected)
}

// submit decides the command and appends its events.
func (s *Service) submit(ctx context.Context, sub submission) (decision, error) {
	i, err := s.acquire(ctx, sub.key)
	if err != nil {
		return decision{}, err
	}
	defer i.release()

	// A kept state may be behind another node's appends. It is good enough to
	// try an append, which checks it; before a refusal is believed it is caught
	// up once.
	caughtUp := false
	refresh := func() error {
		caughtUp = true
		return s.catchUp(ctx, sub.key, sub.aggregate, i)
	}
	if i.version == 0 || i.model != s.models.Current().Revision {
		if err := refresh(); err != nil {
			return decision{}, err
		}
	}
	if previous, found, err := s.previous(ctx, sub, i); err != nil || found {
		return previous, err
	}
	for range maxConflicts {
		events, err := s.decide(ctx, sub, i)
		if err != nil && !caughtUp && ctx.Err() == nil {
			if err := refresh(); err != nil {
				return decision{}, err
			}
			continue
		}
		if err != nil {
			return decision{}, err
		}
		if sub.dryRun || len(events) == 0 {
			return decision{events: events, version: i.version + int64(len(events)), sequence: i.sequence}, nil
		}
		err = s.journal.Append(ctx, sub.key.tenant, i.sequence, events)
		switch {
		case err == nil:
			return s.acknowledge(ctx, sub, i, events)
		case errors.Is(err, backbone.ErrConflict):
			if err := refresh(); err != nil {
				return decision{}, err
			}
			// The one who won may have been this very command, sent twice.
			if previous, found, err := s.previous(ctx, sub, i); err != nil || found {
				return previous, err
			}
		case errors.Is(err, backbone.ErrDuplicate):
			return s.duplicate(ctx, sub, i)
		case errors.Is(err, backbone.ErrTooLarge), errors.Is(err, contextkit.ErrNoContext):
			return decision{}, err
		default:
			i.forget() // whether the events stand is not known
			return decision{}, fmt.Errorf("%w: %w", errUncertain, err)
		}
	}
	return decision{}, errContended
}

// decide asks the model, on the state as it is.
func (s *Service) decide(ctx context.Context, sub submission, i *instance) ([]backbone.Event, error) {
	if sub.expected != nil && *sub.expected != i.version {
		return nil, &versionError{expected: *sub.expected, current: i.version}
	}
	now := time.Now()
	decided, err := sub.command.Decide(ctx, i.state, sub.payload, sub.key.meta(i.version, now, ""))
	if err != nil {
		return nil, err
	}
	events := make([]backbone.Event, len(decided))
	for n, event := range decided {
		data, err := json.Marshal(event.Data)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", event.Type, err)
		}
		events[n] = backbone.Event{
			ID: contextkit.NewID(), Type: event.Type, AggregateType: sub.key.aggregateType, AggregateID: sub.key.id,
			Version: i.version + int64(n) + 1, Time: now, Data: data, Command: sub.ref,
		}
	}
	return events, nil
}

// acknowledge folds what was appended and records the answer.
func (s *Service) acknowledge(ctx context.Context, sub submission, i *instance, events []backbone.Event) (decision, error) {
	for _, event := range events {
		if err := i.apply(ctx, sub.key, sub.aggregate, event); err != nil {
			i.forget() // the events stand; the next command folds them again
			break
		}
	}
	last := events[len(events)-1]
	if sub.ref.IdempotencyKey != "" {
		s.answers.record(ctx, sub.key.tenant, sub.ref, answer{
			Fingerprint: sub.ref.Fingerprint, AggregateType: sub.key.aggregateType, AggregateID: sub.key.id,
			FirstSequence: events[0].Sequence, Events: len(events),
		})
	}
	return decision{events: events, version: last.Version, sequence: last.Sequence}, nil
}

// previous returns the answer that the idempotency key was given before.
func (s *Service) previous(ctx context.Context, sub submission, i *instance) (decision, bool, error) {
	if sub.ref.IdempotencyKey == "" {
		return decision{}, false, nil
	}
	known, ok := i.recent.Get(sub.ref.IdempotencyKey)
	if !ok {
		var err error
		if known, ok, err = s.answers.lookup(ctx, sub.key.tenant, sub.ref); err != nil || !ok {
			return decision{}, false, err
		}
	}
	if known.Fingerprint != sub.ref.Fingerprint {
		return decision{}, false, errKeyReused
	}
	previous, err := s.replay(ctx, sub.key, known)
	return previous, true, err
}

// duplicate answers a command whose key JetStream has seen but the kept state
// has not.
func (s *Service) duplicate(ctx context.Context, sub submission, i *instance) (decision, error) {
	if err := s.catchUp(ctx, sub.key, sub.aggregate, i); err != nil {
		return decision{}, err
	}
	previous, found, err := s.previous(ctx, sub, i)
	if err == nil && !found {
		err = errUnrecorded
	}
	return previous, err
}

// replay reads back the events of a decided command.
func (s *Service) replay(ctx context.Context, key aggregateKey, known answer) (decision, error) {
	errDone := errors.New("done")
	out := decision{replayed: true}
	err := s.journal.Load(ctx, key.tenant, known.AggregateType, known.AggregateID, known.FirstSequence, func(event backbone.Event) error {
		out.events = append(out.events, event)
		out.version, out.sequence = event.Version, event.Sequence
		if len(out.events) == known.Events {
			return errDone
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDone) {
		return decision{}, err
	}
	return out, nil
}
