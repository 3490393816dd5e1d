package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// answerMargin is subtracted from a call's deadline, so that Drain returns the work in flight instead of timing out.
const answerMargin = 50 * time.Millisecond

// Status implements RunnerAdmin.
func (s *Service) Status(ctx context.Context, _ *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	status, err := s.nodeStatus(ctx)
	return &adminv1.StatusResponse{Status: status}, err
}

// Drain implements RunnerAdmin.
func (s *Service) Drain(ctx context.Context, _ *adminv1.DrainRequest) (*adminv1.DrainResponse, error) {
	s.change(func() { s.drained = true })
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		waiting, cancel = context.WithDeadline(ctx, deadline.Add(-answerMargin))
	}
	defer cancel()
	if err := s.until(waiting, func() bool { return !s.drained || s.idle() }); err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	status, err := s.nodeStatus(ctx)
	return &adminv1.DrainResponse{Status: status}, err
}

// Resume implements RunnerAdmin.
func (s *Service) Resume(ctx context.Context, _ *adminv1.ResumeRequest) (*adminv1.ResumeResponse, error) {
	s.change(func() { s.drained = false })
	status, err := s.nodeStatus(ctx)
	return &adminv1.ResumeResponse{Status: status}, err
}

// Reload implements RunnerAdmin.
func (s *Service) Reload(ctx context.Context, _ *adminv1.ReloadRequest) (*adminv1.ReloadResponse, error) {
	changed, err := s.models.Reload(ctx)
	var invalid *model.Error
	switch {
	case errors.As(err, &invalid):
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			"the model has errors and the current one stays in use:\n"+invalid.Error())
	case err != nil:
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			"the model cannot be read and the current one stays in use").WithCause(err)
	}
	if changed {
		s.noteStarts(ctx)
		// The events that trigger workflows may have changed, so update the durable consumers where they are in use.
		for _, tenant := range s.byDurables() {
			if _, err := s.worker(tenant).consumer(ctx); err != nil {
				return nil, connect.NewError(connect.CodeUnavailable,
					"the model is loaded, but its triggers are not subscribed yet: reload again").WithCause(err)
			}
		}
		s.log.Info().Str("model", s.models.Current().Revision).Msg("model reloaded")
	}
	status, err := s.nodeStatus(ctx)
	return &adminv1.ReloadResponse{Status: status, Changed: changed}, err
}

// PauseTenant implements RunnerAdmin.
func (s *Service) PauseTenant(
	ctx context.Context, req *adminv1.PauseTenantRequest,
) (*adminv1.PauseTenantResponse, error) {
	status, err := s.pause(ctx, req.GetTenantId(), true)
	return &adminv1.PauseTenantResponse{Tenant: status}, err
}

// ResumeTenant implements RunnerAdmin.
func (s *Service) ResumeTenant(
	ctx context.Context, req *adminv1.ResumeTenantRequest,
) (*adminv1.ResumeTenantResponse, error) {
	status, err := s.pause(ctx, req.GetTenantId(), false)
	return &adminv1.ResumeTenantResponse{Tenant: status}, err
}

// change changes the desired state of the workers and wakes Run.
func (s *Service) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.notify()
}

// statusConcurrency bounds the tenants whose status is concurrently read from JetStream.
const statusConcurrency = 16

func (s *Service) nodeStatus(ctx context.Context) (*adminv1.NodeStatus, error) {
	tenants := s.tenants.All()
	status := &adminv1.NodeStatus{
		State:         adminv1.NodeState_NODE_STATE_RUNNING,
		ModelRevision: s.models.Current().Revision,
		Tenants:       make([]*adminv1.TenantStatus, len(tenants)),
	}
	group, asking := errgroup.WithContext(ctx)
	group.SetLimit(statusConcurrency)
	for n, tenant := range tenants {
		group.Go(func() (err error) {
			status.Tenants[n], err = s.tenantStatus(asking, tenant)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, t := range status.GetTenants() {
		status.InFlight += t.GetInFlight()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained {
		status.State = adminv1.NodeState_NODE_STATE_DRAINING
		if s.idle() {
			status.State = adminv1.NodeState_NODE_STATE_DRAINED
		}
	}
	return status, nil
}

func (s *Service) tenantStatus(ctx context.Context, tenant contextkit.TenantID) (*adminv1.TenantStatus, error) {
	s.mu.Lock()
	status := &adminv1.TenantStatus{TenantId: tenant.String(), Paused: s.paused[tenant]}
	if w := s.workers[tenant]; w != nil {
		status.InFlight = w.inFlight.Load()
	}
	s.mu.Unlock()
	var err error
	if status.AckPending, status.Pending, err = s.waiting(ctx, tenant); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the journal is unavailable: retry").WithCause(err)
	}
	return status, nil
}

// waiting returns the number of the tenant's triggers that were started and have not ended, and of triggers that no
// runner has started, regardless of which runner owns the tenant.
func (s *Service) waiting(ctx context.Context, tenant contextkit.TenantID) (begun, behind int64, err error) {
	s.mu.Lock()
	t, byCursors := s.term, s.cursorsSince != 0
	s.mu.Unlock()
	if byCursors {
		if t != nil {
			if o := t.owner(tenant); o != nil {
				if begun, behind, known := o.waiting(); known {
					return begun, behind, nil
				}
			}
		}
		return s.waitingElsewhere(ctx, tenant)
	}
	return s.waitingAtDurable(ctx, tenant)
}

// waitingAtDurable is waiting for the durable consumer of earlier versions.
func (s *Service) waitingAtDurable(ctx context.Context, tenant contextkit.TenantID) (begun, behind int64, err error) {
	consumer, err := s.js.Consumer(ctx, streams.Events, durableName(tenant))
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound): // no trigger has been requested yet
		return 0, 0, nil
	case err != nil:
		return 0, 0, err
	}
	return int64(
		consumer.CachedInfo().NumAckPending,
	), int64(consumer.CachedInfo().NumPending), nil
}

// waitingElsewhere is waiting for a tenant whose cursor another runner owns.
func (s *Service) waitingElsewhere(ctx context.Context, tenant contextkit.TenantID) (begun, behind int64, err error) {
	stored, err := s.loadCursor(ctx, tenant)
	if err != nil {
		return 0, 0, err
	}
	if stored.revision == 0 {
		if stored.cursor, err = s.startingCursor(ctx, tenant); err != nil {
			return 0, 0, err
		}
	}
	seen := map[string]bool{}
	for _, workflow := range s.models.Current().Workflows() {
		if seen[workflow.On.Aggregate] {
			continue
		}
		seen[workflow.On.Aggregate] = true
		count, err := journal.CountEvents(ctx, s.js, streams.EventSubject(tenant, workflow.On.Aggregate, "*"),
			stored.Read)
		if err != nil {
			return 0, 0, err
		}
		behind += count
	}
	if stored.Durable > 0 {
		if begun, _, err = s.waitingAtDurable(ctx, tenant); err != nil {
			return 0, 0, err
		}
	}
	return begun + int64(len(stored.Open)), behind, nil
}

// GetWorkflow implements RunnerAdmin.
func (s *Service) GetWorkflow(
	ctx context.Context, req *adminv1.GetWorkflowRequest,
) (*adminv1.GetWorkflowResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	i, err := s.instance(ctx, tenant, req.GetWorkflow(), req.GetInstanceId())
	if err != nil {
		return nil, err
	}
	trigger, err := structpb.NewStruct(i.Trigger.Data)
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal,
			"the instance cannot be shown").WithCause(fmt.Errorf("trigger: %w", err))
	}
	res := &adminv1.GetWorkflowResponse{
		Workflow:   i.Workflow,
		InstanceId: i.ID,
		State:      i.message(),
		Trigger:    trigger,
		Started:    timestamppb.New(i.Started),
		Updated:    timestamppb.New(i.Updated),
		Subject:    i.subject(),
		Model:      i.Model,
		Attempts:   i.Attempts.message(),
		Waiting:    i.Waiting.message(),
	}
	for _, done := range i.Steps {
		res.Steps = append(res.Steps, &adminv1.WorkflowStep{
			Name:           done.Name,
			Outcome:        string(done.Outcome),
			Message:        done.Message,
			Time:           timestamppb.New(done.Time),
			Started:        timeMessage(done.Began),
			FailedAttempts: attemptMessages(done.Failed),
		})
	}
	return res, nil
}
