package runner

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/model"
)

// forward executes the remaining steps, until one is refused or the instance has to wait.
func (e *engine) forward(ctx context.Context, workflow *model.Workflow, i *instance) (waits bool, err error) {
	for _, s := range workflow.Steps {
		if s.Wait != nil {
			waits, err := e.wait(ctx, i, &s)
			if err != nil || waits {
				return waits, err
			}
		} else if err := e.doAll(ctx, i, slices.Collect(model.Leaves([]model.Step{s}))); err != nil {
			return false, err
		}
		for leaf := range model.Leaves([]model.Step{s}) {
			if done, _ := i.find(leaf.Name); done.Outcome == outcomeRefused {
				i.State, i.Failure, i.dirty = stateCompensating, model.Failure{
					Step:    done.Name,
					Message: done.Message,
				}, true
				return false, nil
			}
		}
	}
	i.State = stateCompleted
	return false, e.instances.save(ctx, i)
}

// doAll executes independent steps that are not completed. It stores their requests before it sends them, together
// with the outcomes of the steps before.
func (e *engine) doAll(ctx context.Context, i *instance, steps []model.Step) error {
	steps = slices.DeleteFunc(steps, func(s model.Step) bool {
		_, known := i.find(s.Name)
		return known
	})
	requests, done := make([]*request, len(steps)), make([]*step, len(steps))
	for n, s := range steps {
		var err error
		var refused *refusedError
		sent := i.loaded && i.unsent != s.Name && i.Requests[s.Name] != nil
		if requests[n], err = e.prepare(ctx, i, s.Name, s); errors.As(err, &refused) {
			done[n] = &step{
				Name:    s.Name,
				Outcome: outcomeRefused,
				Message: refused.message,
				Time:    time.Now().UTC(),
			}
			e.record(contextkit.SpanContext(ctx), i, s.Name, s, time.Now(), err)
		} else if err != nil {
			return err
		} else {
			requests[n].sent = sent
			if i.Requests[s.Name] == nil {
				i.request(s.Name, requests[n].record())
				i.dirty = true
			}
		}
	}
	if i.dirty && slices.Contains(done, nil) {
		if err := e.instances.save(ctx, i); err != nil {
			return err
		}
	}
	var group errgroup.Group
	group.SetLimit(parallelSteps)
	for n, s := range steps {
		if done[n] == nil {
			group.Go(func() (err error) {
				done[n], err = e.do(ctx, i, s, requests[n])
				return err
			})
		}
	}
	failed := group.Wait()
	ended := false
	for _, d := range done {
		if d != nil {
			d.Failed = i.attempted.failedAt(d.Name)
			i.Steps, i.dirty, ended = append(i.Steps, *d), true, true
			delete(i.Requests, d.Name)
		}
	}
	// Store completed steps even if another has to be retried.
	if failed != nil && ended {
		if err := e.instances.save(ctx, i); err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// wait reports whether the instance has to wait at the step. If so, it schedules the instance.
func (e *engine) wait(ctx context.Context, i *instance, s *model.Step) (bool, error) {
	if _, done := i.find(s.Name); done {
		return false, nil
	}
	if i.Waiting == nil || i.Waiting.Step != s.Name {
		until, err := s.Wait.Until(ctx, i.Trigger, i.now())
		if errors.Is(err, model.ErrEvaluation) {
			i.Steps = append(i.Steps, step{
				Name:    s.Name,
				Outcome: outcomeRefused,
				Message: "the model could not evaluate the wait: " + err.Error(),
				Time:    time.Now().UTC(),
			})
			i.dirty = true
			return false, nil
		}
		if err != nil {
			return false, err
		}
		i.Waiting = &waiting{Step: s.Name, Until: until.UTC(), Since: time.Now().UTC()}
		i.dirty = true
	}
	if i.now().Before(i.Waiting.Until) {
		if i.dirty {
			if err := e.instances.save(ctx, i); err != nil {
				return false, err
			}
		}
		return true, scheduleInstance(ctx, e.js, i, i.Waiting.Until)
	}
	i.Steps = append(i.Steps,
		step{
			Name:    s.Name,
			Outcome: outcomeDone,
			Time:    time.Now().UTC(),
			Began:   i.Waiting.Since,
		})
	i.Waiting = nil
	i.dirty = true
	return false, nil
}

// backward compensates the completed steps in reverse order, then executes the steps of on_failure.
func (e *engine) backward(ctx context.Context, workflow *model.Workflow, i *instance) error {
	var last []model.Step
	for _, s := range slices.Backward(slices.Collect(model.Leaves(workflow.Steps))) {
		if done, ok := i.find(s.Name); ok && done.Outcome == outcomeDone && s.Undo != nil {
			last = append(last, model.Step{Name: undoPrefix + s.Name, Submit: s.Undo, Retry: s.Retry})
		}
	}
	i.Waiting = nil
	end := stateCompensated
	for _, s := range append(last, workflow.OnFailure...) {
		if err := e.doAll(ctx, i, []model.Step{s}); err != nil {
			return err
		}
		if done, _ := i.find(s.Name); done.Outcome == outcomeRefused {
			end = stateFailed
		}
	}
	i.State = end
	return e.instances.save(ctx, i)
}

// do executes a step and returns its outcome, which the caller stores. The error is a [stepError] if the step may be
// retried, or an [*undrivableError].
func (e *engine) do(ctx context.Context, i *instance, s model.Step, r *request) (*step, error) {
	ctx = contextkit.SpanContext(ctx)
	began := time.Now()
	err := e.send(ctx, i, s.Name, r)
	e.record(ctx, i, s.Name, s, began, err)
	done := &step{
		Name:    s.Name,
		Outcome: outcomeDone,
		Time:    time.Now().UTC(),
		Began:   began.UTC(),
	}
	var refused *refusedError
	var undrivable *undrivableError
	switch {
	case errors.As(err, &refused):
		done.Outcome, done.Message = outcomeRefused, refused.message
	case errors.As(err, &undrivable):
		return nil, &undrivableError{step: s.Name, message: undrivable.message}
	case err != nil:
		return nil, &stepError{
			name:  s.Name,
			retry: s.Retry,
			err:   err,
			began: began,
		}
	}
	return done, nil
}

// record adds a span for an attempt at a step to the timeline.
func (e *engine) record(ctx context.Context, i *instance, name string, s model.Step, began time.Time, err error) {
	span := timeline.Span{
		Kind:         timeline.KindStep,
		Name:         i.Workflow + " " + name,
		Started:      began,
		Milliseconds: float64(time.Since(began).Microseconds()) / 1000,
		Code:         string(outcomeDone),
		Subject:      i.Workflow + "/" + i.ID,
		Event:        i.Trigger.Meta.EventID,
		Detail:       "command",
	}
	if s.Webhook != nil {
		span.Detail = "webhook"
	}
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		span.Code, span.Detail = string(outcomeRefused), span.Detail+": "+refused.message
	case err != nil:
		span.Code, span.Detail = timeline.Failed, span.Detail+", retrying"
	}
	e.timeline.Record(ctx, span)
}
