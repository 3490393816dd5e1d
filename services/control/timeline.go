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
func (s timelineService) GetTimeline(ctx context.Context, req *controlv1.GetTimelineRequest) (*controlv1.GetTimelineResponse, error) {
	rc, _ := contextkit.FromContext(ctx)
	if field := req.GetTenantId(); field != "" && field != rc.TenantID.String() {
		return nil, connect.Errorf(connect.CodePermissionDenied, "tenant_id names %q, the call is for %q", field, rc.TenantID)
	}
	hops, complete, err := timeline.Read(ctx, s.js, rc.TenantID, req.GetId())
	if err != nil {
		return nil, asConnectError(err)
	}
	if len(hops) == 0 {
		return nil, connect.Errorf(connect.CodeNotFound, "no spans are stored for %q: spans are stored for one day, and successful reads are not recorded", req.GetId())
	}
	res := &controlv1.GetTimelineResponse{CorrelationId: hops[0].CorrelationID, Complete: complete}
	for _, h := range hops {
		res.Spans = append(res.Spans, &controlv1.Span{
			Kind: h.Kind, Name: h.Name, Node: h.Node, Started: timestamppb.New(h.Started), Ms: h.Milliseconds, Code: h.Code, Detail: h.Detail,
			Subject: h.Subject, EventId: h.Event, RequestId: h.RequestID, CausationId: h.CausationID, Client: h.Client,
		})
	}
	return res, nil
}
