package runner

import (
	"context"
	"errors"
	"slices"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/workqueue"
)

// An operation changes an instance's record by compare-and-set, so that a runner that drives the instance
// concurrently detects the change when it writes the record, and continues from it. Then the operation makes the
// instance due, and the tenant's owner drives it.

// operateTries bounds the attempts to change a record that a runner is changing.
const operateTries = 5

// clockMargin is the assumed maximum difference between the clocks of runners: an attempt may start that long before
// its time.
const clockMargin = 2 * time.Second

// RetryWorkflow implements RunnerAdmin.
func (s *Service) RetryWorkflow(
	ctx context.Context, req *adminv1.RetryWorkflowRequest,
) (*adminv1.RetryWorkflowResponse, error) {
	state, err := s.operate(ctx, "retry", req, func(i *instance) error {
		switch {
		case i.State == stateFailed:
			i.reopen()
		case i.Attempts == nil || i.State.ended():
			return errDone
		}
		i.Attempts, i.Asked = nil, true
		return nil
	})
	return &adminv1.RetryWorkflowResponse{State: state}, err
}

// SkipStep implements RunnerAdmin.
func (s *Service) SkipStep(ctx context.Context, req *adminv1.SkipStepRequest) (*adminv1.SkipStepResponse, error) {
	state, err := s.operate(ctx, "skip", req,
		func(i *instance) error { return i.skip(req.GetStep(), by(ctx, req.GetReason()), time.Now()) })
	return &adminv1.SkipStepResponse{State: state}, err
}

// CancelWorkflow implements RunnerAdmin.
func (s *Service) CancelWorkflow(
	ctx context.Context, req *adminv1.CancelWorkflowRequest,
) (*adminv1.CancelWorkflowResponse, error) {
	state, err := s.operate(ctx, "cancel", req, func(i *instance) error {
		return i.cancel(by(ctx, req.GetReason()))
	})
	return &adminv1.CancelWorkflowResponse{State: state}, err
}

// CompensateWorkflow implements RunnerAdmin.
func (s *Service) CompensateWorkflow(
	ctx context.Context, req *adminv1.CompensateWorkflowRequest,
) (*adminv1.CompensateWorkflowResponse, error) {
	state, err := s.operate(ctx, "compensate", req,
		func(i *instance) error { return i.compensate(by(ctx, req.GetReason()), time.Now()) })
	return &adminv1.CompensateWorkflowResponse{State: state}, err
}

// operation is a request that names an instance.
type operation interface {
	GetTenantId() string
	GetWorkflow() string
	GetInstanceId() string
	GetReason() string
}

// errDone reports that an earlier request of the operation had its effect on the instance: operations can be repeated.
var errDone = errors.New("the operation has no further effect")

// operate changes an instance, and makes it continue unless it has ended.
func (s *Service) operate(
	ctx context.Context, name string, req operation, change func(*instance) error,
) (adminv1.WorkflowState, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return 0, err
	}
	for range operateTries {
		i, err := s.instance(ctx, tenant, req.GetWorkflow(), req.GetInstanceId())
		if err != nil {
			return 0, err
		}
		err = change(i)
		if errors.Is(err, errDone) {
			// The first request may have failed after it had stored the change.
			if !i.State.ended() && i.Attempts != nil {
				return i.message(), nil
			}
			return i.message(), s.wakeStored(ctx, tenant, i)
		}
		if err != nil {
			return 0, err
		}
		err = s.instances.save(ctx, i)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err != nil {
			return 0, unavailable("the instance", err)
		}
		s.log.Info().Str("tenant",
			tenant.String()).Str("workflow", i.Workflow).Str("instance", i.ID).Str("operation", name).
			Str("reason", by(ctx, req.GetReason())).Msg("an operator changes a workflow's instance")
		return i.message(), s.wakeStored(ctx, tenant, i)
	}
	return 0, connect.NewError(connect.CodeAborted, "a runner is driving the instance: retry")
}

// wakeStored is wake after a change of the record. UNAVAILABLE: the instance continues later.
func (s *Service) wakeStored(ctx context.Context, tenant contextkit.TenantID, i *instance) error {
	if err := s.wake(ctx, tenant, i); err != nil {
		return connect.NewError(
			connect.CodeUnavailable,
			"the change is stored and the instance continues within minutes: the journal is unavailable",
		).WithCause(err)
	}
	return nil
}

// wake removes the schedule and the dead letters of an instance, and makes it due unless it has ended.
func (s *Service) wake(ctx context.Context, tenant contextkit.TenantID, i *instance) error {
	if err := workqueue.Unschedule(ctx, s.js, tenant, i.Workflow, i.ID); err != nil {
		return err
	}
	if !i.State.ended() {
		if err := workqueue.MakeDue(s.triggered(ctx, i), s.js, tenant, i.Workflow, i.ID); err != nil {
			return err
		}
	}
	return s.removeLetters(ctx, tenant, i)
}

// removeLetters removes the dead letters of an instance.
func (s *Service) removeLetters(ctx context.Context, tenant contextkit.TenantID, i *instance) error {
	var stale []uint64
	err := deadletter.Read(ctx, s.js, tenant, 1, func(letter deadletter.Letter) (bool, error) {
		if letter.Workflow == i.Workflow && letter.Instance == i.ID {
			stale = append(stale, letter.Sequence)
		}
		return true, nil
	})
	for _, sequence := range stale {
		err = errors.Join(err, deadletter.Remove(ctx, s.js, sequence))
	}
	return err
}

// by returns a reason with the name of the operator who gives it.
func by(ctx context.Context, reason string) string {
	if info, ok := connect.CallInfoForServerContext(ctx); ok {
		if principal := contextkit.Principal(info.RequestHeader()); principal != "" {
			return principal + ": " + reason
		}
	}
	return reason
}

// refuse returns the error of an operation for which the instance is in the wrong state.
func refuse(why string) error { return connect.NewError(connect.CodeFailedPrecondition, why) }

// refuseEnded returns the error of an operation on an instance that has ended.
func refuseEnded(i *instance) error { return refuse("the instance has ended: " + string(i.State)) }

// skip makes the instance continue without a step.
func (i *instance) skip(name, reason string, now time.Time) error {
	skipped := step{
		Name:    name,
		Outcome: outcomeSkipped,
		Message: reason,
		Time:    now.UTC(),
	}
	switch {
	case slices.ContainsFunc(i.Steps, func(s step) bool { return s.Name == name && s.Outcome == outcomeSkipped }):
		return errDone
	case i.State.ended():
		return refuseEnded(i)
	case i.State == stateUndecided:
		return refuse("it is undecided whether the event starts the instance, so it has no step: retry or cancel it")
	case i.State == stateFailed:
		at := slices.IndexFunc(i.Steps, func(s step) bool {
			return s.Name == name && s.Outcome == outcomeRefused && s.Name != i.Failure.Step
		})
		if at < 0 {
			return refuse(
				"the instance could not be compensated, and " + name + " is not the compensation that was refused",
			)
		}
		i.Steps[at], i.State = skipped, stateCompensating
	case i.Waiting == nil && i.Attempts != nil && i.Attempts.Step == name && i.inWork(now):
		return refuseInWork()
	case i.Waiting != nil && i.Waiting.Step == name, i.Attempts != nil && i.Attempts.Step == name:
		skipped.Failed = i.Attempts.failedAt(name)
		i.Steps = append(i.Steps, skipped)
		delete(i.Requests, name)
	default:
		return refuse("the instance does not wait at the step " + name + ", and no attempt at it has failed")
	}
	i.Waiting, i.Attempts = nil, nil
	return nil
}

// cancel ends the instance without compensation.
func (i *instance) cancel(reason string) error {
	switch {
	case i.State == stateCancelled:
		return errDone
	case i.State.ended():
		return refuseEnded(i)
	}
	i.State, i.Waiting, i.Attempts, i.Requests = stateCancelled, nil, nil, nil
	if i.Failure.Message == "" {
		i.Failure.Message = "cancelled by " + reason
	}
	return nil
}

// compensate makes the instance compensate its completed steps.
func (i *instance) compensate(reason string, now time.Time) error {
	switch {
	case i.State == stateCompensating, i.State == stateCompensated:
		return errDone
	case i.State.ended():
		return refuseEnded(i)
	case i.State == stateFailed:
		return refuse("the instance could not be compensated: retry it, or skip the refused step")
	case i.State != stateRunning:
		return refuse("the instance has no steps to compensate")
	case i.inWork(now):
		return refuseInWork()
	}
	i.State, i.Waiting, i.Attempts = stateCompensating, nil, nil
	i.Failure.Message = "compensated by " + reason
	return nil
}

// inWork reports whether an attempt at a step may be running that the record does not contain yet.
func (i *instance) inWork(now time.Time) bool {
	if i.Waiting != nil {
		return !now.Before(i.Waiting.Until.Add(-clockMargin))
	}
	return i.Attempts == nil || !i.Attempts.Stuck && !now.Before(i.Attempts.Next.Add(-clockMargin))
}

// refuseInWork returns the error of an operation that would lose the outcome of a running attempt.
func refuseInWork() error {
	return refuse("a step of the instance is running and its outcome would be lost: retry")
}
