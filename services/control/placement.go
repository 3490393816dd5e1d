package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

const kindProjection = "projection"

type placementService struct {
	controlv1connect.UnimplementedPlacementServiceHandler

	*Service
}

// ListPlacements implements PlacementService.
func (s placementService) ListPlacements(ctx context.Context, _ *controlv1.ListPlacementsRequest) (*controlv1.ListPlacementsResponse, error) {
	all, err := s.placements.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListPlacementsResponse{}
	for key, kept := range all {
		if kind, tenant, ok := backbone.ParsePlacementKey(key); ok {
			res.Placements = append(res.Placements, placementMessage(kind, tenant.String(), kept.Value))
		}
	}
	slices.SortFunc(res.Placements, func(a, b *controlv1.Placement) int {
		return strings.Compare(a.GetKind()+" "+a.GetTenantId(), b.GetKind()+" "+b.GetTenantId())
	})
	return res, nil
}

func placementMessage(kind, tenant string, p backbone.Placement) *controlv1.Placement {
	return &controlv1.Placement{TenantId: tenant, Kind: kind, Node: p.Node, Also: p.Also, Rebalance: p.Rebalance}
}

// named returns the tenant and node that a request names.
func (s placementService) named(tenantID, kind, nodeID string) (contextkit.TenantID, backbone.Node, error) {
	tenant, err := contextkit.ParseTenantID(tenantID)
	if err != nil {
		return tenant, backbone.Node{}, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	node, ok := s.node(nodeID)
	if !ok || node.Kind != kind {
		return tenant, backbone.Node{}, connect.Errorf(connect.CodeNotFound, "no %s node is called %q", kind, nodeID)
	}
	return tenant, node, nil
}

// AssignPlacement implements PlacementService.
func (s placementService) AssignPlacement(ctx context.Context, req *controlv1.AssignPlacementRequest) (*controlv1.AssignPlacementResponse, error) {
	tenant, node, err := s.named(req.GetTenantId(), req.GetKind(), req.GetNode())
	if err != nil {
		return nil, err
	}
	key := backbone.PlacementKey(req.GetKind(), tenant)
	kept, err := s.placements.Get(ctx, key)
	switch {
	case err != nil && !errors.Is(err, backbone.ErrNotKept):
		return nil, asConnectError(err)
	case err == nil && kept.Value.Rebalance == "" && kept.Value.Node == node.ID:
		return &controlv1.AssignPlacementResponse{Placement: placementMessage(req.GetKind(), tenant.String(), kept.Value)}, nil
	case err == nil:
		return nil, precondition("PLACED", "tenant %s is placed on %q: start a rebalance to move it", tenant, kept.Value.Node)
	case !node.Ready || !slices.Contains(node.Tenants, tenant.String()):
		return nil, precondition("NOT_SERVED", "node %s does not serve tenant %s now: start a rebalance, which waits until it does", node.ID, tenant)
	}
	placed := backbone.Placement{Node: node.ID}
	if _, err := s.placements.Put(ctx, key, placed, 0); err != nil {
		return nil, asConnectError(err)
	}
	return &controlv1.AssignPlacementResponse{Placement: placementMessage(req.GetKind(), tenant.String(), placed)}, nil
}

// RemovePlacement implements PlacementService.
func (s placementService) RemovePlacement(ctx context.Context, req *controlv1.RemovePlacementRequest) (*controlv1.RemovePlacementResponse, error) {
	tenant, err := contextkit.ParseTenantID(req.GetTenantId())
	if err != nil {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	key := backbone.PlacementKey(req.GetKind(), tenant)
	kept, err := s.placements.Get(ctx, key)
	switch {
	case errors.Is(err, backbone.ErrNotKept):
		return &controlv1.RemovePlacementResponse{}, nil
	case err != nil:
		return nil, asConnectError(err)
	case kept.Value.Rebalance != "":
		return nil, precondition("MOVING", "tenant %s is being moved by %s: abort that first", tenant, kept.Value.Rebalance)
	}
	return &controlv1.RemovePlacementResponse{}, asConnectError(s.placements.Delete(ctx, key, kept.Revision))
}

// PlanRebalance implements PlacementService.
func (s placementService) PlanRebalance(ctx context.Context, req *controlv1.PlanRebalanceRequest) (*controlv1.PlanRebalanceResponse, error) {
	tenant, node, err := s.named(req.GetTenantId(), req.GetKind(), req.GetTarget())
	if err != nil {
		return nil, err
	}
	kept, err := s.placements.Get(ctx, backbone.PlacementKey(req.GetKind(), tenant))
	if err != nil && !errors.Is(err, backbone.ErrNotKept) {
		return nil, asConnectError(err)
	}
	res := &controlv1.PlanRebalanceResponse{Source: kept.Value.Node, Target: node.ID, Obstacles: s.obstacles(kept.Value, tenant, node)}
	if req.GetKind() == kindProjection {
		if res.Events, err = s.missing(ctx, tenant, node); err != nil {
			return nil, asConnectError(err)
		}
	}
	from := "every other " + req.GetKind() + " node"
	if res.Source != "" {
		from = "node " + res.Source
	}
	res.Steps = []string{
		fmt.Sprintf("Warm: node %s takes %s up; calls go where they go now.", node.ID, tenant),
		fmt.Sprintf("Catch up: node %s reads the journal as far as it reaches when it begins.", node.ID),
		"Fence: the journal's end is noted, and must be reached, so that no reader goes back behind it.",
		fmt.Sprintf("Flip: gateways send %s's calls to node %s; each says when it does.", tenant, node.ID),
		fmt.Sprintf("Verify: node %s is asked for the tenant once more.", node.ID),
		fmt.Sprintf("Retire: %s gives the tenant up.", from),
	}
	return res, nil
}

// obstacles are what stands against moving the tenant to the node.
func (s placementService) obstacles(now backbone.Placement, tenant contextkit.TenantID, node backbone.Node) []string {
	var out []string
	if now.Rebalance != "" {
		out = append(out, fmt.Sprintf("the move %s of the tenant is under way", now.Rebalance))
	}
	if now.Node == node.ID {
		out = append(out, fmt.Sprintf("tenant %s is on node %s already", tenant, node.ID))
	}
	if !node.Ready {
		out = append(out, fmt.Sprintf("node %s takes no calls: %s", node.ID, node.Reason))
	}
	if len(s.served()[tenant.String()]) == 0 {
		out = append(out, fmt.Sprintf("no node serves tenant %s: create it first", tenant))
	}
	return out
}

// missing is how many of the journal's sequences the node has not applied of the
// tenant, nil if that is not known.
func (s placementService) missing(ctx context.Context, tenant contextkit.TenantID, node backbone.Node) (*int64, error) {
	last, err := s.journal.Last(ctx, tenant)
	if err != nil {
		return nil, err
	}
	count := int64(last) //nolint:gosec // far below 2^63
	if !slices.Contains(node.Tenants, tenant.String()) {
		return &count, nil // at most: the journal is shared with other tenants
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := s.views.ListViews(s.nodes.At(contextkit.TenantContext(ctx, tenant), node.Endpoint), &projectionv1.ListViewsRequest{TenantId: tenant.String()})
	if err != nil {
		return nil, nil // unknown, and the answer says so
	}
	for _, generation := range res.GetGenerations() {
		if generation.GetShown() {
			applied, _, err := s.progress(tenant, generation)
			if err != nil {
				return nil, nil // unknown, and the answer says so
			}
			count = max(count-int64(applied), 0) //nolint:gosec // far below 2^63
			return &count, nil
		}
	}
	return nil, nil
}

// StartRebalance implements PlacementService.
func (s placementService) StartRebalance(ctx context.Context, req *controlv1.StartRebalanceRequest) (*controlv1.StartRebalanceResponse, error) {
	tenant, node, err := s.named(req.GetTenantId(), req.GetKind(), req.GetTarget())
	if err != nil {
		return nil, err
	}
	key := backbone.PlacementKey(req.GetKind(), tenant)
	kept, err := s.placements.Get(ctx, key)
	if err != nil && !errors.Is(err, backbone.ErrNotKept) {
		return nil, asConnectError(err)
	}
	if against := s.obstacles(kept.Value, tenant, node); len(against) > 0 {
		return nil, precondition("OBSTACLES", "the tenant cannot be moved: %s", strings.Join(against, "; "))
	}
	now := time.Now().UTC()
	m := move{
		ID: contextkit.NewID(), Tenant: tenant.String(), Kind: req.GetKind(), Source: kept.Value.Node, Target: node.ID, By: caller(ctx),
		Started: now,
	}
	m.enter(stagePlanned, s.id)
	// The first stage makes the placement the move's; of two moves one finds it taken.
	if _, err := s.moves.Put(ctx, m.ID, m, 0); err != nil {
		return nil, asConnectError(err)
	}
	return &controlv1.StartRebalanceResponse{Rebalance: m.message()}, nil
}

// AbortRebalance implements PlacementService.
func (s placementService) AbortRebalance(ctx context.Context, req *controlv1.AbortRebalanceRequest) (*controlv1.AbortRebalanceResponse, error) {
	for range maxTries {
		kept, err := s.get(ctx, req.GetId())
		if err != nil {
			return nil, err
		}
		m := kept.Value
		switch {
		case m.ended(), m.Stage == stageAborting:
			return &controlv1.AbortRebalanceResponse{Rebalance: m.message()}, nil
		case m.Stage == stageRetiring:
			return nil, precondition("RETIRING", "the tenant is served by %s and given up elsewhere already: start a rebalance back", m.Target)
		}
		m.Reason = "aborted"
		if by := caller(ctx); by != "" {
			m.Reason += " by " + by
		}
		m.enter(stageAborting, s.id)
		_, err = s.moves.Put(ctx, m.ID, m, kept.Revision)
		if errors.Is(err, backbone.ErrChanged) {
			continue
		}
		return &controlv1.AbortRebalanceResponse{Rebalance: m.message()}, asConnectError(err)
	}
	return nil, asConnectError(backbone.ErrChanged)
}

// get returns a move.
func (s *Service) get(ctx context.Context, id string) (backbone.Kept[move], error) {
	kept, err := s.moves.Get(ctx, id)
	if errors.Is(err, backbone.ErrNotKept) {
		return kept, connect.Errorf(connect.CodeNotFound, "there is no move %q", id)
	}
	return kept, asConnectError(err)
}

// ListRebalances implements PlacementService.
func (s placementService) ListRebalances(ctx context.Context, _ *controlv1.ListRebalancesRequest) (*controlv1.ListRebalancesResponse, error) {
	all, err := s.moves.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListRebalancesResponse{}
	for _, kept := range all {
		res.Rebalances = append(res.Rebalances, kept.Value.message())
	}
	slices.SortFunc(res.Rebalances, func(a, b *controlv1.Rebalance) int { return b.GetStarted().AsTime().Compare(a.GetStarted().AsTime()) })
	return res, nil
}

// WatchRebalance implements PlacementService.
func (s placementService) WatchRebalance(ctx context.Context, req *controlv1.WatchRebalanceRequest, stream controlv1connect.PlacementServiceWatchRebalanceServerStream) error {
	if _, err := s.get(ctx, req.GetId()); err != nil {
		return err // it would be waited for
	}
	errEnded := errors.New("the move has ended")
	err := s.moves.FollowKey(ctx, req.GetId(), func(kept backbone.Kept[move]) error {
		if err := stream.Send(&controlv1.WatchRebalanceResponse{Rebalance: kept.Value.message()}); err != nil {
			return err
		}
		if kept.Value.ended() {
			return errEnded
		}
		return nil
	})
	if errors.Is(err, errEnded) {
		return nil
	}
	return asConnectError(err)
}
