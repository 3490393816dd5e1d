package events

import (
	"cmp"
	"context"
	"math"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
)

// ListAggregates implements EventService.
func (s *Service) ListAggregates(
	ctx context.Context,
	req *aggregatev1.ListAggregatesRequest,
) (*aggregatev1.ListAggregatesResponse, error) {
	tenant, leave, err := s.open(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	defer leave()
	start, err := s.resume(tenant, req)
	if err != nil {
		return nil, err
	}
	res := &aggregatev1.ListAggregatesResponse{}
	prefix, back := req.GetIdPrefix(), req.GetNewestFirst()
	if start == 0 && prefix != "" {
		if res.Aggregates, err = s.aggregate(ctx, tenant, req.GetAggregateType(), prefix); err != nil {
			return nil, asConnectError(err)
		}
	}
	r := journal.Range{Subject: journal.EventsOf(tenant, req.GetAggregateType(), "")}
	if back {
		r.Before = start
	} else {
		r.From = start
	}
	room := cmp.Or(req.GetPageSize(), defaultPage) - int32(len(res.GetAggregates()))
	if room == 0 { // the others begin on the next page
		first := uint64(1)
		if back {
			first = math.MaxUint64
		}
		res.NextPageToken, err = s.pageToken(tenant, req, first)
		return res, err
	}
	found, err := collect(ctx, s, tenant, r, back, room, selection[*aggregatev1.AggregateRef]{
		item: func(m journal.Message) (*aggregatev1.AggregateRef, bool) {
			_, _, id := m.Names()
			if id == prefix || !strings.HasPrefix(id, prefix) || !journal.IsFirst(m.Header) {
				return nil, false
			}
			return firstEvent(m)
		},
	})
	if err != nil {
		return nil, err
	}
	res.Aggregates = append(res.Aggregates, found.items...)
	res.NextPageToken, err = s.pageToken(tenant, req, found.next)
	return res, err
}

// aggregate returns the aggregate with an id, if it has events.
func (s *Service) aggregate(
	ctx context.Context,
	tenant contextkit.TenantID,
	aggregateType, id string,
) (found []*aggregatev1.AggregateRef, err error) {
	r := journal.Range{Subject: journal.EventsOf(tenant, aggregateType, id)}
	_, err = s.Journal.Scan(ctx, r, 1, func(m journal.Message) bool {
		if ref, ok := firstEvent(m); ok {
			found = append(found, ref)
		}
		return true
	})
	return found, err
}

// firstEvent returns the aggregate of its first event; false if the message is no event.
func firstEvent(m journal.Message) (*aggregatev1.AggregateRef, bool) {
	event, err := journal.ReadEvent(m)
	if err != nil {
		return nil, false
	}
	return &aggregatev1.AggregateRef{
		AggregateType:  event.AggregateType,
		AggregateId:    event.AggregateID,
		Created:        timestamppb.New(event.Time),
		FirstEventType: valid(event.Type),
	}, true
}
