package control_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// start starts a move of acme's views.
func (c *controller) start(t *testing.T, target string) string {
	t.Helper()
	res, err := c.placements.StartMove(platform(t),
		&controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: target})
	if err != nil {
		t.Fatalf("move to %s: %v", target, err)
	}
	return res.GetMove().GetId()
}

// TestMoves_OfOneTenantQueue starts moves while others are unfinished, with two control nodes: each is executed in
// its turn, and the placement changes once per move.
func TestMoves_OfOneTenantQueue(t *testing.T) {
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	w.fill(t, acme, 20)
	w.gateway(t, "g1")
	for _, id := range []string{"p1", "p2", "p3"} {
		w.projection(t, id, acme)
	}
	placements := w.placements(t)
	nodes := make(chan string, 64)
	w.run(t, func(ctx context.Context) error {
		placements.FollowChanges(ctx, func(changes kv.Changes[fleet.Placement]) {
			for _, kept := range changes.Put {
				nodes <- kept.Value.Node
			}
		}, quiet)
		return nil
	})
	c := w.control(t, "c1", "")
	other := w.control(t, "c2", "")
	c.knows(t, 4)
	other.knows(t, 4)
	if _, err := c.placements.AssignPlacement(
		platform(t), &controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "p1"},
	); err != nil {
		t.Fatal(err)
	}
	plan := &controlv1.PlanMoveRequest{TenantId: "acme", Kind: "projection", Target: "nowhere"}
	if res, err := c.placements.PlanMove(platform(t), plan); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("a move to an unknown node: %v, %v", res, err)
	}
	var ids []string
	for n, target := range []string{"p2", "p3", "p1", "p2"} {
		by := []*controller{c, other}[n%2]
		ids = append(ids, by.start(t, target))
		plan.Target = target
		res, err := by.placements.PlanMove(platform(t), plan)
		if err != nil || len(res.GetObstacles()) != 1 || !strings.Contains(res.GetObstacles()[0], "already") ||
			res.GetSource() != target {
			t.Errorf("move to the target of the last move: %v, %v", res, err)
		}
		if _, err := by.placements.StartMove(
			platform(t), &controlv1.StartMoveRequest{TenantId: "acme", Kind: "projection", Target: target},
		); connect.CodeOf(err) != connect.CodeFailedPrecondition {
			t.Errorf("move to the target of the last move started: %v", err)
		}
	}
	if _, err := c.placements.AbortMove(platform(t), &controlv1.AbortMoveRequest{Id: ids[3]}); err != nil {
		t.Fatal(err)
	}
	var last time.Time
	for n, id := range ids {
		m := c.end(t, id)
		if want := []controlv1.MoveStep{
			controlv1.MoveStep_MOVE_STEP_DONE, controlv1.MoveStep_MOVE_STEP_ABORTED,
		}[n/3]; m.GetStep() != want {
			t.Fatalf("move %d ended as %v", n+1, m)
		}
		if n == 3 {
			break
		}
		if source := []string{"p1", "p2", "p3"}[n]; m.GetSource() != source {
			t.Errorf("source of move %d is %q, want %q", n+1, m.GetSource(), source)
		}
		if warmed := m.GetHistory()[1].GetTime().AsTime(); warmed.Before(last) {
			t.Errorf("move %d started before its predecessor ended", n+1)
		}
		last = m.GetHistory()[7].GetTime().AsTime()
	}
	if p, _ := w.placement(t, acme); p.Node != "p1" || p.Move != "" || len(p.Also) > 0 {
		t.Errorf("placement of the tenant: %+v", p)
	}
	var order []string
	eventually(t, "the last placement is observed", func() bool {
		for len(nodes) > 0 {
			order = append(order, <-nodes)
		}
		order = slices.Compact(order)
		return len(order) > 1 && order[len(order)-1] == "p1"
	})
	if !slices.Equal(order, []string{"p1", "p2", "p3", "p1"}) {
		t.Errorf("calls of the tenant went to %v", order)
	}
}

func (w *world) placements(t *testing.T) *kv.Bucket[fleet.Placement] {
	t.Helper()
	placements, err := kv.Open[fleet.Placement](t.Context(), w.js, streams.BucketPlacement)
	if err != nil {
		t.Fatal(err)
	}
	return placements
}

// TestMoves_LockOfEndedMoveIsIgnored leaves placements locked by a move that has ended, which a control node of an
// earlier version could do, or by one that is no longer stored.
func TestMoves_LockOfEndedMoveIsIgnored(t *testing.T) {
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	w.gateway(t, "g1")
	w.projection(t, "p1", acme)
	w.projection(t, "p2", acme)
	c := w.control(t, "c1", "")
	c.knows(t, 3)
	ended := c.start(t, "p1")
	c.end(t, ended)
	placements, key := w.placements(t), fleet.PlacementKey(contextkit.KindProjection, acme)
	for _, by := range []string{ended, contextkit.NewID()} {
		for what, free := range map[string]func() error{
			"removed": func() error {
				_, err := c.placements.RemovePlacement(platform(t),
					&controlv1.RemovePlacementRequest{TenantId: "acme", Kind: "projection"})
				return err
			},
			"assigned": func() error {
				_, err := c.placements.AssignPlacement(platform(t),
					&controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "p1"})
				return err
			},
			"moved": func() error {
				// The nodes announce what they serve after they have seen the placement.
				eventually(t, "the tenant can be moved", func() bool {
					plan, err := c.placements.PlanMove(platform(t),
						&controlv1.PlanMoveRequest{TenantId: "acme", Kind: "projection", Target: "p2"})
					return err == nil && len(plan.GetObstacles()) == 0
				})
				if m := c.end(t, c.start(t, "p2")); m.GetStep() != controlv1.MoveStep_MOVE_STEP_DONE {
					t.Errorf("the move ended as %v", m)
				}
				return nil
			},
			"aborted": func() error {
				_, err := c.placements.AbortMove(platform(t), &controlv1.AbortMoveRequest{Id: ended})
				return err
			},
		} {
			if what == "aborted" && by != ended {
				continue // the move is not found
			}
			kept, err := placements.Get(t.Context(), key)
			if err != nil && !errors.Is(err, kv.ErrNotFound) {
				t.Fatal(err)
			}
			if _, err := placements.Put(
				platform(t), key, fleet.Placement{Node: "p1", Also: []string{"p2"}, Move: by}, kept.Revision,
			); err != nil {
				t.Fatal(err)
			}
			if err := free(); err != nil {
				t.Errorf("%s, locked by %s: %v", what, by, err)
			}
			if p, _ := w.placement(t, acme); p.Move != "" || len(p.Also) > 0 {
				t.Errorf("%s, locked by %s: placement %+v", what, by, p)
			}
		}
	}
}

// TestMoves_LockOfUnfinishedMoveHolds delays a move by a late gateway.
func TestMoves_LockOfUnfinishedMoveHolds(t *testing.T) {
	w, acme := newWorld(t), natstest.Tenant(t, "acme")
	awake := make(chan struct{})
	w.lateGateway(t, "g1", awake)
	w.projection(t, "p1", acme)
	w.projection(t, "p2", acme)
	c := w.control(t, "c1", "")
	c.knows(t, 3)
	first, second := c.start(t, "p1"), c.start(t, "p2")
	eventually(t, "the second move waits for the first", func() bool {
		list, err := c.placements.ListMoves(platform(t), &controlv1.ListMovesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.GetMoves()) < 2 {
			return false // this node has not read its own record yet
		}
		waiting, held := list.GetMoves()[0], list.GetMoves()[1]
		return waiting.GetStep() == controlv1.MoveStep_MOVE_STEP_PLANNED &&
			strings.Contains(waiting.GetWaitingFor(), first) &&
			held.GetStep() == controlv1.MoveStep_MOVE_STEP_FLIPPED
	})
	if _, err := c.placements.RemovePlacement(
		platform(t), &controlv1.RemovePlacementRequest{TenantId: "acme", Kind: "projection"},
	); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("removal of the placement: %v", err)
	}
	if _, err := c.placements.AssignPlacement(
		platform(t), &controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "p1"},
	); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("assignment of the tenant: %v", err)
	}
	close(awake)
	for _, id := range []string{first, second} {
		if m := c.end(t, id); m.GetStep() != controlv1.MoveStep_MOVE_STEP_DONE {
			t.Errorf("the move ended as %v", m)
		}
	}
	if p, _ := w.placement(t, acme); p.Node != "p2" || p.Move != "" {
		t.Errorf("placement of the tenant: %+v", p)
	}
}
