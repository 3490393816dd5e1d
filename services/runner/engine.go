package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/workqueue"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// commandTimeout bounds one command of a step.
const commandTimeout = 5 * time.Second

// parallelSteps bounds the concurrent steps of one instance.
const parallelSteps = 8

// Commander sends commands. The generated CommandServiceClient implements it.
type Commander interface {
	Submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error)
}

// engine drives instances.
type engine struct {
	models    *model.Registry
	instances *instances
	revisions *revisions
	history   *kv.Bucket[models.Document] // of models
	commands  Commander
	webhooks  *webhook.Caller
	js        jetstream.JetStream
	timeline  *timeline.Recorder
	failing   *failing
	postponed *postponed
	maxDepth  int
}

// refusedError reports that the command of a step was permanently refused.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// errFailed reports that an instance could not be compensated.
var errFailed = errors.New("the workflow failed and could not be compensated")

// run drives the workflow's instance for an event until it ends or waits, and returns it; nil if it has no record.
// After an error that is not [final] the caller runs it again; completed steps are not repeated.
func (e *engine) run(
	ctx context.Context, m *model.Model, workflow *model.Workflow, tenant contextkit.TenantID, event journal.Event,
) (*instance, error) {
	known, err := trigger(ctx, m, workflow.On, tenant, event)
	applies := false
	if err == nil {
		applies, err = workflow.Applies(ctx, known)
	}
	if err != nil && !final(err) || err == nil && !applies {
		return nil, err
	}
	undecided := err
	i, err := e.instances.find(ctx, tenant, workflow.Name, event)
	if errors.Is(err, errNoInstance) {
		i, err = e.begin(ctx, m, workflow, tenant, event, known, undecided)
	}
	if err != nil {
		return nil, err
	}
	return i, e.drive(ctx, i)
}

// begin returns a workflow's instance for an event that starts it, and creates its record. undecided is the reason
// why it cannot be decided whether the event starts the instance, which then is stuck before its first step.
func (e *engine) begin(
	ctx context.Context, m *model.Model, workflow *model.Workflow, tenant contextkit.TenantID, event journal.Event,
	known model.Trigger, undecided error,
) (*instance, error) {
	if err := e.admitDepth(workflow, event); err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	i := &instance{
		Workflow: workflow.Name,
		Model:    m.Revision,
		State:    stateRunning,
		Event:    event.Type,
		Trigger:  known,
		Started:  now,
		tenant:   tenant,
	}
	i.DataVersion = max(event.DataVersion, m.EventVersion(workflow.On))
	if undecided != nil {
		data, err := model.DecodeObject(event.Data)
		if err != nil {
			return nil, undecided // the event has no data that a record could store
		}
		i.State, i.Trigger.Data, i.DataVersion = stateUndecided, data, event.DataVersion
		i.Attempts = &attempts{
			Step:   whenStep,
			Failed: 1,
			Error:  bounded(undecided.Error()),
			First:  now,
			Last:   now,
			Stuck:  true,
		}
	}
	if err := e.revisions.retain(ctx, m); err != nil {
		return nil, err
	}
	if undecided == nil {
		if err := e.prepareFirst(ctx, workflow, i); err != nil {
			return nil, err
		}
	}
	return e.instances.create(ctx, i, event)
}

// prepareFirst stores the requests of an instance's first steps in its first record.
func (e *engine) prepareFirst(ctx context.Context, workflow *model.Workflow, i *instance) error {
	first := workflow.Steps[0]
	if first.Wait != nil {
		return nil
	}
	for leaf := range model.Leaves([]model.Step{first}) {
		r, err := e.prepare(ctx, i, leaf.Name, leaf)
		if refused := (*refusedError)(nil); errors.As(err, &refused) {
			continue // it is refused when it is sent
		}
		if err != nil {
			return err
		}
		i.request(leaf.Name, r.record())
	}
	return nil
}

// whenStep is the step of an instance for which it is undecided whether it starts.
const whenStep = "when"

// decide evaluates, with the model in use, whether an event starts an instance that is stuck before its first step
// because this could not be evaluated.
func (e *engine) decide(ctx context.Context, i *instance) error {
	m := e.models.Current()
	workflow, ok := m.Workflow(i.Workflow)
	if !ok || workflow.On != (model.EventRef{Aggregate: i.Trigger.Meta.AggregateType, Event: i.Event}) {
		i.State = stateCancelled // the model no longer reacts to the event
		return e.instances.save(ctx, i)
	}
	event, err := i.event()
	if err != nil {
		return err
	}
	known, err := trigger(ctx, m, workflow.On, i.tenant, event)
	applies := false
	if err == nil {
		applies, err = workflow.Applies(ctx, known)
	}
	switch {
	case err != nil && final(err):
		return &undrivableError{step: whenStep, message: err.Error()}
	case err != nil:
		return err
	case !applies:
		i.State = stateCancelled
		return e.instances.save(ctx, i)
	}
	if err := e.revisions.retain(ctx, m); err != nil {
		return err
	}
	i.State, i.Model, i.Trigger, i.DataVersion = stateRunning, m.Revision, known, max(event.DataVersion,
		m.EventVersion(workflow.On))
	i.dirty = true
	return nil
}

// errNoRecord reports that due work belongs to an instance without a record.
var errNoRecord = errors.New("the workflow instance has no record")

// lostTrigger returns a substitute for the unknown event that started an instance of which there is only due work. No
// model can have its names.
func lostTrigger(work workqueue.Due) journal.Event {
	return journal.Event{
		ID:            work.Instance,
		Type:          "-",
		AggregateType: "-",
		AggregateID:   work.Instance,
		Version:       1,
		Time:          work.Time,
		Data:          []byte("{}"),
		DataVersion:   1,
	}
}

// resume drives an instance that is due. It returns the event that started it and the instance, as soon as they are
// known.
func (e *engine) resume(ctx context.Context, work workqueue.Due) (journal.Event, *instance, error) {
	i, err := e.instances.load(ctx, work.Tenant, work.Workflow, work.Instance)
	if errors.Is(err, errNoInstance) {
		return lostTrigger(work), nil, fmt.Errorf("%w: instance %s", errNoRecord, work.Instance)
	}
	if err != nil {
		return journal.Event{}, nil, err
	}
	i.woken = work.Time
	event, err := i.event()
	if err != nil {
		return event, i, err
	}
	return event, i, e.drive(ctx, i)
}

// drive executes the instance's steps until it ends or has to wait. A [stepError] reports that a step has failed and
// may be retried; [errFailed] and [errStuck] that the instance cannot continue; after any other error the caller
// drives it again.
func (e *engine) drive(ctx context.Context, i *instance) error {
	if later, err := e.pending(ctx, i); later || err != nil {
		return err
	}
	before, revision := i.Attempts, i.revision
	if before != nil && before.Stuck {
		return fmt.Errorf("%w: step %s: %s", errStuck, before.Step, before.Error)
	}
	if i.unsent = ""; before != nil && before.Failed == 0 {
		i.unsent = before.Step
	}
	i.attempted, i.Attempts = before, nil // anything saved from here on is progress
	i.trial, i.Asked = i.trial || i.Asked, false
	err := e.advance(ctx, i)
	if err != nil && i.revision == revision {
		i.Attempts = before
	}
	if undrivable := (*undrivableError)(nil); errors.As(err, &undrivable) {
		err = e.markStuck(ctx, i, undrivable)
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // otherwise the runner has abandoned the work
		e.failing.note(i, err != nil && !final(err), time.Now())
	}
	return err
}

// advance is drive without recording its failure.
func (e *engine) advance(ctx context.Context, i *instance) error {
	if i.State.ended() {
		return nil
	}
	if i.State == stateFailed {
		return errFailed
	}
	if err := e.instances.move(ctx, i); err != nil {
		return err
	}
	if i.State == stateUndecided {
		if err := e.decide(ctx, i); err != nil || i.State.ended() {
			return err
		}
	}
	workflow, err := e.definition(ctx, i)
	if err != nil {
		return err
	}
	if i.State == stateRunning {
		waits, err := e.forward(ctx, workflow, i)
		if err != nil || waits {
			return err
		}
	}
	if i.State == stateCompensating {
		if err := e.backward(ctx, workflow, i); err != nil {
			return err
		}
	}
	if i.State == stateFailed {
		return errFailed
	}
	return nil
}

// markStuck stores that an instance cannot continue until an operator intervenes, and returns [errStuck].
func (e *engine) markStuck(ctx context.Context, i *instance, cause *undrivableError) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	now := time.Now().UTC()
	next := attempts{First: now}
	if i.Attempts != nil {
		next = *i.Attempts
	}
	next.Step, next.Error, next.Last, next.Next, next.Stuck = cause.step, bounded(cause.message), now, time.Time{}, true
	next.Failed++
	i.Attempts = &next
	if err := e.instances.save(ctx, i); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", errStuck, cause)
}
