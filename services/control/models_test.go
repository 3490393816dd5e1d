package control_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/streams"
)

func TestListModels_IncludesInitialModel(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	now, err := c.models.GetModel(platform(t), &controlv1.GetModelRequest{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.models.ListModels(platform(t), &controlv1.ListModelsRequest{})
	if err != nil || len(list.GetDocuments()) != 1 ||
		list.GetDocuments()[0].GetRevision() != now.GetDocument().GetRevision() ||
		list.GetDocuments()[0].GetText() == "" {
		t.Fatalf("%v, %v", list, err)
	}
}

func TestCheckModel_WarnsOfStoredEventsThatTheDocumentCannotRead(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	now, err := c.models.GetModel(platform(t), &controlv1.GetModelRequest{})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("amount: cmd.amount\n", "amount: cmd.amount\n              currency: \"'EUR'\"\n",
		"deposited: {balance: state.balance + event.amount}",
		"deposited: {balance: state.balance + event.amount, currency: event.currency, last: row.last}",
	).Replace(now.GetDocument().GetText())
	if checked, err := c.models.CheckModel(platform(t), &controlv1.CheckModelRequest{Text: text}); err != nil ||
		len(checked.GetMistakes()) != 1 || len(checked.GetWarnings()) != 0 {
		t.Errorf("with a mistake: %v, %v", checked, err)
	}
	text = strings.Replace(text, "row.last", "state.latest", 1)
	checked, err := c.models.CheckModel(platform(t), &controlv1.CheckModelRequest{Text: text})
	if err != nil || len(checked.GetMistakes()) != 0 || len(checked.GetWarnings()) != 2 ||
		!strings.Contains(checked.GetWarnings()[0].GetMessage(), `state never has the member "latest"`) ||
		!strings.Contains(checked.GetWarnings()[1].GetMessage(), `stored already lack the member "currency"`) ||
		checked.GetWarnings()[1].GetLine() == 0 {
		t.Errorf("%v, %v", checked, err)
	}
}

func TestApplyModel_ReportsNodesThatUseIt(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx := platform(t)
	now, err := c.models.GetModel(ctx, &controlv1.GetModelRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := now.GetDocument().GetText() + "# changed\n"
	checked, err := c.models.CheckModel(ctx, &controlv1.CheckModelRequest{Text: next})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := kv.Open[models.Document](ctx, w.js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	var applied atomic.Uint64 // the order of the applied model
	w.run(t, func(ctx context.Context) error {
		documents.Follow(ctx, func(all map[string]kv.Entry[models.Document]) {
			if kept := all[models.Key]; kept.Value.Text == next {
				applied.Store(kept.Revision)
			}
		}, quiet)
		return nil
	})
	announce := func(id string, kind contextkit.Kind, state func(*fleet.Node)) {
		w.run(t, func(ctx context.Context) error {
			return fleet.Announce(
				ctx, w.js, fleet.Node{ID: id, Kind: kind, Endpoint: "127.0.0.1:1"},
				func(_ context.Context, now *fleet.Node) error {
					state(now)
					return nil
				},
			)
		})
	}
	old := now.GetDocument().GetRevision()
	announce("a1", contextkit.KindAggregate, func(n *fleet.Node) {
		n.Model, n.ModelOrder = old, 1
		if order := applied.Load(); order > 0 {
			n.Model, n.ModelOrder = checked.GetRevision(), order
		}
	})
	announce("r1", contextkit.KindRunner, func(n *fleet.Node) {
		n.Model, n.ModelOrder = old, 1
		if applied.Load() > 0 {
			n.ModelPending, n.ModelProblem = checked.GetRevision(), "written by a later version"
		}
	})
	announce("old", contextkit.KindProjection, func(*fleet.Node) {})
	announce("g1", contextkit.KindGateway, func(*fleet.Node) {})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for known := 0; known < 4; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the nodes are not known")
		}
		fleet, err := c.fleet.GetFleet(ctx, &controlv1.GetFleetRequest{})
		if err != nil {
			t.Fatal(err)
		}
		known = len(fleet.GetFleet().GetNodes())
	}
	called, info := connect.NewClientContext(ctx)
	res, err := c.models.ApplyModel(called, &controlv1.ApplyModelRequest{Text: next, ExpectedRevision: old})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, node := range res.GetNodes() {
		got[node.GetNode()] = node.GetRevision() + " " + node.GetProblem()
	}
	want := map[string]string{"a1": checked.GetRevision() + " ", "r1": old + " written by a later version", "old": " "}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// The audit record has both revisions.
	stated := fmt.Sprintf(`[{"n":"model","a":%q,"b":%q}]`, old, checked.GetRevision())
	if got := info.ResponseHeader().Get(contextkit.HeaderChanges); got != stated {
		t.Errorf("stated changes %s, want %s", got, stated)
	}
	fleet, err := c.fleet.GetFleet(ctx, &controlv1.GetFleetRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range fleet.GetFleet().GetNodes() {
		if node.GetId() == "r1" &&
			(node.GetModelRevision() != old || node.GetModelPending() != checked.GetRevision() ||
				node.GetModelProblem() == "") {
			t.Errorf("fleet: %v", node)
		}
	}
}
