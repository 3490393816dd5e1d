package node

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
)

// checkNodes checks what operators read of each node: settings without secrets, the calls of procedures, and how it is
// taken out of service.
func (d *devPlatform) checkNodes(t *testing.T, operator []string) {
	t.Helper()
	get := method(t, "control.v1.FleetService.GetNode")
	res := d.mustCall(t, "gateway", method(t, "control.v1.FleetService.GetFleet"), &controlv1.GetFleetRequest{},
		operator...)
	kinds := map[string]bool{}
	for _, node := range res.(*controlv1.GetFleetResponse).GetFleet().GetNodes() {
		if node.GetId() == "projection-2" { // which the test announces
			continue
		}
		kinds[node.GetKind()] = true
		found := d.mustCall(t, "gateway", get, &controlv1.GetNodeRequest{Node: node.GetId()},
			operator...).(*controlv1.GetNodeResponse)
		var names []string
		for _, setting := range found.GetSettings() {
			names = append(names, setting.GetName())
			if setting.GetValue() == "" || strings.Contains(setting.GetValue(), "/") {
				t.Errorf("%s: the setting %v", node.GetId(), setting)
			}
		}
		drain := found.GetDrain()
		if found.GetNode().GetId() != node.GetId() || !slices.Contains(names, "body_timeout") ||
			found.GetCertificate() != nil || found.GetProcedureSeconds() <= 0 || drain.GetEffect() == "" ||
			!drain.GetSupported() || drain.GetDrained() {
			t.Errorf("%s: %v", node.GetId(), found)
		}
	}
	if len(kinds) != 5 {
		t.Errorf("nodes of the kinds %v", kinds)
	}
	if _, err := d.call(t, "gateway", get, &controlv1.GetNodeRequest{Node: "absent"},
		operator...); status.Code(err) != codes.NotFound {
		t.Errorf("a node that does not exist: %v", err)
	}
}
