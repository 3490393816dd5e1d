package control

import (
	"context"
	"errors"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
)

type journalService struct {
	controlv1connect.UnimplementedJournalServiceHandler

	*Service
}

// GetJournal implements JournalService.
func (s journalService) GetJournal(
	ctx context.Context, _ *controlv1.GetJournalRequest,
) (*controlv1.GetJournalResponse, error) {
	accepted, err := journal.AcceptedLosses(ctx, s.js)
	if err != nil {
		return nil, asConnectError(err)
	}
	damage := s.journal.Integrity().Damage()
	out := &controlv1.Journal{Damaged: damage != nil, Summary: damage.String()}
	if damage == nil && len(accepted) > 0 {
		out.Summary = "the journal is whole, except for losses that an operator has accepted"
	}
	if damage != nil {
		out.Gaps, out.EndMissing, out.Since = gapMessages(damage.Gaps), damage.End != nil, timestamppb.New(damage.Since)
	}
	for n := len(accepted) - 1; n >= 0; n-- {
		out.Accepted = append(out.Accepted, lossMessage(accepted[n]))
	}
	unreadable, count := s.journal.Integrity().KnownUnreadable()
	out.UnreadableCount = int64(count)
	for _, e := range unreadable[:min(len(unreadable), maxListed)] {
		out.Unreadable = append(out.Unreadable, s.unreadableMessage(e))
	}
	declared, err := s.journal.NonEvents(ctx, maxListed)
	if err != nil {
		return nil, asConnectError(err)
	}
	for _, d := range declared {
		out.NonEvents = append(out.NonEvents, s.nonEventMessage(d))
	}
	return &controlv1.GetJournalResponse{Journal: out}, nil
}

// AcceptLoss implements JournalService.
func (s journalService) AcceptLoss(
	ctx context.Context, req *controlv1.AcceptLossRequest,
) (*controlv1.AcceptLossResponse, error) {
	loss, err := journal.AcceptLoss(ctx, s.js, caller(ctx), req.GetReason())
	if errors.Is(err, journal.ErrNoLoss) {
		return nil, precondition(rpc.ReasonNoLoss, "the journal is whole, or its loss was accepted before")
	}
	if err != nil {
		return nil, asConnectError(err)
	}
	s.log.Warn().Any("loss", loss).Msg("an operator has accepted a loss of the journal")
	return &controlv1.AcceptLossResponse{Loss: lossMessage(loss)}, nil
}

// maxListed bounds the messages and declarations that GetJournal lists.
const maxListed = 100

// DeclareNoEvent implements JournalService.
func (s journalService) DeclareNoEvent(
	ctx context.Context, req *controlv1.DeclareNoEventRequest,
) (*controlv1.DeclareNoEventResponse, error) {
	tenant, sequence, err := s.message(req.GetTenantId(), req.GetReference())
	if err != nil {
		return nil, err
	}
	declared, err := s.journal.DeclareNonEvent(ctx, tenant, sequence, caller(ctx), req.GetReason())
	switch {
	case errors.Is(err, journal.ErrNoMessage):
		return nil, connect.NewError(connect.CodeNotFound, err.Error())
	case errors.Is(err, journal.ErrReadable):
		return nil, precondition(rpc.ReasonMessageIsEvent, "%v: it cannot be declared a non-event", err)
	case err != nil:
		return nil, asConnectError(err)
	}
	s.log.Warn().Any("declaration", declared).Str("tenant", tenant.String()).Uint64("sequence", sequence).Msg(
		"an operator has declared a message of the journal a non-event",
	)
	return &controlv1.DeclareNoEventResponse{Declared: s.nonEventMessage(declared)}, nil
}

// RevokeNoEvent implements JournalService.
func (s journalService) RevokeNoEvent(
	ctx context.Context, req *controlv1.RevokeNoEventRequest,
) (*controlv1.RevokeNoEventResponse, error) {
	tenant, sequence, err := s.message(req.GetTenantId(), req.GetReference())
	if err != nil {
		return nil, err
	}
	revoked, err := s.journal.RevokeNonEvent(ctx, tenant, sequence)
	if errors.Is(err, journal.ErrNotDeclared) {
		return nil, connect.NewError(connect.CodeNotFound, err.Error())
	}
	if err != nil {
		return nil, asConnectError(err)
	}
	s.log.Warn().Any(
		"declaration", revoked,
	).Str("tenant", tenant.String()).Uint64("sequence", sequence).Str("by", caller(ctx)).Str("reason", req.GetReason()).
		Msg("an operator has revoked a declaration that a message of the journal is a non-event")
	return &controlv1.RevokeNoEventResponse{Revoked: s.nonEventMessage(revoked)}, nil
}

// message returns the tenant and sequence of a message by its reference. A reference is a position of the message's
// tenant: an aggregate's error shows it to the tenant's clients.
func (s journalService) message(tenantID, reference string) (tenant contextkit.TenantID, sequence uint64, err error) {
	if tenantID != "" {
		if tenant, err = contextkit.ParseTenantID(tenantID); err != nil {
			return tenant, 0, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
		}
	}
	if sequence, err = s.positions.Parse(tenant, reference); err != nil {
		return tenant, 0, connect.Errorf(connect.CodeInvalidArgument,
			"reference: it does not refer to a message of tenant %q in this journal", tenantID)
	}
	return tenant, sequence, nil
}

func (s journalService) unreadableMessage(e *journal.UnreadableError) *controlv1.UnreadableMessage {
	return &controlv1.UnreadableMessage{
		Reference:     s.positions.Format(e.Tenant, e.Sequence),
		TenantId:      e.Tenant.String(),
		AggregateType: excerpt.Text(e.AggregateType, excerpt.Name),
		AggregateId:   excerpt.Text(e.AggregateID, excerpt.Name),
		Fault:         string(e.Fault),
		Detail:        e.Error(),
		Time:          timestamppb.New(e.Stored),
	}
}

func (s journalService) nonEventMessage(d journal.NonEvent) *controlv1.NonEvent {
	return &controlv1.NonEvent{
		Reference: s.positions.Format(d.Tenant, d.Sequence),
		TenantId:  d.Tenant.String(),
		Fault:     string(d.Fault),
		By:        d.By,
		Reason:    d.Reason,
		Time:      timestamppb.New(d.Time),
	}
}

func lossMessage(loss journal.AcceptedLoss) *controlv1.JournalLoss {
	return &controlv1.JournalLoss{
		Last:     int64(loss.Last),
		Recorded: int64(loss.Recorded),
		Gaps:     gapMessages(loss.Gaps),
		By:       loss.By,
		Reason:   loss.Reason,
		Time:     timestamppb.New(loss.Time),
	}
}

func gapMessages(gaps []journal.Gap) []*controlv1.JournalGap {
	out := make([]*controlv1.JournalGap, len(gaps))
	for n, gap := range gaps {
		out[n] = &controlv1.JournalGap{From: int64(gap.From), To: int64(gap.To)}
	}
	return out
}
