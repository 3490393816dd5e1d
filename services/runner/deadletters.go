package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/chassis/response"
	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/model"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// defaultPage is the size of a page that the client does not choose.
const defaultPage = 100

func unavailable(what string, err error) error {
	return connect.NewError(connect.CodeUnavailable, what+" cannot be read now: try again").WithCause(err)
}

// ListDeadLetters implements RunnerAdmin.
func (s *Service) ListDeadLetters(ctx context.Context, req *adminv1.ListDeadLettersRequest) (*adminv1.ListDeadLettersResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	if err := s.answers.Admit(tenant); err != nil {
		return nil, err
	}
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
	err = backbone.DeadLetters(ctx, s.js, tenant, from, func(letter backbone.Letter) (bool, error) {
		if !strings.Contains(letter.Cause, req.GetCause()) {
			return true, nil
		}
		out, err := letterMessage(letter)
		if err != nil {
			return false, err
		}
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

func letterMessage(letter backbone.Letter) (*adminv1.DeadLetter, error) {
	data, err := model.DecodeObject(letter.Event.Data)
	if err != nil {
		return nil, err
	}
	object, err := structpb.NewStruct(data)
	return &adminv1.DeadLetter{
		Id: int64(letter.Sequence), Cause: letter.Cause, EventId: letter.Event.ID, EventType: letter.Event.Type, //nolint:gosec // far below 2^63
		AggregateType: letter.Event.AggregateType, AggregateId: letter.Event.AggregateID, Data: object,
		CorrelationId: letter.Event.Context.CorrelationID, Time: timestamppb.New(letter.Time),
	}, err
}

// ReplayDeadLetters implements RunnerAdmin.
func (s *Service) ReplayDeadLetters(ctx context.Context, req *adminv1.ReplayDeadLettersRequest) (*adminv1.ReplayDeadLettersResponse, error) {
	tenant, err := s.tenants.Of(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	// Their sequences are collected first, since a replay may add new letters.
	var letters []uint64
	err = backbone.DeadLetters(ctx, s.js, tenant, 1, func(letter backbone.Letter) (bool, error) {
		wanted := len(req.GetIds()) == 0 || slices.Contains(req.GetIds(), int64(letter.Sequence)) //nolint:gosec // far below 2^63
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
		letter, found, err := backbone.ReadDeadLetter(ctx, s.js, tenant, sequence)
		if err != nil {
			return nil, unavailable("dead letters", err)
		}
		if !found {
			continue // another call has replayed the letter
		}
		if err := s.replay(ctx, tenant, letter); err != nil {
			if ctx.Err() != nil {
				return nil, connect.Errorf(connect.CodeDeadlineExceeded, "%d letters are done, and the rest stays: replay again", res.Replayed).WithCause(err)
			}
			s.log.Warn().Err(err).Str("tenant", tenant.String()).Uint64("letter", letter.Sequence).Msg("dead letter fails again")
			res.FailedId, res.Failure = int64(letter.Sequence), explain(err) //nolint:gosec // far below 2^63
			return res, nil
		}
		res.Replayed++
	}
	return res, nil
}

// explain is what an operator is told of a failure.
func explain(err error) string {
	var known *connect.Error
	if errors.As(err, &known) {
		return fmt.Sprintf("%s: %s", known.Code(), known.Message())
	}
	return err.Error()
}

// replay does a letter's work and removes it.
func (s *Service) replay(ctx context.Context, tenant contextkit.TenantID, letter backbone.Letter) error {
	rc := letter.Event.Context
	rc.CausationID, rc.RequestID = letter.Event.ID, contextkit.NewID()
	rc.Depth++
	work := contextkit.NewContext(ctx, rc)
	w := s.worker(tenant)
	if err := w.reopen(work, letter.Event); err != nil {
		return err
	}
	if err := w.runAll(work, letter.Event); err != nil {
		return err
	}
	return backbone.RemoveDeadLetter(ctx, s.js, letter.Sequence)
}

// runAll runs every workflow that the event starts, and returns their errors.
func (w *worker) runAll(ctx context.Context, event backbone.Event) error {
	var errs []error
	m := w.models.Current()
	for _, workflow := range m.Workflows() {
		if workflow.On != (model.EventRef{Aggregate: event.AggregateType, Event: event.Type}) {
			continue
		}
		if _, err := w.engine.run(ctx, m, workflow, w.tenant, event); err != nil {
			errs = append(errs, fmt.Errorf("workflow %s: %w", workflow.Name, err))
		}
	}
	return errors.Join(errs...)
}

// reopen lets the event's failed instances be undone again.
func (w *worker) reopen(ctx context.Context, event backbone.Event) error {
	for _, workflow := range w.models.Current().Workflows() {
		if workflow.On != (model.EventRef{Aggregate: event.AggregateType, Event: event.Type}) {
			continue
		}
		i, err := w.engine.instances.of(ctx, w.tenant, workflow.Name, event)
		if errors.Is(err, errNoInstance) || err == nil && i.State != stateFailed && i.Attempts == nil {
			continue
		}
		if err != nil {
			return err
		}
		i.reopen()
		if err := w.engine.instances.save(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// reopen takes back the refusals of what undoes a failed instance, so that it is
// tried again.
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
