package control

import (
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/rpc/reads"
)

// Each read of timelines reads thousands of spans: those of one tenant occupy its own share of the node.
func TestTimelines_ReadsOfATenantAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acme, err := contextkit.ParseTenantID("acme")
		if err != nil {
			t.Fatal(err)
		}
		s := timelineService{Service: &Service{
			reads: reads.NewLimiter(timelineReads),
			fleet: fleet.Fleet{Nodes: []fleet.Node{{Tenants: []string{"acme"}}}},
		}}
		for range 2 {
			leave, err := s.reads.Enter(t.Context(), acme)
			if err != nil {
				t.Fatal(err)
			}
			defer leave()
		}
		ctx := contextkit.TenantContext(t.Context(), acme)
		if _, err := s.ListTimelines(ctx, &controlv1.ListTimelinesRequest{}); connect.CodeOf(err) !=
			connect.CodeResourceExhausted {
			t.Errorf("ListTimelines beside two others: %v", err)
		}
		if _, err := s.GetTimeline(ctx, &controlv1.GetTimelineRequest{Id: "a"}); connect.CodeOf(err) !=
			connect.CodeResourceExhausted {
			t.Errorf("GetTimeline beside two others: %v", err)
		}
	})
}
