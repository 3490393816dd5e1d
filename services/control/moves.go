package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
)

// maxQueued bounds the unfinished moves of a tenant's placement.
const maxQueued = 8

// PlanMove implements PlacementService.
func (s placementService) PlanMove(
	ctx context.Context, req *controlv1.PlanMoveRequest,
) (*controlv1.PlanMoveResponse, error) {
	kind := contextkit.Kind(req.GetKind())
	tenant, node, err := s.named(req.GetTenantId(), kind, req.GetTarget())
	if err != nil {
		return nil, err
	}
	p, queue, err := s.standing(ctx, kind, tenant)
	if err != nil {
		return nil, err
	}
	res := &controlv1.PlanMoveResponse{
		Source:    origin(p, queue),
		Target:    node.ID,
		Obstacles: s.obstacles(p, queue, tenant, node),
	}
	if kind == contextkit.KindProjection {
		if res.Events, err = s.missing(ctx, tenant, node); err != nil {
			return nil, asConnectError(err)
		}
	}
	from := "every other " + kind.String() + " node"
	if res.Source != "" {
		from = "node " + res.Source
	}
	for _, earlier := range queue {
		res.Steps = append(res.Steps,
			fmt.Sprintf("Wait: the move %s of %s to node %s must end first.", earlier.ID, tenant, earlier.Target))
	}
	res.Steps = append(res.Steps,
		fmt.Sprintf("Warm: node %s acquires %s; routing does not change yet.", node.ID, tenant),
		fmt.Sprintf("Catch up: node %s reads the journal up to its end at the start of the move.", node.ID),
		"Fence: the target must reach the journal's current end, so that no reader sees an earlier state.",
		fmt.Sprintf("Flip: gateways route %s's calls to node %s, and each acknowledges it.", tenant, node.ID),
		fmt.Sprintf("Verify: node %s is probed for the tenant once more.", node.ID),
		fmt.Sprintf("Retire: %s releases the tenant.", from),
	)
	return res, nil
}

// standing returns the tenant's placement and its unfinished moves, in order.
func (s placementService) standing(
	ctx context.Context, kind contextkit.Kind, tenant contextkit.TenantID,
) (placed, []move, error) {
	key := fleet.PlacementKey(kind, tenant)
	p, err := s.placed(ctx, key)
	if err != nil {
		return p, nil, asConnectError(err)
	}
	all, err := s.moves.All(ctx)
	if err != nil {
		return p, nil, asConnectError(err)
	}
	var queue []move
	for _, kept := range all {
		if m := kept.Value; !m.ended() && m.placementKey() == key {
			queue = append(queue, m)
		}
	}
	slices.SortFunc(queue, func(a, b move) int {
		if a.before(&b) {
			return -1
		}
		return 1
	})
	return p, queue, nil
}

// origin returns the node on which the tenant is placed once the queued moves have ended, "" for none.
func origin(p placed, queue []move) string {
	if len(queue) == 0 {
		return p.Node
	}
	last := queue[len(queue)-1]
	if last.Step == stepAborting {
		return last.Source
	}
	return last.Target
}

// obstacles returns the reasons why the tenant cannot be moved to the node.
func (s placementService) obstacles(p placed, queue []move, tenant contextkit.TenantID, node fleet.Node) []string {
	var out []string
	if len(queue) >= maxQueued {
		out = append(
			out,
			fmt.Sprintf("tenant %s has the maximum of %d unfinished moves: abort some of them, or wait", tenant,
				len(queue)),
		)
	}
	if origin(p, queue) == node.ID {
		out = append(out, fmt.Sprintf("tenant %s is already on node %s, or moves there", tenant, node.ID))
	}
	if !node.Ready {
		out = append(out, fmt.Sprintf("node %s accepts no calls: %s", node.ID, node.Reason))
	}
	if len(s.served()[tenant.String()]) == 0 {
		out = append(out, fmt.Sprintf("no node serves tenant %s: create it first", tenant))
	}
	return out
}

// missing returns the number of the journal's sequences that the node has not applied for the tenant, nil if unknown.
func (s placementService) missing(ctx context.Context, tenant contextkit.TenantID, node fleet.Node) (*int64, error) {
	last, err := s.journal.Last(ctx, tenant)
	if err != nil {
		return nil, err
	}
	count := int64(last)
	if !slices.Contains(node.Tenants, tenant.String()) {
		return &count, nil // an upper bound: the journal is shared with other tenants
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	res, err := s.views.ListViews(s.nodes.At(contextkit.TenantContext(ctx, tenant), node.Endpoint),
		&projectionv1.ListViewsRequest{TenantId: tenant.String()})
	if err != nil {
		return nil, nil // unknown, which the response reports
	}
	for _, generation := range res.GetGenerations() {
		if generation.GetShown() {
			applied, _, err := s.progress(tenant, generation)
			if err != nil {
				return nil, nil // unknown, which the response reports
			}
			count = max(count-int64(applied), 0)
			return &count, nil
		}
	}
	return nil, nil
}

// StartMove implements PlacementService.
func (s placementService) StartMove(
	ctx context.Context, req *controlv1.StartMoveRequest,
) (*controlv1.StartMoveResponse, error) {
	kind := contextkit.Kind(req.GetKind())
	tenant, node, err := s.named(req.GetTenantId(), kind, req.GetTarget())
	if err != nil {
		return nil, err
	}
	p, queue, err := s.standing(ctx, kind, tenant)
	if err != nil {
		return nil, err
	}
	if against := s.obstacles(p, queue, tenant, node); len(against) > 0 {
		return nil, precondition(rpc.ReasonObstacles, "the tenant cannot be moved: %s", strings.Join(against, "; "))
	}
	now := time.Now().UTC()
	m := move{
		ID:      contextkit.NewID(),
		Tenant:  tenant.String(),
		Kind:    kind,
		Source:  origin(p, queue),
		Target:  node.ID,
		By:      caller(ctx),
		Started: now,
	}
	m.enter(stepPlanned, s.id)
	if _, err := s.moves.Put(ctx, m.ID, m, 0); err != nil {
		return nil, asConnectError(err)
	}
	return &controlv1.StartMoveResponse{Move: m.message()}, nil
}

// AbortMove implements PlacementService.
func (s placementService) AbortMove(
	ctx context.Context, req *controlv1.AbortMoveRequest,
) (*controlv1.AbortMoveResponse, error) {
	for range maxTries {
		kept, err := s.get(ctx, req.GetId())
		if err != nil {
			return nil, err
		}
		m := kept.Value
		switch {
		case m.ended():
			// A control node of an earlier version may have locked the placement since.
			return &controlv1.AbortMoveResponse{Move: m.message()}, asConnectError(s.unlock(ctx, &m))
		case m.Step == stepAborting:
			return &controlv1.AbortMoveResponse{Move: m.message()}, nil
		case m.Step == stepRetiring:
			return nil, precondition(rpc.ReasonRetiring,
				"the tenant is served by %s and already released elsewhere: start a move back", m.Target)
		}
		reason := "aborted"
		if by := caller(ctx); by != "" {
			reason += " by " + by
		}
		m = m.abort(reason).move
		m.enter(stepAborting, s.id)
		_, err = s.moves.Put(ctx, m.ID, m, kept.Revision)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		return &controlv1.AbortMoveResponse{Move: m.message()}, asConnectError(err)
	}
	return nil, asConnectError(kv.ErrChanged)
}

// unlock unlocks the placement of a move that has ended, if the move has locked it. Routing does not change.
func (s *Service) unlock(ctx context.Context, m *move) error {
	p, err := s.placed(ctx, m.placementKey())
	switch {
	case err != nil || !p.Exists || p.Move != m.ID:
		return err
	case p.Node == "":
		return s.placements.Delete(ctx, m.placementKey(), p.Revision)
	}
	_, err = s.placements.PutAt(ctx, m.placementKey(), fleet.Placement{Node: p.Node}, p.Revision)
	return err
}

// get returns a move.
func (s *Service) get(ctx context.Context, id string) (kv.Entry[move], error) {
	kept, err := s.moves.Get(ctx, id)
	if errors.Is(err, kv.ErrNotFound) {
		return kept, connect.Errorf(connect.CodeNotFound, "the move %q does not exist", id)
	}
	return kept, asConnectError(err)
}

// ListMoves implements PlacementService.
func (s placementService) ListMoves(
	ctx context.Context, _ *controlv1.ListMovesRequest,
) (*controlv1.ListMovesResponse, error) {
	all, err := s.moves.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListMovesResponse{}
	for _, kept := range all {
		res.Moves = append(res.Moves, kept.Value.message())
	}
	slices.SortFunc(res.Moves,
		func(a, b *controlv1.Move) int { return b.GetStarted().AsTime().Compare(a.GetStarted().AsTime()) })
	return res, nil
}

// WatchMove implements PlacementService.
func (s placementService) WatchMove(
	ctx context.Context, req *controlv1.WatchMoveRequest, stream controlv1connect.PlacementServiceWatchMoveServerStream,
) error {
	if _, err := s.get(ctx, req.GetId()); err != nil {
		return err // otherwise the watch would wait for it
	}
	errEnded := errors.New("the move has ended")
	err := s.moves.FollowKey(ctx, req.GetId(), func(kept kv.Entry[move]) error {
		if err := stream.Send(&controlv1.WatchMoveResponse{Move: kept.Value.message()}); err != nil {
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
