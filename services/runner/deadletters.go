package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// defaultPage is the default size of a page.
const defaultPage = 100

func unavailable(what string, err error) error {
	return connect.NewError(connect.CodeUnavailable, what+" cannot be read now: retry").WithCause(err)
}

// ListDeadLetters implements RunnerAdmin.
func (s *Service) ListDeadLetters(
	ctx context.Context, req *adminv1.ListDeadLettersRequest,
) (*adminv1.ListDeadLettersResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	leave, err := s.enterRead(ctx, tenant)
	if err != nil {
		return nil, err
	}
	defer leave()
	scope := tenant.String() + "/letters"
	from, err := s.parsePage(scope, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPage
	}
	res, page := &adminv1.ListDeadLettersResponse{}, response.Page{Bytes: s.answers.PageBytes()}
	err = deadletter.Read(ctx, s.js, tenant, from, func(letter deadletter.Letter) (bool, error) {
		if !strings.Contains(letter.Cause, req.GetCause()) {
			return true, nil
		}
		out := letterMessage(letter)
		if len(res.Letters) == size || !page.Add(proto.Size(out)) {
			res.NextPageToken = s.pages.Format(scope, letter.Sequence)
			return false, nil
		}
		res.Letters = append(res.Letters, out)
		return true, nil
	})
	if err != nil {
		return nil, unavailable("dead letters", err)
	}
	return res, s.answers.Hold(ctx, tenant, page.Used())
}

// letterMessage returns a letter as a message. It omits the data of a message that cannot be read, and replaces bytes
// that are not UTF-8, so that one letter does not hide the others.
func letterMessage(letter deadletter.Letter) *adminv1.DeadLetter {
	var object *structpb.Struct
	if data, err := model.DecodeObject(letter.Event.Data); err == nil && letter.Unreadable == nil {
		object, _ = structpb.NewStruct(data) // nil with an error
	}
	valid := func(text string) string { return strings.ToValidUTF8(text, "\ufffd") }
	return &adminv1.DeadLetter{
		Id:            int64(letter.Sequence),
		Cause:         valid(letter.Cause),
		EventId:       valid(letter.Event.ID),
		EventType:     valid(letter.Event.Type),
		AggregateType: valid(letter.Event.AggregateType),
		AggregateId:   valid(letter.Event.AggregateID),
		Data:          object,
		CorrelationId: valid(letter.Event.Context.CorrelationID),
		Time:          timestamppb.New(letter.Time),
		Workflow:      letter.Workflow,
		InstanceId:    letter.Instance,
	}
}

// maxReplayFailures bounds the failures in a response.
const maxReplayFailures = 100

// ReplayDeadLetters implements RunnerAdmin.
func (s *Service) ReplayDeadLetters(
	ctx context.Context, req *adminv1.ReplayDeadLettersRequest,
) (*adminv1.ReplayDeadLettersResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	// Collect their sequences first, since a replay may add new letters.
	var letters []uint64
	err = deadletter.Read(ctx, s.js, tenant, 1, func(letter deadletter.Letter) (bool, error) {
		wanted := len(req.GetIds()) == 0 ||
			slices.Contains(req.GetIds(), int64(letter.Sequence))
		if wanted && strings.Contains(letter.Cause, req.GetCause()) {
			letters = append(letters, letter.Sequence)
		}
		return true, nil
	})
	if err != nil {
		return nil, unavailable("dead letters", err)
	}
	res := &adminv1.ReplayDeadLettersResponse{}
	for _, sequence := range letters {
		letter, found, err := deadletter.Get(ctx, s.js, tenant, sequence)
		if err != nil {
			return nil, unavailable("dead letters", err)
		}
		if !found {
			continue // another call has replayed the letter
		}
		err = s.replay(ctx, tenant, letter)
		if err == nil {
			res.Replayed++
			continue
		}
		if ctx.Err() != nil {
			return nil, connect.Errorf(connect.CodeDeadlineExceeded,
				"%d letters were replayed, the others remain: replay again", res.Replayed).WithCause(err)
		}
		s.log.Warn().Err(
			err,
		).Str("tenant", tenant.String()).Uint64("letter", letter.Sequence).Msg("dead letter fails again")
		failure := &adminv1.LetterFailure{
			Id:      int64(letter.Sequence),
			Failure: explain(err),
		}
		if res.FailedId == 0 {
			res.FailedId, res.Failure = failure.Id, failure.Failure
		}
		if len(res.Failures) < maxReplayFailures {
			res.Failures = append(res.Failures, failure)
		}
	}
	return res, nil
}

// DiscardDeadLetters implements RunnerAdmin.
func (s *Service) DiscardDeadLetters(
	ctx context.Context, req *adminv1.DiscardDeadLettersRequest,
) (*adminv1.DiscardDeadLettersResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	res := &adminv1.DiscardDeadLettersResponse{}
	for _, id := range req.GetIds() {
		letter, found, err := deadletter.Get(ctx, s.js, tenant, uint64(max(id, 0)))
		if err != nil {
			return nil, unavailable("dead letters", err)
		}
		if !found {
			continue
		}
		if err := s.giveUp(ctx, tenant, letter, by(ctx, req.GetReason())); err != nil {
			return nil, connect.Errorf(connect.CodeUnavailable, "%d letters were discarded, the others remain: retry",
				res.Discarded).WithCause(err)
		}
		s.log.Info().Str(
			"tenant", tenant.String(),
		).Uint64("letter", letter.Sequence).Str("workflow", letter.Workflow).Str("instance", letter.Instance).
			Str("reason", by(ctx, req.GetReason())).Msg("an operator discards a dead letter")
		res.Discarded++
	}
	return res, nil
}

// giveUp removes a letter, and cancels the instance that it names unless the instance continues automatically.
func (s *Service) giveUp(
	ctx context.Context, tenant contextkit.TenantID, letter deadletter.Letter, reason string,
) error {
	if letter.Instance != "" {
		i, err := s.instances.load(ctx, tenant, letter.Workflow, letter.Instance)
		switch {
		case errors.Is(err, errNoInstance):
		case err != nil:
			return err
		case i.State == stateFailed, !i.State.ended() && i.Attempts != nil && i.Attempts.Stuck:
			if err := i.cancel(reason); err != nil {
				return err
			}
			if err := s.instances.save(ctx, i); err != nil {
				return err
			}
		}
	}
	return deadletter.Remove(ctx, s.js, letter.Sequence)
}

// explain returns the text about a failure that operators receive.
func explain(err error) string {
	var known *connect.Error
	if errors.As(err, &known) {
		return fmt.Sprintf("%s: %s", known.Code(), known.Message())
	}
	return err.Error()
}

// replay processes a letter again and removes it.
func (s *Service) replay(ctx context.Context, tenant contextkit.TenantID, letter deadletter.Letter) error {
	if letter.Unreadable != nil {
		return fmt.Errorf("the event cannot be read: %w", letter.Unreadable)
	}
	rc := letter.Event.Context
	rc.CausationID, rc.RequestID = letter.Event.ID, contextkit.NewID()
	rc.Depth++
	work := contextkit.NewContext(ctx, rc)
	w := s.worker(tenant)
	var err error
	if letter.Instance != "" {
		err = w.replayInstance(work, letter.Workflow, letter.Instance)
	} else {
		err = w.replayEvent(work, letter)
	}
	if err != nil {
		return err
	}
	return deadletter.Remove(ctx, s.js, letter.Sequence)
}

// replayInstance continues an instance; the record contains its completed steps.
func (w *worker) replayInstance(ctx context.Context, workflow, id string) error {
	i, err := w.engine.instances.load(ctx, w.tenant, workflow, id)
	if err != nil {
		return fmt.Errorf("workflow %s: instance %s: %w", workflow, id, err)
	}
	return w.driveAgain(ctx, i)
}

// replayEvent runs the letter's workflow for its event or, for a letter of an earlier version, every workflow that
// the event starts.
func (w *worker) replayEvent(ctx context.Context, letter deadletter.Letter) error {
	var errs []error
	m := w.models.Current()
	for _, workflow := range m.Workflows() {
		starts := workflow.On == (model.EventRef{Aggregate: letter.Event.AggregateType, Event: letter.Event.Type})
		if !starts || letter.Workflow != "" && letter.Workflow != workflow.Name {
			continue
		}
		i, err := w.engine.instances.of(ctx, w.tenant, workflow.Name, letter.Event)
		switch {
		case err == nil:
			err = w.driveAgain(ctx, i)
		case !errors.Is(err, errNoInstance):
		case letter.Workflow == "" && time.Since(letter.Time) > streams.WorkflowTTL:
			err = errors.New("the letter is of an earlier version, and any record of the instance has expired: " +
				"a replay would repeat completed steps. Inspect the effects of the event, and discard the letter")
		default:
			_, err = w.engine.run(ctx, m, workflow, w.tenant, letter.Event)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("workflow %s: %w", workflow.Name, err))
		}
	}
	return errors.Join(errs...)
}

// driveAgain drives an instance that is stuck or failed. If a step fails again, the instance is stuck again.
func (w *worker) driveAgain(ctx context.Context, i *instance) error {
	if i.Attempts != nil || i.State == stateFailed {
		i.reopen()
		if err := w.engine.instances.save(ctx, i); err != nil {
			return err
		}
	}
	i.trial = true
	err := w.engine.drive(ctx, i)
	var failure *stepError
	if errors.As(err, &failure) && !final(err) {
		return w.engine.markStuck(ctx, i, &undrivableError{step: failure.name, message: failure.err.Error()})
	}
	return err
}

// reopen removes the refusals of the compensation of a failed instance, so that it is retried.
func (i *instance) reopen() {
	i.Attempts = nil
	if i.State != stateFailed {
		return
	}
	i.State = stateCompensating
	i.Steps = slices.DeleteFunc(i.Steps, func(done step) bool {
		return done.Outcome == outcomeRefused && done.Name != i.Failure.Step
	})
}
