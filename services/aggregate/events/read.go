package events

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
)

// ReadEvents implements EventService.
func (s *Service) ReadEvents(
	ctx context.Context,
	req *aggregatev1.ReadEventsRequest,
) (*aggregatev1.ReadEventsResponse, error) {
	tenant, leave, err := s.open(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := s.rangeOf(ctx, tenant, req)
	if err != nil {
		return nil, err
	}
	back := req.GetNewestFirst()
	found, err := collect(ctx, s, tenant, r, back, req.GetPageSize(), selection[*aggregatev1.JournalEvent]{
		past: pastTime(back, req.GetSince(), req.GetUntil()),
		item: func(m journal.Message) (*aggregatev1.JournalEvent, bool) {
			if !typed(req.GetEventTypes(), m) {
				return nil, false
			}
			return s.message(tenant, m), true
		},
	})
	if err != nil {
		return nil, err
	}
	res := &aggregatev1.ReadEventsResponse{Events: found.items}
	switch {
	case found.last > 0:
		res.Position = s.Positions.Format(tenant, found.last)
	case !back && r.From > 1:
		res.Position = s.Positions.Format(tenant, r.From-1)
	}
	res.NextPageToken, err = s.pageToken(tenant, req, found.next)
	return res, err
}

// rangeOf returns the range that a request reads.
func (s *Service) rangeOf(
	ctx context.Context,
	tenant contextkit.TenantID,
	req *aggregatev1.ReadEventsRequest,
) (journal.Range, error) {
	r := journal.Range{Subject: journal.EventsOf(tenant, req.GetAggregateType(), "")}
	if req.GetAfter() != "" {
		after, err := s.Positions.Parse(tenant, req.GetAfter())
		if err != nil {
			return r, wrongPosition("after", err)
		}
		r.From = after + 1
	}
	if req.GetBefore() != "" {
		before, err := s.Positions.Parse(tenant, req.GetBefore())
		if err != nil {
			return r, wrongPosition("before", err)
		}
		r.Before = max(before, 1)
	}
	start, err := s.resume(tenant, req)
	switch {
	case err != nil:
		return r, err
	case start > 0 && req.GetNewestFirst():
		r.Before = start
	case start > 0:
		r.From = start
	default:
		r, err = s.between(ctx, r, req.GetNewestFirst(), req.GetSince(), req.GetUntil())
	}
	return r, asConnectError(err)
}

// between narrows the end of a range at which a scan begins to the messages that were stored from since on and before
// until; nil: any time.
func (s *Service) between(
	ctx context.Context,
	r journal.Range,
	back bool,
	since, until *timestamppb.Timestamp,
) (journal.Range, error) {
	switch {
	case back && until != nil:
		before, err := s.sequenceAt(ctx, until.AsTime())
		if err != nil {
			return r, err
		}
		if r.Before == 0 || before < r.Before {
			r.Before = before
		}
	case !back && since != nil:
		from, err := s.sequenceAt(ctx, since.AsTime())
		if err != nil {
			return r, err
		}
		r.From = max(r.From, from)
	}
	return r, nil
}

// pastTime returns whether a message, and all that a scan reads after it, is outside of the times.
func pastTime(back bool, since, until *timestamppb.Timestamp) func(journal.Message) bool {
	switch {
	case back && since != nil:
		at := since.AsTime()
		return func(m journal.Message) bool { return m.Time.Before(at) }
	case !back && until != nil:
		at := until.AsTime()
		return func(m journal.Message) bool { return !m.Time.Before(at) }
	}
	return func(journal.Message) bool { return false }
}
