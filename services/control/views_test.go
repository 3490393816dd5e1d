package control_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

func TestSkips_AreDecidedListedAndRevoked(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "control-1", "")
	acme := natstest.Tenant(t, "acme")
	eventLog, err := journal.Open(t.Context(), w.js)
	if err != nil {
		t.Fatal(err)
	}
	events := []journal.Event{
		{
			ID:            "e1",
			Type:          "opened",
			AggregateType: "wallet",
			AggregateID:   "w",
			Version:       1,
			Time:          time.Unix(1, 0),
			Data:          []byte(`{}`),
		},
	}
	if err := eventLog.Append(contextkit.TenantContext(t.Context(), acme), acme, 0, events); err != nil {
		t.Fatal(err)
	}
	sequence := int64(events[0].Sequence)
	skip := func(tenant, view, event string, sequence int64) (*controlv1.SkipEventResponse, error) {
		return c.views.SkipEvent(platform(t), &controlv1.SkipEventRequest{
			TenantId: tenant,
			View:     view,
			EventId:  event,
			Sequence: sequence,
			Reason:   "a mistake",
		})
	}
	for name, tc := range map[string]struct {
		tenant, view, event string
		sequence            int64
	}{
		"event of another tenant":   {"globex", "wallets", "e1", sequence},
		"other view":                {"acme", "nothing", "e1", sequence},
		"other event":               {"acme", "wallets", "e2", sequence},
		"sequence past the end":     {"acme", "wallets", "e1", sequence + 1},
		"view announced by no node": {"acme", "wallets", "e1", 0},
	} {
		if _, err := skip(tc.tenant, tc.view, tc.event, tc.sequence); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A node announces where its view fails.
	failing := []fleet.FailingView{
		{
			Tenant:    "acme",
			View:      "wallets",
			EventID:   "e1",
			Sequence:  events[0].Sequence,
			EventType: "wallet.opened",
			Aggregate: "wallet/w",
			Reason:    "why",
		},
	}
	w.run(t, func(ctx context.Context) error {
		return fleet.Announce(
			ctx, w.js, fleet.Node{ID: "projection-9", Kind: contextkit.KindProjection, Endpoint: "127.0.0.1:1"},
			func(_ context.Context, n *fleet.Node) error {
				n.FailingViews, n.FailingViewCount = failing, 1
				return nil
			},
		)
	})
	var first *controlv1.SkipEventResponse
	eventually(t, "the event is skipped", func() bool {
		first, err = skip("acme", "wallets", "e1", 0)
		return err == nil
	})
	if again, err := skip("acme", "wallets", "e1", sequence); err != nil ||
		!again.GetSkip().GetTime().AsTime().Equal(first.GetSkip().GetTime().AsTime()) {
		t.Errorf("repeated decision: %v, %v", again, err)
	}
	fleet, err := c.fleet.GetFleet(platform(t), &controlv1.GetFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	shown := false
	for _, node := range fleet.GetFleet().GetNodes() {
		shown = shown ||
			node.GetFailingViewCount() == 1 && node.GetFailingViews()[0].GetEventId() == "e1" &&
				node.GetFailingViews()[0].GetReason() == "why"
	}
	if !shown {
		t.Errorf("view missing in the fleet: %v", fleet)
	}
	list := func() []*controlv1.Skip {
		t.Helper()
		res, err := c.views.ListSkips(platform(t), &controlv1.ListSkipsRequest{TenantId: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		return res.GetSkips()
	}
	if got := list(); len(got) != 1 || !got[0].GetCurrent() || got[0].GetRevoked() ||
		got[0].GetReason() != "a mistake" || got[0].GetAggregate() != "wallet/w" || got[0].GetSequence() != sequence {
		t.Errorf("%v", got)
	}
	revoke := func() error {
		_, err := c.views.RevokeSkip(platform(t), &controlv1.RevokeSkipRequest{
			TenantId: "acme",
			View:     "wallets",
			EventId:  "e1",
			Reason:   "it is fine",
		})
		return err
	}
	if err := revoke(); err != nil {
		t.Fatal(err)
	}
	if err := revoke(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("second revocation: %v", err)
	}
	if got := list(); len(got) != 1 || !got[0].GetRevoked() || got[0].GetReason() != "it is fine" {
		t.Errorf("%v", got)
	}
	if _, err := skip("acme", "wallets", "e1", sequence); err != nil {
		t.Errorf("after a revocation: %v", err)
	}
}
