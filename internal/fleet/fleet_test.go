package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestAnnounce_NodesAreKnownWhileTheyAnnounce(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 64)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		fleet.FollowNodes(ctx, js, fleet.Follower{Each: func(fleet fleet.Fleet) {
			var parts []string
			for _, l := range fleet.Lost {
				parts = append(parts, "lost "+l.Node.ID)
			}
			for _, node := range fleet.Nodes {
				if node.ID != "speaker" && fleet.Silent[node.ID].IsZero() {
					parts = append(parts, fmt.Sprintf("%s %v %s", node.ID, node.Ready, node.Reason))
				}
			}
			slices.Sort(parts)
			select {
			case seen <- strings.Join(parts, ", "):
			case <-ctx.Done():
			}
		}, Failed: func(err error) { t.Error(err) }})
	}()
	speaking, hush := context.WithCancel(t.Context())
	spoken := make(chan error, 1)
	go func() { // it shows that announcements arrive
		spoken <- fleet.Announce(
			speaking, js, fleet.Node{ID: "speaker", Kind: contextkit.KindGateway, Endpoint: "127.0.0.1:2"},
			func(context.Context, *fleet.Node) error { return nil },
		)
	}()
	defer func() {
		hush()
		if err := <-spoken; err != nil {
			t.Error(err)
		}
	}()
	until := func(want string) time.Duration {
		t.Helper()
		began := time.Now()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case got := <-seen:
				if got == want {
					return time.Since(began)
				}
			case <-timeout:
				t.Fatalf("never %q", want)
			}
		}
	}
	until("")
	var drained atomic.Bool
	announce := func(id string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- fleet.Announce(
				ctx, js, fleet.Node{ID: id, Kind: contextkit.KindRunner, Endpoint: "127.0.0.1:1"},
				func(context.Context, *fleet.Node) error {
					if drained.Load() {
						return errors.New("drained")
					}
					return nil
				},
			)
		}()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := announce("runner-1")
	until("runner-1 true ")
	kept, err := js.Stream(t.Context(), "KV_"+streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := kept.GetLastMsgForSubject(t.Context(), "$KV.nodes.runner-1"); err != nil ||
		msg.Header.Get("x-correlation-id") == "" || len(msg.Header.Get("traceparent")) != 55 ||
		msg.Header.Get("tenant-id") != "" {
		t.Errorf("headers of a heartbeat: %v, %v; want the platform's", msg.Header, err)
	}
	drained.Store(true)
	if took := until("runner-1 false drained"); took > fleet.Heartbeat {
		t.Errorf("drain received after %v, want immediately", took)
	}
	drained.Store(false)
	until("runner-1 true ")
	stop()
	if took := until(""); took > fleet.Heartbeat {
		t.Errorf("deregistration received after %v, want immediately", took)
	}
	// A node that dies announces nothing.
	bucket, err := js.KeyValue(t.Context(), streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(
		t.Context(), "ghost", []byte(`{"id":"ghost","kind":"runner","endpoint":"x:1","ready":true}`),
	); err != nil {
		t.Fatal(err)
	}
	until("ghost true ")
	if took := until("lost ghost"); took < 2*fleet.Heartbeat || took > 2*fleet.MissedHeartbeats*fleet.Heartbeat {
		t.Errorf("silent node removed after %v, want about %v", took, fleet.MissedHeartbeats*fleet.Heartbeat)
	}
	// It is back.
	if _, err := bucket.Put(
		t.Context(), "ghost", []byte(`{"id":"ghost","kind":"runner","endpoint":"x:1","ready":true}`),
	); err != nil {
		t.Fatal(err)
	}
	until("ghost true ")
	until("lost ghost")
	// Another process deregisters it.
	if err := bucket.Delete(t.Context(), "ghost"); err != nil {
		t.Fatal(err)
	}
	until("")
	cancel()
	natstest.Await(t, followed, "the follower ends")
	if err := fleet.Announce(t.Context(), js, fleet.Node{ID: "a b"}, nil); err == nil {
		t.Error("a node id with a space is valid, want an error")
	}
}
