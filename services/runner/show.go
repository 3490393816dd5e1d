package runner

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

var stateMessages = map[state]adminv1.WorkflowState{
	stateUndecided:    adminv1.WorkflowState_WORKFLOW_STATE_RUNNING,
	stateRunning:      adminv1.WorkflowState_WORKFLOW_STATE_RUNNING,
	stateCompensating: adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATING,
	stateCompleted:    adminv1.WorkflowState_WORKFLOW_STATE_COMPLETED,
	stateCompensated:  adminv1.WorkflowState_WORKFLOW_STATE_COMPENSATED,
	stateFailed:       adminv1.WorkflowState_WORKFLOW_STATE_FAILED,
	stateCancelled:    adminv1.WorkflowState_WORKFLOW_STATE_CANCELLED,
}

// message returns the state as a message.
func (i *instance) message() adminv1.WorkflowState {
	if i.Attempts != nil && i.Attempts.Stuck {
		return adminv1.WorkflowState_WORKFLOW_STATE_STUCK
	}
	return stateMessages[i.State]
}

// subject returns the aggregate whose event started the instance.
func (i *instance) subject() *adminv1.WorkflowSubject {
	meta := i.Trigger.Meta
	return &adminv1.WorkflowSubject{
		AggregateType: meta.AggregateType,
		AggregateId:   meta.AggregateID,
		Version:       meta.Version,
		EventId:       meta.EventID,
	}
}

func (a *attempts) message() *adminv1.WorkflowAttempts {
	if a == nil {
		return nil
	}
	out := &adminv1.WorkflowAttempts{
		Step:      a.Step,
		Failed:    int32(a.Failed),
		LastError: a.Error,
		First:     timestamppb.New(a.First),
		Last:      timestamppb.New(a.Last),
		Latest:    attemptMessages(a.Latest),
	}
	if !a.Next.IsZero() {
		out.Next = timestamppb.New(a.Next)
	}
	return out
}

func attemptMessages(all []failedAttempt) (out []*adminv1.WorkflowAttempt) {
	for _, one := range all {
		out = append(out, &adminv1.WorkflowAttempt{
			Started: timestamppb.New(one.Began),
			Ended:   timestamppb.New(one.Ended),
			Error:   one.Error,
		})
	}
	return out
}

// timeMessage returns a time as a message, nil for the zero time.
func timeMessage(at time.Time) *timestamppb.Timestamp {
	if at.IsZero() {
		return nil
	}
	return timestamppb.New(at)
}

func (w *waiting) message() *adminv1.WorkflowWait {
	if w == nil {
		return nil
	}
	return &adminv1.WorkflowWait{Step: w.Step, Until: timestamppb.New(w.Until), Since: timeMessage(w.Since)}
}

// instance returns a workflow's instance by its id, or by the aggregate whose event started it ("ID", or "ID=VERSION"
// if that was not its first event).
func (s *Service) instance(ctx context.Context, tenant contextkit.TenantID, workflow, id string) (*instance, error) {
	i, err := s.instances.load(ctx, tenant, workflow, id)
	if errors.Is(err, errNoInstance) {
		if event, found := s.triggerOf(ctx, tenant, workflow, id); found {
			i, err = s.instances.load(ctx, tenant, workflow, event)
		}
	}
	if errors.Is(err, errNoInstance) {
		return nil, connect.Errorf(connect.CodeNotFound, "workflow %q has no instance %q", workflow, id)
	}
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, "the instance cannot be read now: retry").WithCause(err)
	}
	return i, nil
}

// triggerOf returns the id of an aggregate's event that may have started a workflow, if it is among the aggregate's
// first [rearmVersions] in the journal.
func (s *Service) triggerOf(
	ctx context.Context, tenant contextkit.TenantID, workflow, name string,
) (event string, found bool) {
	w, ok := s.models.Current().Workflow(workflow)
	if !ok {
		return "", false
	}
	id, text, numbered := strings.Cut(name, "=")
	version := int64(1)
	if numbered {
		var err error
		if version, err = strconv.ParseInt(text, 10, 64); err != nil {
			return "", false
		}
	}
	if version < 1 || version > rearmVersions {
		return "", false
	}
	subject := streams.EventSubject(tenant, w.On.Aggregate, id)
	err := natsclient.ReadPart(
		ctx, s.js, streams.Events, subject, 1, int(version), func(msg *jetstream.RawStreamMsg) error {
			if read, err := journal.ReadEvent(journal.RawMessage(msg)); err == nil && read.Version == version {
				event = read.UniqueID()
			}
			return nil
		},
	)
	return event, err == nil && event != ""
}
