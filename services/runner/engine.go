package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"
)

// commandTimeout bounds one command of a step.
const commandTimeout = 5 * time.Second

// parallelSteps bounds the steps of one instance that are done side by side.
const parallelSteps = 8

// Commander sends commands; the generated CommandServiceClient is one.
type Commander interface {
	Submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error)
}

// engine drives instances.
type engine struct {
	instances *instances
	commands  Commander
	webhooks  *webhook.Caller
	js        jetstream.JetStream
	timeline  *backbone.Timeline
	failing   *failing
	postponed *postponed
	maxDepth  int
}

// refusedError says that the command of a step was refused for good.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// errFailed says that an instance could not even be undone.
var errFailed = errors.New("the workflow failed and could not be undone")

// run drives the workflow's instance for an event until it ends or waits, and returns it; nil if
// it has no record. An error that is not [final] leaves it to be run again, and nothing is done
// twice.
func (e *engine) run(ctx context.Context, m *model.Model, workflow *model.Workflow, tenant contextkit.TenantID, event backbone.Event) (*instance, error) {
	trigger, err := trigger(ctx, m, workflow.On, tenant, event)
	if err != nil {
		return nil, err
	}
	applies, err := workflow.Applies(ctx, trigger)
	if err != nil || !applies {
		return nil, err
	}
	i, err := e.instances.load(ctx, tenant, workflow.Name, instanceID(event))
	fresh := errors.Is(err, errNoInstance)
	switch {
	case fresh:
		if err := e.admitDepth(workflow, event); err != nil {
			return nil, err
		}
		i = &instance{Workflow: workflow.Name, ID: instanceID(event), State: stateRunning, Started: time.Now().UTC(), tenant: tenant}
	case err != nil:
		return nil, err
	}
	i.take(m, workflow.On, event, trigger)
	if fresh {
		if err := e.instances.save(ctx, i); err != nil {
			return nil, err
		}
	}
	return i, e.drive(ctx, workflow, i)
}

// trigger is an event as the model's rules know it.
func trigger(ctx context.Context, m *model.Model, on model.EventRef, tenant contextkit.TenantID, event backbone.Event) (model.Trigger, error) {
	data, err := m.Event(ctx, on, event.DataVersion, event.Data)
	if err != nil && !errors.Is(err, model.ErrEvaluation) {
		err = fmt.Errorf("%w: %w", backbone.ErrMalformedEvent, err)
	}
	return model.Trigger{Data: data, Meta: model.Meta{
		Tenant: tenant.String(), AggregateType: event.AggregateType, AggregateID: event.AggregateID,
		Version: event.Version, Time: event.Time.UTC().Format(time.RFC3339Nano), EventID: event.ID,
	}}, err
}

// take has the instance's steps see the trigger as the model knows it, which may be newer
// than the one that it began under.
func (i *instance) take(m *model.Model, on model.EventRef, event backbone.Event, trigger model.Trigger) {
	i.Trigger, i.DataVersion = trigger, max(event.DataVersion, m.EventVersion(on))
}

// resume drives an instance on whose time has come. It returns the event that
// started it and the instance, as soon as they are known.
func (e *engine) resume(ctx context.Context, m *model.Model, work backbone.DueWork) (backbone.Event, *instance, error) {
	tenant, name := work.Tenant, work.Workflow
	i, err := e.instances.load(ctx, tenant, name, work.Instance)
	if errors.Is(err, errNoInstance) {
		return backbone.Event{}, nil, nil // it has come of age
	}
	if err != nil {
		return backbone.Event{}, nil, err
	}
	i.woken = work.Time
	for _, workflow := range m.Workflows() {
		if workflow.Name == name {
			event, err := i.event(workflow.On)
			if err != nil {
				return event, i, err
			}
			trigger, err := trigger(ctx, m, workflow.On, tenant, event)
			if err != nil {
				return event, i, err
			}
			i.take(m, workflow.On, event, trigger)
			return event, i, e.drive(ctx, workflow, i)
		}
	}
	return backbone.Event{}, i, fmt.Errorf("%w: the model has no workflow %q any more", model.ErrEvaluation, name)
}

// drive does the instance's steps until it ends or has to wait. A [stepError] says that a step has
// failed and can be tried again; [errFailed] and [errStuck] that the instance cannot go on; any
// other error leaves it to be driven again.
func (e *engine) drive(ctx context.Context, workflow *model.Workflow, i *instance) error {
	if later, err := e.pending(ctx, i); later || err != nil {
		return err
	}
	before, revision := i.Attempts, i.revision
	if before != nil && before.Stuck {
		return fmt.Errorf("%w: step %s: %s", errStuck, before.Step, before.Error)
	}
	i.Attempts = nil // what is saved from here on is progress
	err := e.advance(ctx, workflow, i)
	if err != nil && i.revision == revision {
		i.Attempts = before
	}
	if !errors.Is(ctx.Err(), context.Canceled) { // else the runner has given the work up
		e.failing.note(i, err != nil && !final(err), time.Now())
	}
	return err
}

// advance is drive without a record of its failure.
func (e *engine) advance(ctx context.Context, workflow *model.Workflow, i *instance) error {
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

// forward does the steps that are not done, until one is refused or the instance
// has to wait.
func (e *engine) forward(ctx context.Context, workflow *model.Workflow, i *instance) (waits bool, err error) {
	for _, s := range workflow.Steps {
		if s.Wait != nil {
			if waits, err := e.wait(ctx, i, &s); err != nil || waits {
				return waits, err
			}
			continue
		}
		refused, err := e.doAll(ctx, i, s)
		if err != nil {
			return false, err
		}
		if refused != nil {
			i.State, i.Failure = stateCompensating, model.Failure{Step: refused.Name, Message: refused.Message}
			return false, e.instances.save(ctx, i)
		}
	}
	i.State = stateCompleted
	return false, e.instances.save(ctx, i)
}

// doAll does a step, or those side by side in it, as far as they are not done,
// and keeps what came of them. It returns the first that was refused.
func (e *engine) doAll(ctx context.Context, i *instance, s model.Step) (refused *step, err error) {
	var group errgroup.Group
	group.SetLimit(parallelSteps)
	leaves := slices.Collect(model.Leaves([]model.Step{s}))
	done := make([]*step, len(leaves))
	for n, leaf := range leaves {
		if known, ok := i.find(leaf.Name); ok {
			done[n] = &known
			continue
		}
		group.Go(func() error {
			var err error
			done[n], err = e.do(ctx, i, leaf.Name, leaf)
			return err
		})
	}
	failed := group.Wait()
	fresh := false
	// What is done is kept, also when another has to be tried again.
	for _, d := range done {
		if d == nil {
			continue
		}
		if _, known := i.find(d.Name); !known {
			i.Steps, fresh = append(i.Steps, *d), true
		}
		if d.Outcome == outcomeRefused && refused == nil {
			refused = d
		}
	}
	if fresh {
		if err := e.instances.save(ctx, i); err != nil {
			return nil, errors.Join(failed, err)
		}
	}
	return refused, failed
}

// wait reports whether the instance has to wait at the step. If so, it will be
// driven on when the time has come, whatever ends until then.
func (e *engine) wait(ctx context.Context, i *instance, s *model.Step) (bool, error) {
	if _, done := i.find(s.Name); done {
		return false, nil
	}
	if i.Waiting == nil || i.Waiting.Step != s.Name {
		until, err := s.Wait.Until(ctx, i.Trigger, time.Now())
		if err != nil {
			return false, err
		}
		i.Waiting = &waiting{Step: s.Name, Until: until}
		if err := e.instances.save(ctx, i); err != nil {
			return false, err
		}
	}
	if i.now().Before(i.Waiting.Until) {
		return true, later(ctx, e.js, i, i.Waiting.Until)
	}
	i.Waiting = nil
	i.Steps = append(i.Steps, step{Name: s.Name, Outcome: outcomeDone, Time: time.Now().UTC()})
	return false, e.instances.save(ctx, i)
}

// backward undoes the done steps in reverse order, then does on_failure's.
func (e *engine) backward(ctx context.Context, workflow *model.Workflow, i *instance) error {
	end := stateCompensated
	attempt := func(name string, s model.Step) error {
		known, ok := i.find(name)
		if !ok {
			done, err := e.do(ctx, i, name, s)
			if err != nil {
				return err
			}
			known = *done
			i.Steps = append(i.Steps, known)
			if err := e.instances.save(ctx, i); err != nil {
				return err
			}
		}
		if known.Outcome == outcomeRefused {
			end = stateFailed
		}
		return nil
	}
	for _, s := range slices.Backward(slices.Collect(model.Leaves(workflow.Steps))) {
		if done, ok := i.find(s.Name); ok && done.Outcome == outcomeDone && s.Undo != nil {
			if err := attempt("undo "+s.Name, model.Step{Submit: s.Undo}); err != nil {
				return err
			}
		}
	}
	for _, s := range workflow.OnFailure {
		if err := attempt(s.Name, s); err != nil {
			return err
		}
	}
	i.State = end
	return e.instances.save(ctx, i)
}

// do does a step and returns its outcome, which the caller stores. The error is a [stepError]: the
// step can be tried again.
func (e *engine) do(ctx context.Context, i *instance, name string, s model.Step) (*step, error) {
	ctx = contextkit.SpanContext(ctx)
	began := time.Now()
	var err error
	if s.Webhook != nil {
		err = e.call(ctx, i, name, s.Webhook)
	} else {
		err = e.submit(ctx, i, name, s.Submit)
	}
	var refused *refusedError
	e.record(ctx, i, name, s, began, err)
	if err != nil && !errors.As(err, &refused) {
		return nil, &stepError{name: name, retry: s.Retry, err: err}
	}
	done := &step{Name: name, Outcome: outcomeDone, Time: time.Now().UTC()}
	if refused != nil {
		done.Outcome, done.Message = outcomeRefused, refused.message
	}
	return done, nil
}

// record notes an attempt at a step in the timeline.
func (e *engine) record(ctx context.Context, i *instance, name string, s model.Step, began time.Time, err error) {
	hop := backbone.Hop{
		Kind: backbone.HopStep, Name: i.Workflow + " " + name, Started: began, Milliseconds: float64(time.Since(began).Microseconds()) / 1000,
		Code: outcomeDone, Subject: i.Workflow + "/" + i.ID, Event: i.Trigger.Meta.EventID, Detail: "command",
	}
	if s.Webhook != nil {
		hop.Detail = "webhook"
	}
	var refused *refusedError
	switch {
	case errors.As(err, &refused):
		hop.Code, hop.Detail = outcomeRefused, hop.Detail+": "+refused.message
	case err != nil:
		hop.Code, hop.Detail = backbone.HopFailed, hop.Detail+" is tried again"
	}
	e.timeline.Record(ctx, hop)
}

// call posts a step's webhook.
func (e *engine) call(ctx context.Context, i *instance, name string, template *model.WebhookTemplate) error {
	target, object, err := template.Build(ctx, i.Trigger, i.Failure)
	if errors.Is(err, model.ErrEvaluation) {
		return &refusedError{message: "the model could not build the webhook: " + err.Error()}
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(object)
	if err != nil {
		return &refusedError{message: "the model's body is no JSON: " + err.Error()}
	}
	err = e.webhooks.Post(ctx, webhook.Call{Source: i.Workflow + "/" + name, Target: target, Body: body, Key: stepKey(i, name)})
	var refusal *webhook.RefusedError
	if errors.As(err, &refusal) {
		return &refusedError{message: refusal.Reason}
	}
	return err
}

// submit sends a step's command. Its idempotency key makes a second attempt, by
// this node or another, one effect.
func (e *engine) submit(ctx context.Context, i *instance, name string, template *model.CommandTemplate) error {
	call, err := template.Build(ctx, i.Trigger, i.Failure)
	if errors.Is(err, model.ErrEvaluation) {
		return &refusedError{message: "the model could not build the command: " + err.Error()}
	}
	if err != nil {
		return err
	}
	payload, err := structpb.NewStruct(call.Payload)
	if err != nil {
		return &refusedError{message: "the model's payload is no JSON: " + err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	_, err = e.commands.Submit(ctx, &aggregatev1.SubmitRequest{
		TenantId: i.tenant.String(), AggregateType: call.AggregateType, AggregateId: call.AggregateID,
		Command: call.Command, Payload: payload, IdempotencyKey: stepKey(i, name),
	})
	if err == nil {
		return nil
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeNotFound,
		connect.CodeAlreadyExists, connect.CodeOutOfRange:
		var remote *connect.Error
		errors.As(err, &remote)
		return &refusedError{message: remote.Message()}
	}
	return err
}

// maxKeyLength is the longest idempotency key that CommandService takes.
const maxKeyLength = 128

// stepKey is the idempotency key of a step's command.
func stepKey(i *instance, step string) string {
	key := "workflow:" + i.Trigger.Meta.EventID + ":" + i.Workflow + ":" + strings.ReplaceAll(step, " ", "-")
	if len(key) > maxKeyLength {
		sum := sha256.Sum256([]byte(key))
		key = "workflow:" + hex.EncodeToString(sum[:])
	}
	return key
}
