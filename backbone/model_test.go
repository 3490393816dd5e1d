package backbone_test

import (
	"context"
	"testing"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
)

func TestModels_PlacesAreTheSameForAllNodes(t *testing.T) {
	js, ctx := natstest.Start(t), contextkit.PlatformContext(t.Context())
	fallback := func(context.Context) (string, []byte, error) { return "demo", []byte("demo"), nil }
	follows, err := backbone.OpenModels(ctx, js, fallback)
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := backbone.OpenModels(ctx, js, nil)
	if err != nil {
		t.Fatal(err)
	}
	place := func(models *backbone.Models, revision string, wantFile bool) uint64 {
		t.Helper()
		order, fromFile, err := models.Place(ctx, revision)
		if err != nil || order == 0 || fromFile != wantFile {
			t.Fatalf("%s: place %d, from a file %v, %v", revision, order, fromFile, err)
		}
		return order
	}
	a := place(follows, "a", true)
	b := place(fixed, "b", true)
	if again := place(fixed, "a", true); again != a || b <= a {
		t.Fatalf("places %d, %d and %d: want that of the first start each", a, b, again)
	}
	documents, err := backbone.OpenBucket[backbone.Document](ctx, js, backbone.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := documents.Put(ctx, backbone.ModelKey, backbone.Document{Text: "A", Revision: "a"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if order := place(follows, "a", false); order != applied || order <= b {
		t.Fatalf("the applied model is at %d, not %d", order, applied)
	}
	if order := place(fixed, "a", true); order != a {
		t.Fatalf("a node with a file places its model at %d, not %d", order, a)
	}
	if name, text, err := follows.Source(ctx); err != nil || string(text) != "A" || name == "demo" {
		t.Fatalf("%s %s, %v", name, text, err)
	}
}

func TestEvent_NamesTheModelThatDecidedIt(t *testing.T) {
	js, acme := natstest.Start(t), natstest.Tenant(t, "acme")
	journal, err := backbone.OpenJournal(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextkit.TenantContext(t.Context(), acme)
	refs := []backbone.ModelRef{{}, backbone.NewModelRef("0a1b", 17, false), backbone.NewModelRef("2c3d", 0, true)}
	var events []backbone.Event
	for n, ref := range refs {
		events = append(events, backbone.Event{ID: contextkit.NewID(), Type: "e", AggregateType: "a", AggregateID: "x", Version: int64(n + 1), Time: time.Now(), Data: []byte("{}"), Model: ref})
	}
	if err := journal.Append(ctx, acme, 0, events); err != nil {
		t.Fatal(err)
	}
	n := 0
	err = journal.Load(ctx, acme, "a", "x", 1, len(events), func(event backbone.Event) error {
		if got := event.Model; got.Revision != refs[n].Revision || got.Order != refs[n].Order || got.FromFile != refs[n].FromFile {
			t.Errorf("event %d: %+v, want %+v", n, got, refs[n])
		}
		n++
		return nil
	})
	if err != nil || n != len(events) {
		t.Fatalf("%d events, %v", n, err)
	}
	for _, text := range []string{"", "x", "x;", "x;applied", "x;applied=", "x;applied=-1", ";applied=1", "x;later=1", "x;applied=1;more"} {
		if ref := backbone.ParseModelRef(text); ref.Revision != "" || ref.Order != 0 {
			t.Errorf("%q is read as %+v", text, ref)
		}
	}
}
