package control

import (
	"context"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
)

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
	drains, err := s.drains.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	if res.Drain, err = s.drainOf(ctx, &node, drains); err != nil {
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
