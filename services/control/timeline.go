package control

import (
	"cmp"
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/timeline"
)

type timelineService struct {
	controlv1connect.UnimplementedTimelineServiceHandler

	*Service
}

// timelineReads are the reads of timelines, each of which reads thousands of spans.
var timelineReads = reads.Config{
	Metric: "headgate_timeline_reads",
	What:   "reads of timelines",
	Reason: rpc.ReasonTooManyReads,
}

// defaultTimelines is the default number of timelines in a list.
const defaultTimelines = 20

// ListTimelines implements TimelineService.
func (s timelineService) ListTimelines(
	ctx context.Context, req *controlv1.ListTimelinesRequest,
) (*controlv1.ListTimelinesResponse, error) {
	rc, _ := contextkit.FromContext(ctx)
	if _, err := s.tenantOf(ctx, req.GetTenantId()); err != nil {
		return nil, err
	}
	leave, err := s.reads.Enter(ctx, rc.TenantID)
	if err != nil {
		return nil, err
	}
	defer leave()
	all, complete, err := timeline.Recent(ctx, s.js, rc.TenantID)
	if err != nil {
		return nil, asConnectError(err)
	}
	limit := int(cmp.Or(req.GetLimit(), defaultTimelines))
	res := &controlv1.ListTimelinesResponse{Complete: complete}
	for _, one := range all {
		if req.GetFailedOnly() && one.Failed == nil {
			continue
		}
		if len(res.Timelines) == limit {
			res.Complete = false
			break
		}
		root := one.Root()
		out := &controlv1.TimelineSummary{
			CorrelationId: one.CorrelationID,
			Started:       timestamppb.New(one.Started),
			Ended:         timestamppb.New(one.Ended),
			Name:          root.Name,
			Kind:          string(root.Kind),
			Subject:       root.Subject,
			Code:          "ok",
			Spans:         int32(one.Spans),
		}
		if one.Failed != nil {
			out.Code, out.FailedName = one.Failed.Code, one.Failed.Name
		}
		res.Timelines = append(res.Timelines, out)
	}
	return res, nil
}

// GetTimeline implements TimelineService.
func (s timelineService) GetTimeline(
	ctx context.Context, req *controlv1.GetTimelineRequest,
) (*controlv1.GetTimelineResponse, error) {
	rc, _ := contextkit.FromContext(ctx)
	if field := req.GetTenantId(); field != "" && field != rc.TenantID.String() {
		return nil, connect.Errorf(connect.CodePermissionDenied, "tenant_id names %q, the call is for %q", field,
			rc.TenantID)
	}
	leave, err := s.reads.Enter(ctx, rc.TenantID)
	if err != nil {
		return nil, err
	}
	defer leave()
	spans, complete, err := timeline.Read(ctx, s.js, rc.TenantID, req.GetId())
	if err != nil {
		return nil, asConnectError(err)
	}
	if len(spans) == 0 {
		return nil, connect.Errorf(
			connect.CodeNotFound,
			"no spans are stored for %q: spans are stored for one day, and successful reads are not recorded",
			req.GetId(),
		)
	}
	res := &controlv1.GetTimelineResponse{CorrelationId: spans[0].CorrelationID, Complete: complete}
	for _, span := range spans {
		res.Spans = append(res.Spans, &controlv1.Span{
			Kind:        string(span.Kind),
			Name:        span.Name,
			Node:        span.Node,
			Started:     timestamppb.New(span.Started),
			Ms:          span.Milliseconds,
			Code:        span.Code,
			Detail:      span.Detail,
			Subject:     span.Subject,
			EventId:     span.Event,
			RequestId:   span.RequestID,
			CausationId: span.CausationID,
			Client:      span.Client,
		})
	}
	return res, nil
}
