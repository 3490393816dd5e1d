package node

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc"
)

// drain drains a node, and returns the reason of a refusal; "": it is drained.
func (d *devPlatform) drain(t *testing.T, node string, force bool, operator []string) string {
	t.Helper()
	_, err := d.call(t, "gateway", method(t, "control.v1.FleetService.DrainNode"),
		&controlv1.DrainNodeRequest{Node: node, Reason: "kernel", Force: force}, operator...)
	if err == nil {
		return ""
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	t.Fatalf("drain %s: %v", node, err)
	return ""
}

// known waits until control knows nodes.
func (d *devPlatform) known(t *testing.T, operator []string, nodes ...string) {
	t.Helper()
	for _, node := range nodes {
		eventually(t, node+" is known", func() bool {
			_, err := d.call(t, "gateway", method(t, "control.v1.FleetService.GetNode"),
				&controlv1.GetNodeRequest{Node: node}, operator...)
			return err == nil
		})
	}
}

// drained returns what control reports of a node that is drained.
func (d *devPlatform) drained(t *testing.T, node string, operator []string) *controlv1.GetNodeResponse {
	t.Helper()
	return d.mustCall(t, "gateway", method(t, "control.v1.FleetService.GetNode"), &controlv1.GetNodeRequest{Node: node},
		operator...).(*controlv1.GetNodeResponse)
}

// drainedMetric returns the line of a role's metric.
func (d *devPlatform) drainedMetric(t *testing.T, role string) string {
	t.Helper()
	url := map[string]string{"gateway": d.edge.gateway.AdminURL(), "aggregate": d.aggregate.server.URL()}[role]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "headgate_node_drained") {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

// A drained node is not ready, for any tenant, until it is resumed: /ready, its announcement, its metric and control
// agree. The calls of operators are answered, by a drained gateway too.
func TestDrain_NodesAreNotReadyUntilTheyAreResumed(t *testing.T) {
	d := startContract(t)
	operator := d.token(t, "*")
	d.announceNode(t, "gateway-2", &service{member: &member{kind: contextkit.KindGateway}, server: d.control.server})
	d.known(t, operator, "gateway-1", "gateway-2", "aggregate-1", "projection-1")
	for _, c := range []struct {
		role  string
		force bool
	}{{"gateway", false}, {"aggregate", true}, {"projection", true}} {
		node := c.role + "-1"
		if refusal := d.drain(t, node, c.force, operator); refusal != "" {
			t.Fatalf("%s is not drained: %s", node, refusal)
		}
		for _, tenant := range []string{"", "acme"} {
			eventually(t, node+" is not ready", func() bool {
				ready, reason := d.readiness(t, c.role, tenant)
				return !ready && reason == "the node is drained"
			})
		}
		if c.role != "gateway" && d.serving(t, c.role, "") {
			t.Errorf("%s: its health contradicts /ready", node)
		}
		if c.role != "projection" {
			if line := d.drainedMetric(t, c.role); !strings.HasSuffix(line, "} 1") {
				t.Errorf("%s: the metric is %q", node, line)
			}
		}
		eventually(t, node+" is announced as drained", func() bool {
			found := d.drained(t, node, operator)
			return found.GetNode().GetDrained() &&
				found.GetNode().GetState() == controlv1.NodeState_NODE_STATE_NOT_READY
		})
		if drain := d.drained(t, node, operator).GetDrain(); !drain.GetDrained() || drain.GetReason() != "kernel" ||
			drain.GetBy() == "" || !drain.GetSince().IsValid() {
			t.Errorf("%s: %v", node, drain)
		}
		// A process that starts again is drained from its beginning.
		again, err := fleet.OpenDrained(t.Context(), d.js, contextkit.Kind(c.role), node)
		if err != nil || !errors.Is(again.Check(), fleet.ErrDrained) {
			t.Errorf("%s: after a restart: %v, %v", node, again.Check(), err)
		}
		d.mustCall(t, "gateway", method(t, "control.v1.FleetService.ResumeNode"),
			&controlv1.ResumeNodeRequest{Node: node}, operator...)
		eventually(t, node+" is ready again", func() bool {
			ready, _ := d.readiness(t, c.role, "")
			return ready && !d.drained(t, node, operator).GetDrain().GetDrained()
		})
	}
}

// A node is drained only by force if calls would fail, and never if no call could resume it.
func TestDrain_RefusedWhereCallsWouldFail(t *testing.T) {
	d := startContract(t)
	operator := d.token(t, "*")
	d.known(t, operator, "gateway-1", "aggregate-1", "projection-1", "runner-1", "control-1")
	refused := func(node string, force bool, want rpc.ErrorReason) {
		t.Helper()
		if got := d.drain(t, node, force, operator); got != string(want) {
			t.Errorf("drain %s, force %v: %q, want %q", node, force, got, want)
		}
	}
	refused("runner-1", true, rpc.ReasonNotDrainable)
	for _, force := range []bool{false, true} {
		refused("gateway-1", force, rpc.ReasonLastNode)
		refused("control-1", force, rpc.ReasonLastNode)
	}
	refused("aggregate-1", false, rpc.ReasonLastNode)
	d.mustCall(t, "gateway", method(t, "control.v1.PlacementService.AssignPlacement"),
		&controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "projection", Node: "projection-1"}, operator...)
	refused("projection-1", false, rpc.ReasonServesPlaced)
	d.announceNode(t, "aggregate-2", d.aggregate)
	eventually(t, "aggregate-2 is announced", func() bool {
		return d.drained(t, "aggregate-1", operator).GetDrain().GetReadyPeers() == 1
	})
	refused("aggregate-2", true, rpc.ReasonNotDrainable) // it does not announce that it follows drains
	refused("aggregate-1", false, "")
}
