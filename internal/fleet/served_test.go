package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// announcer announces a node whose tenants a test changes.
type announcer struct {
	tenants atomic.Pointer[[]string]
	stop    func()
}

func startAnnouncer(t *testing.T, js jetstream.JetStream, id string, tenants []string) *announcer {
	t.Helper()
	a := &announcer{}
	a.tenants.Store(&tenants)
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- fleet.Announce(ctx, js, fleet.Node{
			ID:       id,
			Kind:     contextkit.KindProjection,
			Endpoint: "127.0.0.1:1",
			Started:  time.Now(),
		}, func(_ context.Context, now *fleet.Node) error {
			now.Tenants = *a.tenants.Load()
			return nil
		})
	}()
	a.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(a.stop)
	return a
}

// followTenants sends the tenants of a node whenever nodes change.
func followTenants(t *testing.T, js jetstream.JetStream, id string) func(want []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan []string, 1), make(chan struct{})
	go func() {
		defer close(done)
		fleet.FollowNodes(ctx, js, fleet.Follower{Tenants: true, Each: func(fleet fleet.Fleet) {
			for _, node := range fleet.Nodes {
				if node.ID == id {
					select {
					case seen <- slices.Clone(node.Tenants):
					case <-ctx.Done():
					}
				}
			}
		}})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func(want []string) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case got := <-seen:
				if slices.Sort(got); slices.Equal(got, want) {
					return
				}
			case <-late:
				t.Fatalf("the node is never known with %d tenants", len(want))
			}
		}
	}
}

func names(count int) []string {
	var out []string
	for n := range count {
		out = append(out, fmt.Sprintf("tenant-%05d", n))
	}
	return out
}

func TestAnnounce_TenantsAreWrittenWhenTheyChange(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	all := names(10_000)
	until := followTenants(t, js, "views-1")
	published := make(chan *nats.Msg, 1024)
	direct, err := js.Conn().ChanSubscribe("$KV.nodes.views-1", published)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = direct.Unsubscribe() }()
	a := startAnnouncer(t, js, "views-1", all)
	until(all)
	written := func() uint64 {
		stream, err := js.Stream(t.Context(), "KV_"+streams.BucketServed)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.LastSeq
	}
	// Small announcements follow, and nothing is written.
	small := func() {
		t.Helper()
		for late := time.After(20 * time.Second); ; {
			select {
			case msg := <-published:
				var node fleet.Node
				if err := json.Unmarshal(msg.Data, &node); err == nil && len(msg.Data) < 1024 && node.TenantCount > 0 {
					return
				}
			case <-late:
				t.Fatal("announcements stay large")
			}
		}
	}
	small()
	before := written()
	small()
	if now := written(); now != before {
		t.Errorf("%d parts written without a change", now-before)
	}
	fewer := slices.Delete(slices.Clone(all), 4_000, 4_001)
	a.tenants.Store(&fewer)
	until(fewer)
	if now := written(); now != before+1 {
		t.Errorf("%d parts written for one tenant", now-before)
	}
	// A follower that starts later receives them, and a node with fewer after a restart announces that.
	followTenants(t, js, "views-1")(fewer)
	a.stop()
	few := names(3)
	startAnnouncer(t, js, "views-1", few)
	until(few)
	followTenants(t, js, "views-1")(few)
}

func TestAnnounce_EarlierVersionsReceiveAllTenants(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	bucket, err := js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	old := func() {
		t.Helper()
		if _, err := bucket.Put(
			t.Context(), "control-old", []byte(`{"id":"control-old","kind":"control","endpoint":"x:1","ready":true}`),
		); err != nil {
			t.Fatal(err)
		}
	}
	old()
	all := names(100)
	startAnnouncer(t, js, "views-1", all)
	until := followTenants(t, js, "views-1")
	until(all)
	// whole reports whether the bucket's announcement has all tenants.
	whole := func() bool {
		entry, err := bucket.Get(t.Context(), "views-1")
		for errors.Is(err, jetstream.ErrKeyNotFound) &&
			t.Context().Err() == nil { // it was received, and is being stored
			entry, err = bucket.Get(t.Context(), "views-1")
		}
		if err != nil {
			t.Fatal(err)
		}
		var node fleet.Node
		if err := json.Unmarshal(entry.Value(), &node); err != nil {
			t.Fatal(err)
		}
		return len(node.Tenants) == len(all)
	}
	if !whole() {
		t.Error("an earlier version does not receive the tenants")
	}
	if err := bucket.Delete(t.Context(), "control-old"); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); whole(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("all tenants are still announced")
		}
	}
	// It comes back.
	old()
	for late := time.After(20 * time.Second); !whole(); {
		select {
		case <-tick.C:
			old()
		case <-late:
			t.Fatal("an earlier version that comes later does not receive the tenants")
		}
	}
}
