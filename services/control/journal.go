package control

import (
	"context"
	"errors"

	"github.com/headgate/headgate/backbone"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type journalService struct {
	controlv1connect.UnimplementedJournalServiceHandler

	*Service
}

// GetJournal implements JournalService.
func (s journalService) GetJournal(ctx context.Context, _ *controlv1.GetJournalRequest) (*controlv1.GetJournalResponse, error) {
	accepted, err := backbone.AcceptedLosses(ctx, s.js)
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
	return &controlv1.GetJournalResponse{Journal: out}, nil
}

// AcceptLoss implements JournalService.
func (s journalService) AcceptLoss(ctx context.Context, req *controlv1.AcceptLossRequest) (*controlv1.AcceptLossResponse, error) {
	loss, err := backbone.AcceptLoss(ctx, s.js, caller(ctx), req.GetReason())
	if errors.Is(err, backbone.ErrNoLoss) {
		return nil, precondition("NO_LOSS", "the journal is whole, or its loss was accepted before")
	}
	if err != nil {
		return nil, asConnectError(err)
	}
	s.log.Warn().Any("loss", loss).Msg("an operator has accepted a loss of the journal")
	return &controlv1.AcceptLossResponse{Loss: lossMessage(loss)}, nil
}

func lossMessage(loss backbone.AcceptedLoss) *controlv1.JournalLoss {
	return &controlv1.JournalLoss{
		Last: int64(loss.Last), Recorded: int64(loss.Recorded), Gaps: gapMessages(loss.Gaps), //nolint:gosec // far below 2^63
		By: loss.By, Reason: loss.Reason, Time: timestamppb.New(loss.Time),
	}
}

func gapMessages(gaps []backbone.Gap) []*controlv1.JournalGap {
	out := make([]*controlv1.JournalGap, len(gaps))
	for n, gap := range gaps {
		out[n] = &controlv1.JournalGap{From: int64(gap.From), To: int64(gap.To)} //nolint:gosec // far below 2^63
	}
	return out
}
