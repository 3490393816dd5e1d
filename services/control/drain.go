package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
)

const (
	// maxPlacedTenants bounds the placed tenants of a response.
	maxPlacedTenants = 100
	// maxDrainedNodes bounds the nodes that are drained at the same time, those included that are gone.
	maxDrainedNodes = 1000
)

// DrainNode implements FleetService.
func (s fleetService) DrainNode(
	ctx context.Context, req *controlv1.DrainNodeRequest,
) (*controlv1.DrainNodeResponse, error) {
	node, ok := s.node(req.GetNode())
	if !ok {
		return nil, connect.Errorf(connect.CodeNotFound, "no node %q is announced", req.GetNode())
	}
	all, err := s.drains.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	key := fleet.NodeKey(node.Kind, node.ID)
	stored, drained := all[key]
	if !drained {
		if len(all) >= maxDrainedNodes {
			return nil, precondition(rpc.ReasonNotDrainable,
				"%d nodes are drained: resume the nodes that are gone", len(all))
		}
		stored.Value = fleet.Drain{Since: time.Now().UTC(), By: caller(ctx), Reason: req.GetReason()}
		if stored.Revision, err = s.drain(ctx, &node, all, stored.Value, req.GetForce()); err != nil {
			return nil, asConnectError(err)
		}
		all[key] = stored
		stateChanges(ctx, auditlog.Change{Name: "drained", Before: "false", After: "true"})
	}
	out, err := s.drainOf(ctx, &node, all)
	return &controlv1.DrainNodeResponse{Drain: out}, asConnectError(err)
}

// drain stores that a node is drained, and returns the KV revision of the record. all are the drained nodes.
func (s *Service) drain(
	ctx context.Context, node *fleet.Node, all map[string]kv.Entry[fleet.Drain], record fleet.Drain, force bool,
) (uint64, error) {
	if err := s.mayDrain(ctx, node, all, force); err != nil {
		return 0, err
	}
	key := fleet.NodeKey(node.Kind, node.ID)
	revision, err := s.drains.Put(ctx, key, record, 0)
	if err != nil {
		return 0, err
	}
	// Its peers may have been drained in the meantime: then the last of them must not be.
	if all, err = s.drains.All(ctx); err == nil {
		err = s.mayDrain(ctx, node, all, force)
	}
	if err != nil {
		undone, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if failed := s.drains.Expire(undone, key, revision); failed != nil {
			return 0, failed // the node stays drained: a repeated call returns that it is
		}
		return 0, err
	}
	return revision, nil
}

// undoTimeout bounds how long a record is removed that must not stay.
const undoTimeout = 2 * time.Second

// mayDrain returns why a node is not drained: FAILED_PRECONDITION.
func (s *Service) mayDrain(
	ctx context.Context, node *fleet.Node, all map[string]kv.Entry[fleet.Drain], force bool,
) error {
	out, err := s.drainOf(ctx, node, all)
	switch {
	case err != nil:
		return err
	case !out.GetSupported() || node.Kind == contextkit.KindRunner:
		return precondition(rpc.ReasonNotDrainable, "%s", notDrainable(node))
	case out.GetRefusal() != "":
		return precondition(rpc.ReasonLastNode, "%s", out.GetRefusal())
	case out.GetObstacle() == "" || force:
		return nil
	case out.GetPlacedTenantCount() > 0:
		return precondition(rpc.ReasonServesPlaced, "%s Drain it with force to do it nevertheless.", out.GetObstacle())
	}
	return precondition(rpc.ReasonLastNode, "%s Drain it with force to do it nevertheless.", out.GetObstacle())
}

// notDrainable returns why DrainNode cannot drain a node.
func notDrainable(node *fleet.Node) string {
	if node.Kind == contextkit.KindRunner {
		return fmt.Sprintf("%s is a runner: drain it with RunnerAdmin.Drain", node.ID)
	}
	return fmt.Sprintf("%s is drained by stopping its process: its program or version follows no drains", node.ID)
}

// ResumeNode implements FleetService.
func (s fleetService) ResumeNode(
	ctx context.Context, req *controlv1.ResumeNodeRequest,
) (*controlv1.ResumeNodeResponse, error) {
	all, err := s.drains.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	for key, stored := range all {
		if _, id, _ := strings.Cut(key, "."); id != req.GetNode() {
			continue
		}
		if err := s.drains.Expire(ctx, key, stored.Revision); err != nil {
			return nil, asConnectError(err)
		}
		stateChanges(ctx, auditlog.Change{Name: "drained", Before: "true", After: "false"})
	}
	return &controlv1.ResumeNodeResponse{}, nil
}

// drainOf returns how a node is taken out of service. drains are the drained nodes.
func (s *Service) drainOf(
	ctx context.Context, node *fleet.Node, drains map[string]kv.Entry[fleet.Drain],
) (*controlv1.NodeDrain, error) {
	placements, err := s.placements.All(ctx)
	if err != nil {
		return nil, err
	}
	out := &controlv1.NodeDrain{Supported: node.Kind == contextkit.KindRunner || node.Drains >= fleet.Drains}
	for key, kept := range placements {
		if kind, tenant, ok := fleet.ParsePlacementKey(key); ok && kind == node.Kind && kept.Value.Node == node.ID {
			out.PlacedTenants = append(out.PlacedTenants, tenant.String())
		}
	}
	slices.Sort(out.PlacedTenants)
	out.PlacedTenantCount = int32(len(out.PlacedTenants))
	out.PlacedTenants = out.PlacedTenants[:min(len(out.PlacedTenants), maxPlacedTenants)]
	out.ReadyPeers = s.readyPeers(node, drains)
	if drain, drained := drains[fleet.NodeKey(node.Kind, node.ID)]; drained {
		out.Drained, out.Since = true, timestamppb.New(drain.Value.Since)
		out.By, out.Reason = drain.Value.By, drain.Value.Reason
	}
	if out.GetSupported() && node.Kind != contextkit.KindRunner {
		addObstacles(out, node.Kind)
	}
	out.Effect = drainEffect(node.Kind, out)
	return out, nil
}

// readyPeers returns the number of other nodes of the kind that take calls.
func (s *Service) readyPeers(node *fleet.Node, drains map[string]kv.Entry[fleet.Drain]) (ready int32) {
	s.mu.Lock()
	nodes, silent := s.fleet.Nodes, s.fleet.Silent
	s.mu.Unlock()
	for _, peer := range nodes {
		_, drained := drains[fleet.NodeKey(peer.Kind, peer.ID)]
		if peer.Kind == node.Kind && peer.ID != node.ID && peer.Ready && !drained && silent[peer.ID].IsZero() {
			ready++
		}
	}
	return ready
}

// addObstacles adds why DrainNode refuses to drain a node, or needs force.
func addObstacles(out *controlv1.NodeDrain, kind contextkit.Kind) {
	last := out.GetReadyPeers() == 0
	switch {
	case last && (kind == contextkit.KindGateway || kind == contextkit.KindControl):
		out.Refusal = fmt.Sprintf("It is the only ready %s node: without one, no call could resume it.", kind)
	case out.GetPlacedTenantCount() > 0:
		out.Obstacle = fmt.Sprintf("%d tenants are placed on it: their calls fail until it is resumed, so move them "+
			"before.", out.GetPlacedTenantCount())
	case last:
		out.Obstacle = fmt.Sprintf("It is the only ready %s node: until it is resumed, it answers reads alone.", kind)
	}
}

// drainEffect returns what taking a node of a kind out of service means.
func drainEffect(kind contextkit.Kind, d *controlv1.NodeDrain) string {
	placed := ""
	if d.GetPlacedTenantCount() > 0 {
		placed = fmt.Sprintf(" %d tenants are placed on it: their calls fail until it is back, so move them before.",
			d.GetPlacedTenantCount())
	}
	if d.GetReadyPeers() == 0 && kind.Platform() {
		placed += " No other node of its kind is ready."
	}
	if d.GetSupported() && d.GetRefusal() == "" {
		return drainedEffect[kind] + placed
	}
	effect, known := stoppedEffect[kind]
	if !known {
		effect = "Stop the process. It serves no part of the platform: what that means is up to its program."
	}
	return effect + placed
}

// drainedEffect is what it means that a call drains a node of a kind.
var drainedEffect = map[contextkit.Kind]string{
	contextkit.KindRunner: "It finishes the workflow instances in flight and starts none; the other runners take " +
		"its tenants over. It is not ready until Resume or a restart.",
	contextkit.KindGateway: "It is not ready (503 on /ready), so that load balancers choose other gateways. It " +
		"answers calls that arrive nevertheless; streams stay open until their clients leave. A restart does not " +
		"resume it.",
	contextkit.KindProjection: "Gateways send queries to the other projection nodes. It finishes the calls in " +
		"flight; watches stay open until their clients leave. It keeps its views current. A restart does not " +
		"resume it.",
	contextkit.KindAggregate: "Gateways send commands to the other aggregate nodes, which read its tenants' state " +
		"from snapshots and the journal. It finishes the calls in flight; subscriptions stay open until their " +
		"clients leave. A restart does not resume it.",
	contextkit.KindControl: "Gateways send operators' calls to the other control nodes. It finishes the calls in " +
		"flight, and the moves that it drives. A restart does not resume it.",
}

// stoppedEffect is what it means that the process of a node of a kind is stopped.
var stoppedEffect = map[contextkit.Kind]string{
	contextkit.KindGateway: "Stop the process: it reports that it is not ready, finishes the calls in flight within " +
		"shutdown_timeout, ends streams so that their clients resume elsewhere, and deregisters.",
	contextkit.KindProjection: "Stop the process: it finishes the calls in flight, ends watches so that their " +
		"clients resume at another node, and deregisters. Another node continues its tenants from their " +
		"checkpoints, or builds their views.",
	contextkit.KindAggregate: "Stop the process: it finishes the calls in flight and deregisters. Another node reads " +
		"its tenants' state from snapshots and the journal.",
	contextkit.KindControl: "Stop the process: it finishes the calls in flight and deregisters. Another control node " +
		"continues its moves.",
}
