package control

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
)

// maxPlacedTenants bounds the placed tenants of a response.
const maxPlacedTenants = 100

// GetNode implements FleetService.
func (s fleetService) GetNode(
	ctx context.Context, req *controlv1.GetNodeRequest,
) (*controlv1.GetNodeResponse, error) {
	node, ok := s.node(req.GetNode())
	if !ok {
		return nil, connect.Errorf(connect.CodeNotFound, "no node %q is announced", req.GetNode())
	}
	res := &controlv1.GetNodeResponse{Node: nodeMessage(node)}
	if d := node.Details; d != nil {
		addDetails(res, d)
	}
	var err error
	if res.Drain, err = s.drainOf(ctx, &node); err != nil {
		return nil, asConnectError(err)
	}
	return res, nil
}

// addDetails adds what a node announces; of another program, no more than a node of this version would.
func addDetails(res *controlv1.GetNodeResponse, d *fleet.Details) {
	if c := d.Certificate; c != nil {
		res.Certificate = &controlv1.NodeCertificate{
			Subject:  c.Subject,
			Issuer:   c.Issuer,
			NotAfter: timestamppb.New(c.NotAfter),
		}
	}
	const maxSettings = 64
	for _, setting := range d.Settings[:min(len(d.Settings), maxSettings)] {
		res.Settings = append(res.Settings, &controlv1.NodeSetting{Name: setting.Name, Value: setting.Value})
	}
	res.ProcedureSeconds = d.Seconds
	for _, load := range d.Procedures[:min(len(d.Procedures), fleet.MaxProcedures)] {
		res.Procedures = append(res.Procedures, &controlv1.ProcedureLoad{
			Procedure: load.Procedure,
			Calls:     load.Calls,
			Errors:    load.Errors,
			P50Ms:     load.P50,
			P95Ms:     load.P95,
			P99Ms:     load.P99,
		})
	}
}

// drainOf returns how a node is taken out of service.
func (s *Service) drainOf(ctx context.Context, node *fleet.Node) (*controlv1.NodeDrain, error) {
	placements, err := s.placements.All(ctx)
	if err != nil {
		return nil, err
	}
	out := &controlv1.NodeDrain{Supported: node.Kind == contextkit.KindRunner}
	for key, kept := range placements {
		if kind, tenant, ok := fleet.ParsePlacementKey(key); ok && kind == node.Kind && kept.Value.Node == node.ID {
			out.PlacedTenants = append(out.PlacedTenants, tenant.String())
		}
	}
	slices.Sort(out.PlacedTenants)
	out.PlacedTenantCount = int32(len(out.PlacedTenants))
	out.PlacedTenants = out.PlacedTenants[:min(len(out.PlacedTenants), maxPlacedTenants)]
	for _, peer := range s.announced() {
		if peer.Kind == node.Kind && peer.ID != node.ID && peer.Ready {
			out.ReadyPeers++
		}
	}
	out.Effect = drainEffect(node.Kind, out)
	return out, nil
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
	var effect string
	switch kind {
	case contextkit.KindRunner:
		effect = "It finishes the workflow instances in flight and starts none; the other runners take its tenants " +
			"over. It is not ready until Resume or a restart."
	case contextkit.KindGateway:
		effect = "Stop the process: it reports that it is not ready, finishes the calls in flight within " +
			"shutdown_timeout, ends streams so that their clients resume elsewhere, and deregisters."
	case contextkit.KindProjection:
		effect = "Stop the process: it finishes the calls in flight, ends watches so that their clients resume at " +
			"another node, and deregisters. Another node continues its tenants from their checkpoints, or builds " +
			"their views."
	case contextkit.KindAggregate:
		effect = "Stop the process: it finishes the calls in flight and deregisters. Another node reads its tenants' " +
			"state from snapshots and the journal."
	case contextkit.KindControl:
		effect = "Stop the process: it finishes the calls in flight and deregisters. Another control node continues " +
			"its moves."
	default:
		effect = "Stop the process. It serves no part of the platform: what that means is up to its program."
	}
	return effect + placed
}
