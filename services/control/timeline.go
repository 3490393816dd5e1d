package control

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/timeline"
)

type timelineService struct {
	controlv1connect.UnimplementedTimelineServiceHandler

	*Service
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
