package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/model"
)

// undrivableError reports that an instance cannot continue until an operator intervenes; step is the step, "" before
// the first.
type undrivableError struct{ step, message string }

func (e *undrivableError) Error() string { return e.message }

// definition returns the workflow that drives an instance: from the model revision that the instance is pinned to, or
// from the model in use if that declares a migration. Error: an [*undrivableError], or an error if the workflow
// cannot be determined now.
func (e *engine) definition(ctx context.Context, i *instance) (*model.Workflow, error) {
	current := e.models.Current()
	var unknown error // why the model of the instance is unknown
	if i.Model == "" {
		unknown = e.adopt(ctx, i, current)
	}
	m := current
	if i.Model != current.Revision {
		if next, ok := current.Workflow(i.Workflow); ok && next.Migration.Covers(i.Model) {
			if migrated, err := e.migrate(ctx, i, current, next); err != nil || migrated {
				return next, err
			}
		}
		if unknown != nil {
			return nil, unknown
		}
		var err error
		if m, err = e.pinned(ctx, i.Model); err != nil {
			return nil, err
		}
	}
	workflow, ok := m.Workflow(i.Workflow)
	if !ok {
		return nil, &undrivableError{
			message: fmt.Sprintf("model revision %s has no workflow %q", m.Revision, i.Workflow),
		}
	}
	return workflow, nil
}

// pinned returns the model of a revision that is not the one in use.
func (e *engine) pinned(ctx context.Context, revision string) (*model.Model, error) {
	m, err := e.revisions.model(ctx, revision)
	var mistakes *model.Error
	switch {
	case errors.Is(err, errNoRevision):
		return nil, &undrivableError{
			message: fmt.Sprintf(
				"model revision %s, to which the instance is pinned, is not stored: apply a model whose workflow "+
					"migrates from it",
				revision,
			),
		}
	case errors.As(err, &mistakes):
		return nil, &undrivableError{
			message: fmt.Sprintf(
				"model revision %s, to which the instance is pinned, is not supported by this version: apply a model "+
					"whose workflow migrates from it: %v",
				revision, mistakes.Issues[0],
			),
		}
	}
	return m, err
}

// adopt pins an instance that an earlier version started: to the model that was in use at the time, if the history
// has it, else to the model in use, else to the newest model that fits.
func (e *engine) adopt(ctx context.Context, i *instance, current *model.Model) error {
	history, err := e.history.History(ctx, models.Key)
	if err != nil {
		return err
	}
	var began, newest *model.Model
	for _, kept := range history { // newest first
		m := current
		if kept.Value.Revision != current.Revision {
			if m, err = e.revisions.parse(ctx, kept.Value.Revision, kept.Value.Text); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if err != nil || !i.fits(m) {
			continue
		}
		newest = cmp.Or(newest, m)
		if !kept.Time.After(i.Started) {
			began = m
			break
		}
	}
	chosen := cmp.Or(began, newest)
	if began == nil && i.fits(current) {
		chosen = current
	}
	if chosen == nil {
		return &undrivableError{
			message: fmt.Sprintf(
				"neither the model in use nor a stored earlier one has the workflow %q of %s events with the "+
					"completed steps",
				i.Workflow, i.Trigger.Meta.AggregateType,
			),
		}
	}
	if err := e.revisions.retain(ctx, chosen); err != nil {
		return err
	}
	if workflow, _ := chosen.Workflow(i.Workflow); i.Event == "" {
		i.Event = workflow.On.Event
	}
	i.Model, i.dirty = chosen.Revision, true
	return nil
}

// fits reports whether a model has the instance's workflow with all completed steps.
func (i *instance) fits(m *model.Model) bool {
	workflow, ok := m.Workflow(i.Workflow)
	if !ok || workflow.On.Aggregate != i.Trigger.Meta.AggregateType {
		return false
	}
	for _, done := range i.Steps {
		if !workflow.HasStep(strings.TrimPrefix(done.Name, undoPrefix)) {
			return false
		}
	}
	return true
}

// undoPrefix is the prefix of the name of a compensating step.
const undoPrefix = "undo "

// migrate moves an instance to the model in use, if its workflow declares a mapping for each step that the instance
// has completed or started. Otherwise the instance stays pinned.
func (e *engine) migrate(ctx context.Context, i *instance, current *model.Model, next *model.Workflow) (bool, error) {
	if next.On.Aggregate != i.Trigger.Meta.AggregateType || i.Event != "" && next.On.Event != i.Event {
		return false, nil
	}
	renamed := func(old string) (string, bool) {
		base, undo := strings.CutPrefix(old, undoPrefix)
		name, ok := next.Migration.Step(next, base)
		if undo && name != "" {
			name = undoPrefix + name
		}
		return name, ok
	}
	migrated := *i
	migrated.Steps = slices.Clone(i.Steps)
	for n := range migrated.Steps {
		name, ok := renamed(migrated.Steps[n].Name)
		if !ok {
			return false, nil
		}
		if name != "" { // a dropped step stays in the record, as history
			migrated.Steps[n].Name = name
		}
	}
	migrated.Requests = nil
	for old, sent := range i.Requests {
		name, ok := renamed(old)
		if !ok {
			return false, nil
		}
		if name != "" {
			migrated.request(name, sent)
		}
	}
	if name, ok := renamed(i.Failure.Step); ok && name != "" {
		migrated.Failure.Step = name
	}
	if i.Waiting != nil {
		name, ok := renamed(i.Waiting.Step)
		migrated.Waiting = nil
		if ok && name != "" {
			migrated.Waiting = &waiting{Step: name, Until: i.Waiting.Until}
		}
	}
	event, err := i.event()
	if err != nil {
		return false, err
	}
	known, err := trigger(ctx, current, next.On, i.tenant, event)
	if err != nil {
		return false, nil //nolint:nilerr // its data cannot be converted for this model: it stays pinned
	}
	if err := e.revisions.retain(ctx, current); err != nil {
		return false, err
	}
	migrated.Trigger, migrated.DataVersion = known, max(event.DataVersion, current.EventVersion(next.On))
	migrated.Model, migrated.Event, migrated.dirty = current.Revision, next.On.Event, true
	*i = migrated
	return true, nil
}

// trigger returns an event in the form of a model's rules.
func trigger(
	ctx context.Context, m *model.Model, on model.EventRef, tenant contextkit.TenantID, event journal.Event,
) (model.Trigger, error) {
	data, err := m.Event(ctx, on, event.DataVersion, event.Data)
	if err != nil && !errors.Is(err, model.ErrEvaluation) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", journal.ErrMalformedEvent, err)
	}
	return model.Trigger{Data: data, Meta: triggerMeta(tenant, event)}, err
}
