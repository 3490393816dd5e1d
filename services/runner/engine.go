package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	"google.golang.org/protobuf/types/known/structpb"
)

// commandTimeout bounds one command of a step.
const commandTimeout = 5 * time.Second

// Commander sends commands; the generated CommandServiceClient is one.
type Commander interface {
	Submit(ctx context.Context, req *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error)
}

// engine drives instances.
type engine struct {
	instances *instances
	commands  Commander
}

// refusedError says that the command of a step was refused for good.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// errFailed says that an instance could not even be undone.
var errFailed = errors.New("the workflow failed and could not be undone")

// run drives the workflow's instance for an event until it ends. An error but
// [errFailed] leaves it to be run again, and nothing is done twice.
func (e *engine) run(ctx context.Context, m *model.Model, workflow *model.Workflow, tenant contextkit.TenantID, event backbone.Event) error {
	data, err := m.Event(ctx, workflow.On, event.DataVersion, event.Data)
	if errors.Is(err, model.ErrEvaluation) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", backbone.ErrMalformedEvent, err)
	}
	trigger := model.Trigger{Data: data, Meta: model.Meta{
		Tenant: tenant.String(), AggregateType: event.AggregateType, AggregateID: event.AggregateID,
		Version: event.Version, Time: event.Time.UTC().Format(time.RFC3339Nano), EventID: event.ID,
	}}
	applies, err := workflow.Applies(ctx, trigger)
	if err != nil || !applies {
		return err
	}
	i, err := e.instances.load(ctx, tenant, workflow.Name, instanceID(event))
	if errors.Is(err, errNoInstance) {
		i = &instance{
			Workflow: workflow.Name, ID: instanceID(event), State: stateRunning, Trigger: trigger,
			Started: time.Now().UTC(), tenant: tenant,
		}
		err = e.instances.save(ctx, i)
	}
	if err != nil {
		return err
	}
	if i.State == stateRunning {
		if err := e.forward(ctx, workflow, i); err != nil {
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

// forward does the steps that are not done, until one is refused.
func (e *engine) forward(ctx context.Context, workflow *model.Workflow, i *instance) error {
	for _, s := range workflow.Steps {
		if _, known := i.find(s.Name); known {
			continue
		}
		refused, err := e.do(ctx, i, s.Name, &s.Submit)
		if err != nil {
			return err
		}
		if refused != nil {
			i.State = stateCompensating
			i.Failure = model.Failure{Step: s.Name, Message: refused.message}
			return e.instances.save(ctx, i)
		}
		if err := e.instances.save(ctx, i); err != nil {
			return err
		}
	}
	i.State = stateCompleted
	return e.instances.save(ctx, i)
}

// backward undoes the done steps in reverse order, then does on_failure's.
func (e *engine) backward(ctx context.Context, workflow *model.Workflow, i *instance) error {
	end := stateCompensated
	attempt := func(name string, template *model.CommandTemplate) error {
		known, ok := i.find(name)
		if !ok {
			refused, err := e.do(ctx, i, name, template)
			if err != nil {
				return err
			}
			if refused != nil {
				end = stateFailed
			}
			return e.instances.save(ctx, i)
		}
		if known.Outcome == outcomeRefused {
			end = stateFailed
		}
		return nil
	}
	for _, s := range slices.Backward(workflow.Steps) {
		if done, ok := i.find(s.Name); ok && done.Outcome == outcomeDone && s.Undo != nil {
			if err := attempt("undo "+s.Name, s.Undo); err != nil {
				return err
			}
		}
	}
	for _, s := range workflow.OnFailure {
		if err := attempt(s.Name, &s.Submit); err != nil {
			return err
		}
	}
	i.State = end
	return e.instances.save(ctx, i)
}

// do submits a step's command and notes its outcome in i, which the caller
// saves.
func (e *engine) do(ctx context.Context, i *instance, name string, template *model.CommandTemplate) (*refusedError, error) {
	err := e.submit(ctx, i, name, template)
	var refused *refusedError
	if err != nil && !errors.As(err, &refused) {
		return nil, fmt.Errorf("step %s: %w", name, err)
	}
	done := step{Name: name, Outcome: outcomeDone, Time: time.Now().UTC()}
	if refused != nil {
		done.Outcome, done.Message = outcomeRefused, refused.message
	}
	i.Steps = append(i.Steps, done)
	return refused, nil
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
