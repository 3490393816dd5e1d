package credentials

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// open returns a store of revocations that has been loaded.
func open(ctx context.Context, t *testing.T, js jetstream.JetStream) *Store[Revocation] {
	t.Helper()
	s, err := OpenStore[Revocation](ctx, js, streams.BucketRevocations)
	if err == nil {
		err = s.Load(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// known returns the records of a store.
func known[T record](t *testing.T, s *Store[T]) map[string]Entry[T] {
	t.Helper()
	all, err := s.All()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Stores follow each other's changes. What another process has stored under a key, or copied from another key or
// bucket, has no effect, and does not end the effect of what was there.
func TestStore_ForeignValuesHaveNoEffect(t *testing.T) {
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	unloaded, err := OpenStore[Revocation](ctx, js, streams.BucketRevocations)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unloaded.All(); !errors.Is(err, ErrNotLoaded) {
		t.Errorf("before it is loaded: %v", err)
	}
	control, gateway := open(ctx, t, js), open(ctx, t, js)
	following, stop := context.WithCancel(ctx)
	changed, done := make(chan struct{}, 64), make(chan struct{})
	go func() {
		defer close(done)
		gateway.Follow(following, func() {
			select {
			case changed <- struct{}{}:
			case <-following.Done():
			}
		}, func(err error) { t.Error(err) })
	}()
	t.Cleanup(func() { stop(); <-done })
	until := func(what string, fits func(map[string]Entry[Revocation]) bool) {
		t.Helper()
		for !fits(known(t, gateway)) {
			natstest.Await(t, changed, what)
		}
	}
	ada := Revocation{Subject: "ada", IssuedBefore: time.Now(), Expires: time.Now().Add(time.Hour)}
	eve := Revocation{Subject: "eve", IssuedBefore: time.Now(), Expires: time.Now().Add(time.Hour)}
	stored, err := control.Put(ctx, ada.ID(), ada, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(known(t, control)) != 1 {
		t.Error("its own change is not known")
	}
	if _, err := control.Put(ctx, ada.ID(), ada, 0); !errors.Is(err, kv.ErrChanged) {
		t.Errorf("a key that has a record: %v", err)
	}
	until("the change is received", func(all map[string]Entry[Revocation]) bool { return all[ada.ID()].Revision > 0 })
	sealedAda, err := kv.Read(ctx, js, streams.BucketRevocations, ada.ID())
	if err != nil {
		t.Fatal(err)
	}
	put := func(bucket, key, value string) {
		t.Helper()
		if _, err := kv.Put(ctx, js, bucket, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	// A copy of the record under another key, plain text under its own, an answer of the server, and another version.
	put(streams.BucketRevocations, eve.ID(), string(sealedAda.Value))
	put(streams.BucketRevocations, "answer", `{"stream":"KV_nodes","seq":155}`)
	put(streams.BucketRevocations, "version", `{"v":2,"data":"AAAA"}`)
	put(streams.BucketRevocations, ada.ID(), `{"subject":"ada","withdrawn":true}`)
	until("the foreign values are received", func(map[string]Entry[Revocation]) bool {
		_, _, rejected := gateway.Size()
		return rejected == 3
	})
	if all := known(t, gateway); len(all) != 1 || all[ada.ID()].Revision != stored.Revision {
		t.Errorf("%+v", all)
	}
	// Control replaces a foreign value: it counts as none.
	entry, err := control.Get(ctx, eve.ID())
	if !errors.Is(err, kv.ErrNotFound) || entry.Revision == 0 {
		t.Fatalf("%+v, %v", entry, err)
	}
	if _, err := control.Put(ctx, eve.ID(), eve, entry.Revision); err != nil {
		t.Fatal(err)
	}
	until("it is replaced", func(all map[string]Entry[Revocation]) bool { return len(all) == 2 })
	// The holder of another role's seed deletes a revocation.
	bucket, err := js.KeyValue(ctx, streams.BucketRevocations)
	if err == nil {
		err = bucket.Delete(ctx, eve.ID())
	}
	if err != nil {
		t.Fatal(err)
	}
	mia := Revocation{Subject: "mia", Expires: time.Now().Add(time.Hour)}
	if _, err := control.Put(ctx, mia.ID(), mia, 0); err != nil {
		t.Fatal(err)
	}
	until("the revocation after the deleted one is received", func(all map[string]Entry[Revocation]) bool {
		return all[mia.ID()].Revision != 0
	})
	if all := known(t, gateway); len(all) != 3 || all[eve.ID()].Revision == 0 {
		t.Errorf("after a deletion: %+v", all)
	}
	put(streams.BucketAPIKeys, "c.x", string(sealedAda.Value))
	keys, err := OpenStore[APIKey](ctx, js, streams.BucketAPIKeys)
	if err == nil {
		err = keys.Load(ctx)
	}
	if _, _, rejected := keys.Size(); err != nil || rejected != 1 || len(known(t, keys)) != 0 {
		t.Errorf("a record of the other bucket: %d rejected, %v", rejected, err)
	}
}

// A clock that is wrong makes no record expire: NATS has it.
func TestStore_TheClockAloneForgetsNothing(t *testing.T) {
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	control, gateway := open(ctx, t, js), open(ctx, t, js)
	ada := Revocation{Subject: "ada", Expires: time.Now().Add(-time.Hour)} // NATS stores it for a minute
	if _, err := control.Put(ctx, ada.ID(), ada, 0); err != nil {
		t.Fatal(err)
	}
	if err := gateway.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if pruned, err := gateway.prune(ctx); pruned || err != nil || len(known(t, gateway)) != 1 {
		t.Errorf("a record that NATS has is removed: %v", err)
	}
	stream, err := js.Stream(ctx, streams.BucketStream(streams.BucketRevocations))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	// A replica may be behind: a record that has not expired stays.
	eve := Revocation{Subject: "eve", Expires: time.Now().Add(time.Hour)}
	if _, err := gateway.Put(ctx, eve.ID(), eve, 0); err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	if pruned, err := gateway.prune(ctx); !pruned || err != nil || known(t, gateway)[eve.ID()].Revision == 0 {
		t.Errorf("%v, %v: %+v", pruned, err, known(t, gateway))
	}
}
