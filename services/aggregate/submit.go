package aggregate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/usage"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate/idempotency"
)

// maxConflicts bounds how often the service decides a command again because another node appended first.
const maxConflicts = 8

// submission is a list of commands for one aggregate with everything needed to decide them. They take effect
// together, in order, or not at all.
type submission struct {
	key      aggregateKey
	rules    rules
	commands []command
	dryRun   bool
	platform bool // the caller is the platform, for example the runner
	// principal is the subject of the caller; "": it is not known.
	principal string
}

// rules pins one model revision for a whole submission, so that a concurrent model change cannot mix revisions.
type rules struct {
	*model.Aggregate

	model    *model.Model
	revision string // model revision
}

// command is one command of a submission.
type command struct {
	rule     *model.Command
	payload  model.Object
	ref      journal.CommandRef
	expected *int64
}

// refusal names the command of a submission that is the reason why none of them took effect.
type refusal struct {
	index int
	err   error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// undecidableError reports that the model's rules cannot be evaluated for a command because of the state or the
// payload. Stored events are not affected.
type undecidableError struct{ err error }

func (e *undecidableError) Error() string {
	return "the model's rules cannot be evaluated for this command: " + e.err.Error()
}

func (e *undecidableError) Unwrap() error { return e.err }

// undecidable wraps err in an undecidableError if it is a failed evaluation.
func undecidable(err error) error {
	if errors.Is(err, model.ErrEvaluation) {
		return &undecidableError{err}
	}
	return err
}

// Errors of submit in addition to those of the model and of the journal.
var (
	errContended = errors.New("too many concurrent commands for the aggregate")
	errUncertain = errors.New("the journal has not acknowledged the events")
	errKeyReused = errors.New("the idempotency key was used for another command")
)

// versionError reports that expected_version is not the aggregate's version.
type versionError struct{ expected, current int64 }

func (e *versionError) Error() string {
	return fmt.Sprintf("the aggregate is at version %d, expected version is %d", e.current, e.expected)
}

// submit decides the commands and appends their events. It returns one decision per command, in order. If one command
// is rejected, none takes effect and the error is a [*refusal].
func (s *Service) submit(ctx context.Context, sub submission) ([]decision, error) {
	if err := s.journal.Integrity().Appendable(); err != nil {
		return nil, err
	}
	i, err := s.acquire(ctx, sub.key)
	if err != nil {
		return nil, err
	}
	defer s.release(sub.key, i)
	if err := i.log.Flush(ctx); err != nil {
		return nil, err
	}

	out := make([]decision, len(sub.commands))
	var pending []int // commands without a stored answer
	caughtUp := false
	refresh := func() (err error) {
		caughtUp = true
		if err = s.catchUp(ctx, sub.key, sub.rules, i); err == nil {
			// Another node may have appended events of this very submission, if the client sent it twice.
			pending, err = s.previous(ctx, sub, i, out)
		}
		return err
	}
	if s.mustCatchUp(sub, i) {
		err = refresh()
	} else {
		pending, err = s.previous(ctx, sub, i, out)
	}
	for tries := 0; err == nil && len(pending) > 0; tries++ {
		if tries > maxConflicts {
			return nil, errContended
		}
		events, ahead, refused := s.decide(ctx, sub, i, pending, out)
		if refused != nil || sub.dryRun || len(events) == 0 {
			// A cached state may be older than the appends of other nodes. An append checks that, so the cached state
			// is good enough to try one. Any other outcome is only returned after the state has been caught up once.
			if caughtUp || ctx.Err() != nil {
				if err := s.verifyNewest(ctx, sub.key, sub.rules, i); err != nil {
					return nil, err
				}
				return out, refused
			}
			err = refresh()
			continue
		}
		held, refusedBy := s.usage.Admit(sub.key.tenant, s.wanted(sub, i, pending, events), sub.platform)
		if refusedBy != nil {
			return nil, refusedBy
		}
		err = s.journal.Append(ctx, sub.key.tenant, i.sequence, events)
		if err == nil {
			s.count(sub, i, pending, events)
		}
		held.Release()
		switch {
		case err == nil:
			s.acknowledge(ctx, sub, i, pending, out, events, ahead)
			return out, nil
		case errors.Is(err, journal.ErrConflict):
			before := i.sequence
			if err = refresh(); err == nil && i.sequence == before {
				err = s.verifyAbsent(ctx, sub.key, sub.rules, i)
			}
		case errors.Is(err, journal.ErrDuplicate):
			// JetStream knows the key and the cached state does not: another node has decided the command, or the key
			// belongs to another aggregate.
			if err = refresh(); err == nil && len(pending) > 0 {
				err = &refusal{pending[0], errKeyReused}
			}
			return out, err
		case appendedNothing(err):
			return nil, err
		default:
			i.forget() // it is unknown whether the events were stored
			return nil, fmt.Errorf("%w: %w", errUncertain, err)
		}
	}
	return out, err
}

// mustCatchUp reports whether an instance cannot be used before the events after its sequence have been read.
func (s *Service) mustCatchUp(sub submission, i *instance) bool {
	return i.version == 0 || i.model != sub.rules.revision || i.epoch != s.journal.Epoch() ||
		i.sequence < i.snapshotted.sequence || len(i.skipped) > 0
}

// appendedNothing reports whether the journal has stored none of the events after an error of Append other than a
// conflict or a duplicate.
func appendedNothing(err error) bool {
	return errors.Is(err, journal.ErrTooLarge) || errors.Is(err, journal.ErrTooMany) ||
		errors.Is(err, journal.ErrRefused) || errors.Is(err, journal.ErrEndMissing) ||
		errors.Is(err, contextkit.ErrNoContext)
}

// decide evaluates the pending commands, each on the state that results from the commands before it. It returns their
// events and the resulting state. Events that the model could not fold are rejected, because they could never be read
// again.
func (s *Service) decide(
	ctx context.Context, sub submission, i *instance, pending []int, out []decision,
) ([]journal.Event, *instance, error) {
	now := time.Now()
	ahead := &instance{state: i.state, version: i.version}
	decidedBy := s.modelRef(sub.rules.model)
	var all []journal.Event
	for _, n := range pending {
		c := sub.commands[n]
		if c.expected != nil && *c.expected != ahead.version {
			return nil, nil, &refusal{n, &versionError{expected: *c.expected, current: ahead.version}}
		}
		decided, err := c.rule.Decide(ctx, ahead.state, c.payload, sub.key.meta(ahead.version, now, ""))
		if err != nil {
			return nil, nil, &refusal{n, undecidable(err)}
		}
		first, before := len(all), ahead.state
		for m, event := range decided {
			made, stored, err := s.emit(ctx, sub, n, ahead, event, now, decidedBy)
			if err != nil {
				return nil, nil, err
			}
			decided[m].Data = stored
			all = append(all, made)
		}
		if err := errors.Join(
			checkStateSize(before, ahead.state), checkIntegers("state", before, ahead.state),
		); err != nil {
			return nil, nil, &refusal{n, err}
		}
		out[n] = decision{
			events:   all[first:],
			decided:  decided,
			version:  ahead.version,
			sequence: i.sequence,
		}
	}
	// Appending may have reallocated all, so assign each decision its part again.
	first := 0
	for _, n := range pending {
		count := len(out[n].events)
		out[n].events = all[first : first+count]
		first += count
	}
	return all, ahead, nil
}

// emit makes an event of the submission's command n, and folds it into ahead. It folds the data as they are stored, so
// that every node has the same state, and returns them too. It rejects an event that makes a view fail regardless of
// the view's rows.
func (s *Service) emit(
	ctx context.Context, sub submission, n int, ahead *instance, event model.NewEvent, at time.Time,
	by journal.ModelRef,
) (journal.Event, model.Object, error) {
	data, stored, err := model.Encode(event.Data)
	if err != nil {
		return journal.Event{}, nil, fmt.Errorf("encode %s: %w", event.Type, err)
	}
	if err := checkIntegers(event.Type, nil, stored); err != nil {
		return journal.Event{}, nil, &refusal{n, err}
	}
	made := journal.Event{
		ID:            contextkit.NewID(),
		Type:          event.Type,
		AggregateType: sub.key.aggregateType,
		AggregateID:   sub.key.id,
		Version:       ahead.version + 1,
		Time:          at,
		Data:          data,
		DataVersion:   sub.rules.EventVersion(event.Type),
		Command:       sub.commands[n].ref,
		Model:         by,
		Principal:     sub.principal,
	}
	if s.timeline.HasObserver() {
		made.Span = contextkit.NewSpanID()
	}
	meta := sub.key.meta(made.Version, made.Time, made.ID)
	if err := ahead.evolve(ctx, sub.rules, made, stored, meta); err != nil {
		return journal.Event{}, nil, &refusal{n, undecidable(err)}
	}
	if err := sub.rules.model.CheckProjections(
		ctx, model.EventRef{Aggregate: sub.rules.Name, Event: made.Type}, stored, meta,
	); err != nil {
		return journal.Event{}, nil, &refusal{n, undecidable(err)}
	}
	return made, stored, nil
}

// modelRef returns the reference to a model. It is built once per model.
func (s *Service) modelRef(m *model.Model) journal.ModelRef {
	known := s.decidedBy.Load()
	if known == nil || known.model != m {
		known = &namedModel{m, journal.NewModelRef(m.Revision, m.Order, m.FromFile)}
		s.decidedBy.Store(known)
	}
	return known.ref
}

// namedModel is a model and the reference to it that events carry.
type namedModel struct {
	model *model.Model
	ref   journal.ModelRef
}

// eventBytes is the approximate size of an event's message without its data.
const eventBytes = 1024

// wanted returns the storage that appending events would use.
func (s *Service) wanted(sub submission, i *instance, pending []int, events []journal.Event) usage.Counts {
	add := usage.Counts{Events: int64(len(events))}
	if i.version == 0 {
		add.Aggregates = 1
	}
	for _, n := range pending {
		if sub.commands[n].ref.IdempotencyKey != "" {
			add.Keys++
		}
	}
	for n := range events {
		add.Bytes += int64(len(events[n].Data)) + eventBytes
	}
	return add
}

// count adds appended events to the tenant's storage use.
func (s *Service) count(sub submission, i *instance, pending []int, events []journal.Event) {
	stored := s.wanted(sub, i, pending, events)
	stored.Bytes = 0
	for n := range events {
		stored.Bytes += int64(events[n].Size)
	}
	s.usage.Add(sub.key.tenant, stored)
}

// acknowledge updates the instance and the decisions after a successful append.
func (s *Service) acknowledge(
	ctx context.Context, sub submission, i *instance, pending []int, out []decision, events []journal.Event,
	ahead *instance,
) {
	i.state, i.version = ahead.state, ahead.version
	for _, event := range events {
		i.sequence = event.Sequence
		i.log.Record(event)
	}
	sequence := events[len(events)-1].Sequence
	for _, n := range pending {
		out[n].sequence = sequence // the commands took effect together
	}
	_ = i.log.Flush(ctx) // on an error, the next command waits for it
	s.storeSnapshot(ctx, sub.key, i)
}

// previous fills in the stored answers of the commands' idempotency keys, and returns the indexes of the commands
// that have none.
func (s *Service) previous(
	ctx context.Context, sub submission, i *instance, out []decision,
) (pending []int, err error) {
	for n, c := range sub.commands {
		if c.ref.IdempotencyKey == "" {
			pending = append(pending, n)
			continue
		}
		known, ok, err := i.log.Find(ctx, c.ref.IdempotencyKey)
		if err != nil {
			return nil, err
		}
		if !ok {
			pending = append(pending, n)
			continue
		}
		if known.Fingerprint != c.ref.Fingerprint {
			return nil, &refusal{n, errKeyReused}
		}
		if out[n], err = s.replay(ctx, sub.key, known); err != nil {
			return nil, err
		}
	}
	return pending, nil
}

// replay reads the events of a command that was decided before.
func (s *Service) replay(ctx context.Context, key aggregateKey, known idempotency.Answer) (decision, error) {
	out := decision{replayed: true}
	err := s.journal.Load(
		ctx, key.tenant, key.aggregateType, key.id, known.FirstSequence, known.Events,
		func(event journal.Event) error {
			out.events = append(out.events, event)
			out.version, out.sequence = event.Version, event.Sequence
			return nil
		},
	)
	if err = s.unreadable(key, err); err != nil {
		return decision{}, err
	}
	if len(out.events) != known.Events {
		return decision{}, &damagedError{key: key}
	}
	return out, nil
}
