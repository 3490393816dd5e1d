package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/model"
)

type viewService struct {
	controlv1connect.UnimplementedViewServiceHandler

	*Service
}

// SkipEvent implements ViewService.
func (s viewService) SkipEvent(
	ctx context.Context, req *controlv1.SkipEventRequest,
) (*controlv1.SkipEventResponse, error) {
	tenant, record, err := s.skipOf(ctx, req)
	if err != nil {
		return nil, err
	}
	for range maxTries {
		before, err := s.skips.Get(ctx, record.Key())
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return nil, asConnectError(err)
		}
		if err == nil && !before.Value.Revoked {
			return &controlv1.SkipEventResponse{Skip: s.skipMessage(before.Value)}, nil
		}
		if err != nil {
			records, err := skips.OfTenant(ctx, s.js, tenant)
			if err != nil {
				return nil, asConnectError(err)
			}
			if len(records) >= skips.Max {
				return nil, precondition(rpc.ReasonTooManySkips,
					"the tenant has %d records of skipped events: correct the view in the model instead", len(records))
			}
		}
		stored, err := s.decide(ctx, record, before.Revision, req.GetReason())
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err != nil {
			return nil, asConnectError(err)
		}
		return &controlv1.SkipEventResponse{Skip: s.skipMessage(stored)}, nil
	}
	return nil, asConnectError(kv.ErrChanged)
}

// skipOf returns the tenant, and the record that skips the request's event, which must be in the journal.
func (s viewService) skipOf(
	ctx context.Context, req *controlv1.SkipEventRequest,
) (tenant contextkit.TenantID, record skips.Skip, err error) {
	tenant, view, err := s.named(req.GetTenantId(), req.GetView())
	if err != nil {
		return tenant, record, err
	}
	sequence := uint64(req.GetSequence())
	if sequence == 0 {
		if sequence = s.failingAt(req.GetTenantId(), req.GetView(), req.GetEventId()); sequence == 0 {
			return tenant, record, connect.Errorf(
				connect.CodeNotFound,
				"no node announces that the view fails on the event %s: specify the event's sequence",
				excerpt.Text(req.GetEventId(), excerpt.Name),
			)
		}
	}
	event, found, err := s.journal.Event(ctx, tenant, sequence)
	if err != nil && !errors.Is(err, journal.ErrMalformedEvent) {
		return tenant, record, asConnectError(err)
	}
	if !found || event.ID != req.GetEventId() {
		return tenant, record, connect.Errorf(connect.CodeNotFound, "the tenant has no event %s at sequence %d",
			excerpt.Text(req.GetEventId(), excerpt.Name), sequence)
	}
	return tenant, skips.Skip{
		Tenant:        tenant.String(),
		View:          view.Name,
		Fingerprint:   view.Fingerprint(),
		EventID:       event.ID,
		Sequence:      sequence,
		EventType:     event.Type,
		AggregateType: event.AggregateType,
		AggregateID:   event.AggregateID,
	}, nil
}

// RevokeSkip implements ViewService.
func (s viewService) RevokeSkip(
	ctx context.Context, req *controlv1.RevokeSkipRequest,
) (*controlv1.RevokeSkipResponse, error) {
	tenant, view, err := s.named(req.GetTenantId(), req.GetView())
	if err != nil {
		return nil, err
	}
	record := skips.Skip{Tenant: tenant.String(), Fingerprint: view.Fingerprint(), EventID: req.GetEventId()}
	before, err := s.skips.Get(ctx, record.Key())
	if errors.Is(err, kv.ErrNotFound) || err == nil && before.Value.Revoked {
		return nil, connect.Errorf(connect.CodeNotFound, "the view does not skip the event %s",
			excerpt.Text(req.GetEventId(), excerpt.Name))
	}
	if err != nil {
		return nil, asConnectError(err)
	}
	record = before.Value
	record.Revoked = true
	stored, err := s.decide(ctx, record, before.Revision, req.GetReason())
	if err != nil {
		return nil, asConnectError(err)
	}
	return &controlv1.RevokeSkipResponse{Skip: s.skipMessage(stored)}, nil
}

// ListSkips implements ViewService.
func (s viewService) ListSkips(
	ctx context.Context, req *controlv1.ListSkipsRequest,
) (*controlv1.ListSkipsResponse, error) {
	tenant, err := contextkit.ParseTenantID(req.GetTenantId())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	records, err := skips.OfTenant(ctx, s.js, tenant)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListSkipsResponse{}
	for _, record := range records {
		res.Skips = append(res.Skips, s.skipMessage(record.Value))
	}
	return res, nil
}

// named returns a tenant, and a view of the model in use.
func (s viewService) named(tenantID, name string) (contextkit.TenantID, *model.View, error) {
	tenant, err := contextkit.ParseTenantID(tenantID)
	if err != nil {
		return tenant, nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	view, ok := s.models.Current().View(name)
	if !ok {
		return tenant, nil, connect.Errorf(connect.CodeNotFound, "the model has no view %q", name)
	}
	return tenant, view, nil
}

// decide stores a record under the caller's name.
func (s viewService) decide(
	ctx context.Context, record skips.Skip, revision uint64, reason string,
) (skips.Skip, error) {
	record.By, record.Reason, record.Time = caller(ctx), reason, time.Now().UTC()
	if _, err := s.skips.Put(ctx, record.Key(), record, revision); err != nil {
		return record, err
	}
	s.log.Warn().Str(
		"tenant", record.Tenant,
	).Str("view", record.View).Str("event_id", record.EventID).Bool("revoked", record.Revoked).Str("by", record.By).Msg(
		"an operator has decided whether a view skips an event",
	)
	return record, nil
}

// failingAt returns the sequence of the event that a view cannot apply, from the nodes' announcements; 0 if no node
// announces that the view fails at the event.
func (s viewService) failingAt(tenant, view, eventID string) uint64 {
	for _, node := range s.announced() {
		for _, failing := range node.FailingViews {
			if failing.Tenant == tenant && failing.View == view && failing.EventID == eventID {
				return failing.Sequence
			}
		}
	}
	return 0
}

func (s viewService) skipMessage(record skips.Skip) *controlv1.Skip {
	view, ok := s.models.Current().View(record.View)
	return &controlv1.Skip{
		TenantId:  record.Tenant,
		View:      record.View,
		Current:   ok && view.Fingerprint() == record.Fingerprint,
		EventId:   record.EventID,
		Sequence:  int64(record.Sequence),
		EventType: record.AggregateType + "." + record.EventType,
		Aggregate: record.AggregateType + "/" + record.AggregateID,
		Revoked:   record.Revoked,
		By:        record.By,
		Reason:    record.Reason,
		Time:      timestamppb.New(record.Time),
	}
}

func failingMessages(views []fleet.FailingView) []*controlv1.FailingView {
	out := make([]*controlv1.FailingView, len(views))
	for i, v := range views {
		out[i] = &controlv1.FailingView{
			TenantId:   v.Tenant,
			View:       v.View,
			EventId:    v.EventID,
			Sequence:   int64(v.Sequence),
			EventType:  v.EventType,
			Aggregate:  v.Aggregate,
			Rule:       v.Rule,
			Expression: v.Expression,
			Reason:     v.Reason,
		}
		if !v.Since.IsZero() {
			out[i].Since = timestamppb.New(v.Since)
		}
	}
	return out
}
