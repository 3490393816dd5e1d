package control

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/traffic"
)

const (
	// defaultTopMinutes and defaultTop are the defaults of ListTopTenants.
	defaultTopMinutes, defaultTop = 15, 10
)

type metricsService struct {
	controlv1connect.UnimplementedMetricsServiceHandler

	*Service
}

// QuerySeries implements MetricsService.
func (s metricsService) QuerySeries(
	_ context.Context,
	req *controlv1.QuerySeriesRequest,
) (*controlv1.QuerySeriesResponse, error) {
	if req.GetNode() != "" && req.GetTenantId() != "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, "node and tenant_id exclude each other")
	}
	points, seconds := s.points(
		traffic.Selection{Tenant: req.GetTenantId(), Node: req.GetNode(), Long: isDay(req.GetRange())},
		time.Now(),
	)
	return &controlv1.QuerySeriesResponse{
		Seconds:  seconds,
		Points:   points,
		Node:     req.GetNode(),
		TenantId: req.GetTenantId(),
	}, nil
}

// QueryTenantSeries implements MetricsService.
func (s metricsService) QueryTenantSeries(
	ctx context.Context,
	req *controlv1.QueryTenantSeriesRequest,
) (*controlv1.QueryTenantSeriesResponse, error) {
	tenant, err := s.tenantOf(ctx, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	points, seconds := s.points(traffic.Selection{Tenant: tenant, Long: isDay(req.GetRange())}, time.Now())
	return &controlv1.QueryTenantSeriesResponse{TenantId: tenant, Seconds: seconds, Points: points}, nil
}

func isDay(r controlv1.SeriesRange) bool { return r == controlv1.SeriesRange_SERIES_RANGE_DAY }

// points returns the points of a selection, and the length of a window in seconds.
func (s *Service) points(selected traffic.Selection, now time.Time) ([]*controlv1.SeriesPoint, int32) {
	length := traffic.Short
	if selected.Long {
		length = traffic.Long
	}
	points, edge := s.history.Points(selected, time.Time{}, now), true
	if selected.Node != "" && !slices.ContainsFunc(points, func(p traffic.Point) bool { return p.Counts != nil }) {
		points, edge = s.calls.Points(selected, time.Time{}, now), false
	}
	var out []*controlv1.SeriesPoint
	for _, point := range points {
		message := seriesPoint(point, length)
		if !edge { // gateways alone know these
			message.LimitedPerSecond, message.CommandsPerSecond, message.QueriesPerSecond = nil, nil, nil
		}
		measured := s.gauges.at(point.End.Unix(), selected.Long).of(selected.Tenant, selected.Node)
		message.Lag, message.DeadLetters = measured.lag, measured.deadLetters
		message.FailedViews = measured.failedViews
		out = append(out, message)
	}
	return out, int32(length / time.Second)
}

// seriesPoint returns the values of a window of a length.
func seriesPoint(point traffic.Point, length time.Duration) *controlv1.SeriesPoint {
	out := &controlv1.SeriesPoint{End: timestamppb.New(point.End), Partial: point.Partial}
	counts := point.Counts
	if counts == nil {
		return out
	}
	rate := func(count int64) *float64 {
		value := float64(count) / length.Seconds()
		return &value
	}
	out.CallsPerSecond, out.ErrorsPerSecond = rate(counts.Calls), rate(counts.Errors)
	out.LimitedPerSecond = rate(counts.Limited)
	out.CommandsPerSecond, out.QueriesPerSecond = rate(counts.Commands), rate(counts.Queries)
	if counts.Calls > 0 {
		availability := 1 - float64(counts.Errors)/float64(counts.Calls)
		out.Availability = &availability
	}
	const half, most, nearlyAll = .5, .95, .99
	out.P50Ms, out.P95Ms, out.P99Ms = quantile(counts, half), quantile(counts, most), quantile(counts, nearlyAll)
	return out
}

// quantile returns a quantile in milliseconds; nil: there were no calls.
func quantile(counts *traffic.Counts, share float64) *float64 {
	took, ok := counts.Quantile(share)
	if !ok {
		return nil
	}
	value := float64(took.Microseconds()) / float64(time.Millisecond/time.Microsecond)
	return &value
}

// ListTopTenants implements MetricsService.
func (s metricsService) ListTopTenants(
	_ context.Context,
	req *controlv1.ListTopTenantsRequest,
) (*controlv1.ListTopTenantsResponse, error) {
	minutes, limit := cmp.Or(req.GetMinutes(), defaultTopMinutes), int(cmp.Or(req.GetLimit(), defaultTop))
	now := time.Now()
	all, last := s.history.Tenants(now.Add(-time.Duration(minutes)*time.Minute)), s.gauges.last(now)
	if req.GetOrder() == controlv1.TenantOrder_TENANT_ORDER_LAG {
		for tenant := range last.tenants { // also tenants without calls
			if _, called := all[tenant]; !called {
				all[tenant] = traffic.Counts{}
			}
		}
	}
	loads := make([]*controlv1.TenantLoad, 0, len(all))
	for tenant, counts := range all {
		if load := tenantLoad(tenant, &counts, last); topValue(req.GetOrder(), load) > 0 {
			loads = append(loads, load)
		}
	}
	slices.SortFunc(loads, func(a, b *controlv1.TenantLoad) int {
		return cmp.Or(
			cmp.Compare(topValue(req.GetOrder(), b), topValue(req.GetOrder(), a)),
			cmp.Compare(a.GetTenantId(), b.GetTenantId()),
		)
	})
	return &controlv1.ListTopTenantsResponse{Minutes: minutes, Tenants: loads[:min(limit, len(loads))]}, nil
}

// tenantLoad returns the numbers of a tenant.
func tenantLoad(tenant string, counts *traffic.Counts, last gauge) *controlv1.TenantLoad {
	return &controlv1.TenantLoad{
		TenantId: tenant,
		Calls:    counts.Calls,
		Errors:   counts.Errors,
		Limited:  counts.Limited,
		Commands: counts.Commands,
		Queries:  counts.Queries,
		P99Ms:    quantile(counts, .99),
		Lag:      last.of(tenant, "").lag,
	}
}

// topValue returns the value by which tenants are ordered.
func topValue(order controlv1.TenantOrder, load *controlv1.TenantLoad) int64 {
	switch order {
	case controlv1.TenantOrder_TENANT_ORDER_ERRORS:
		return load.GetErrors()
	case controlv1.TenantOrder_TENANT_ORDER_LIMITED:
		return load.GetLimited()
	case controlv1.TenantOrder_TENANT_ORDER_LAG:
		return load.GetLag()
	}
	return load.GetCalls()
}

// tenantOf returns the name of the call's tenant, which the request's field may name too. Errors: PERMISSION_DENIED if
// they disagree, NOT_FOUND if no node serves the tenant.
func (s *Service) tenantOf(ctx context.Context, field string) (string, error) {
	rc, _ := contextkit.FromContext(ctx)
	if field != "" && field != rc.TenantID.String() {
		return "", connect.Errorf(connect.CodePermissionDenied, "tenant_id names %q, the call is for %q", field,
			rc.TenantID)
	}
	tenant := rc.TenantID.String()
	s.mu.Lock()
	nodes := s.fleet.Nodes
	s.mu.Unlock()
	if !slices.ContainsFunc(nodes, func(n fleet.Node) bool { return slices.Contains(n.Tenants, tenant) }) {
		return "", connect.Errorf(connect.CodeNotFound, "tenant %q is not served", tenant)
	}
	return tenant, nil
}
