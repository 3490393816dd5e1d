package models_test

import (
	"context"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestModels_PlacesAreTheSameForAllNodes(t *testing.T) {
	js, ctx := natstest.Start(t), contextkit.PlatformContext(t.Context())
	fallback := func(context.Context) (string, []byte, error) { return "demo", []byte("demo"), nil }
	follows, err := models.Open(ctx, js, fallback)
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := models.Open(ctx, js, nil)
	if err != nil {
		t.Fatal(err)
	}
	place := func(models *models.Store, revision string, wantFile bool) uint64 {
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
	documents, err := kv.Open[models.Document](ctx, js, streams.BucketModels)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := documents.Put(ctx, models.Key, models.Document{Text: "A", Revision: "a"}, 0)
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
