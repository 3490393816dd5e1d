package events

import (
	"context"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
)

// ListEvents implements EventService.
func (s *Service) ListEvents(
	ctx context.Context,
	req *aggregatev1.ListEventsRequest,
) (*aggregatev1.ListEventsResponse, error) {
	tenant, leave, err := s.open(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	defer leave()
	start, err := s.resume(tenant, req)
	if err != nil {
		return nil, err
	}
	from, to, back := req.GetFromVersion(), req.GetToVersion(), req.GetNewestFirst()
	r := journal.Range{Subject: journal.EventsOf(tenant, req.GetAggregateType(), req.GetAggregateId())}
	if back {
		r.Before = start
	} else {
		r.From = start
	}
	if start == 0 {
		if r, err = s.between(ctx, r, back, req.GetSince(), req.GetUntil()); err != nil {
			return nil, asConnectError(err)
		}
		if r, err = s.betweenVersions(ctx, r, back, from, to); err != nil {
			return nil, asConnectError(err)
		}
	}
	past := pastTime(back, req.GetSince(), req.GetUntil())
	found, err := collect(ctx, s, tenant, r, back, req.GetPageSize(), selection[*aggregatev1.JournalEvent]{
		past: func(m journal.Message) bool {
			version := journal.VersionOf(m)
			return past(m) || version > 0 && (back && version < from || !back && to > 0 && version > to)
		},
		item: func(m journal.Message) (*aggregatev1.JournalEvent, bool) {
			version := journal.VersionOf(m)
			if version > 0 && (version < from || to > 0 && version > to) || !typed(req.GetEventTypes(), m) {
				return nil, false
			}
			return s.message(tenant, m), true
		},
	})
	if err != nil {
		return nil, err
	}
	res := &aggregatev1.ListEventsResponse{Events: found.items}
	res.NextPageToken, err = s.pageToken(tenant, req, found.next)
	return res, err
}

// betweenVersions narrows the end of a range at which a scan begins to the versions from from to to, 0: to the last.
// A message without a version never excludes others.
func (s *Service) betweenVersions(
	ctx context.Context,
	r journal.Range,
	back bool,
	from, to int64,
) (_ journal.Range, err error) {
	switch {
	case back && to > 0:
		r.Before, err = s.Journal.Seek(ctx, r, func(m journal.Message) bool { return journal.VersionOf(m) > to })
	case !back && from > 1:
		r.From, err = s.Journal.Seek(ctx, r, func(m journal.Message) bool {
			version := journal.VersionOf(m)
			return version == 0 || version >= from
		})
	}
	return r, err
}
