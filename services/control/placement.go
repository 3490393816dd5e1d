package control

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
)

type placementService struct {
	controlv1connect.UnimplementedPlacementServiceHandler

	*Service
}

// ListPlacements implements PlacementService.
func (s placementService) ListPlacements(
	ctx context.Context, _ *controlv1.ListPlacementsRequest,
) (*controlv1.ListPlacementsResponse, error) {
	all, err := s.placements.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListPlacementsResponse{}
	for key, kept := range all {
		if kind, tenant, ok := fleet.ParsePlacementKey(key); ok {
			if m, known := s.knownMoves()[kept.Value.Move]; known && m.Value.ended() {
				kept.Value.Move = "" // the lock has no effect
			}
			res.Placements = append(res.Placements, placementMessage(kind, tenant.String(), kept.Value))
		}
	}
	slices.SortFunc(res.Placements, func(a, b *controlv1.Placement) int {
		return strings.Compare(a.GetKind()+" "+a.GetTenantId(), b.GetKind()+" "+b.GetTenantId())
	})
	return res, nil
}

func placementMessage(kind contextkit.Kind, tenant string, p fleet.Placement) *controlv1.Placement {
	return &controlv1.Placement{
		TenantId: tenant,
		Kind:     kind.String(),
		Node:     p.Node,
		Also:     p.Also,
		Move:     p.Move,
	}
}

// named returns the tenant and node that a request names.
func (s placementService) named(
	tenantID string, kind contextkit.Kind, nodeID string,
) (contextkit.TenantID, fleet.Node, error) {
	tenant, err := contextkit.ParseTenantID(tenantID)
	if err != nil {
		return tenant, fleet.Node{}, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	node, ok := s.node(nodeID)
	if !ok || node.Kind != kind {
		return tenant, fleet.Node{}, connect.Errorf(connect.CodeNotFound, "no %s node has the id %q", kind, nodeID)
	}
	return tenant, node, nil
}

// AssignPlacement implements PlacementService.
func (s placementService) AssignPlacement(
	ctx context.Context, req *controlv1.AssignPlacementRequest,
) (*controlv1.AssignPlacementResponse, error) {
	kind := contextkit.Kind(req.GetKind())
	tenant, node, err := s.named(req.GetTenantId(), kind, req.GetNode())
	if err != nil {
		return nil, err
	}
	key := fleet.PlacementKey(kind, tenant)
	p, err := s.unlocked(ctx, tenant, key)
	want := fleet.Placement{Node: node.ID}
	res := &controlv1.AssignPlacementResponse{Placement: placementMessage(kind, tenant.String(), want)}
	switch {
	case err != nil:
		return nil, err
	case same(p.Placement, want):
		return res, nil
	case p.Node != "" && p.Node != node.ID:
		return nil, precondition(rpc.ReasonPlaced, "tenant %s is placed on %q: start a move to move it", tenant, p.Node)
	case p.Node == "" && (!node.Ready || !slices.Contains(node.Tenants, tenant.String())):
		return nil, precondition(rpc.ReasonNotServed,
			"node %s does not serve tenant %s now: start a move, which waits until it does", node.ID, tenant)
	}
	if _, err := s.placements.PutAt(ctx, key, want, p.Revision); err != nil {
		return nil, asConnectError(err)
	}
	stateChanges(ctx, auditlog.Change{Name: "node", Before: p.Node, After: want.Node})
	return res, nil
}

// RemovePlacement implements PlacementService.
func (s placementService) RemovePlacement(
	ctx context.Context, req *controlv1.RemovePlacementRequest,
) (*controlv1.RemovePlacementResponse, error) {
	tenant, err := contextkit.ParseTenantID(req.GetTenantId())
	if err != nil {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	key := fleet.PlacementKey(contextkit.Kind(req.GetKind()), tenant)
	p, err := s.unlocked(ctx, tenant, key)
	if err != nil || !p.Exists {
		return &controlv1.RemovePlacementResponse{}, err
	}
	if err := s.placements.Delete(ctx, key, p.Revision); err != nil {
		return nil, asConnectError(err)
	}
	stateChanges(ctx, auditlog.Change{Name: "node", Before: p.Node})
	return &controlv1.RemovePlacementResponse{}, nil
}

// unlocked returns a placement that operators may change at its KV revision. FAILED_PRECONDITION: a move has locked
// it.
func (s placementService) unlocked(ctx context.Context, tenant contextkit.TenantID, key string) (placed, error) {
	p, err := s.placed(ctx, key)
	if err != nil {
		return p, asConnectError(err)
	}
	locked, err := s.locked(ctx, p)
	if err == nil && locked {
		err = precondition(
			rpc.ReasonMoving, "tenant %s is being moved by %s: wait until the move has ended, or abort it",
			tenant, p.Move,
		)
	}
	return p, asConnectError(err)
}
