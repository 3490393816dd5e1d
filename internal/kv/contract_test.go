package kv_test

import (
	"context"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// TestBucket_PlatformWritesCarryTheContract drives the writes to buckets that no call causes: the
// shared secret, and a node's announcements and deregistration.
func TestBucket_PlatformWritesCarryTheContract(t *testing.T) {
	js := natstest.Start(t)
	ctx := contextkit.PlatformContext(t.Context())
	if _, err := kv.SharedSecret(ctx, js, "carried"); err != nil {
		t.Fatal(err)
	}
	natstest.SameContract(ctx, t, js, "KV_"+streams.BucketSecrets, 1)

	announced, leave := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- fleet.Announce(
			announced, js, fleet.Node{ID: "n1", Kind: contextkit.KindRunner, Endpoint: "127.0.0.1:1"},
			func(context.Context, *fleet.Node) error { return nil },
		)
	}()
	nodes := make(chan []fleet.Node, 16)
	following, stop := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		fleet.FollowNodes(following, js, fleet.Follower{Each: func(fleet fleet.Fleet) {
			select {
			case nodes <- fleet.Nodes:
			case <-following.Done():
			}
		}, Failed: func(err error) { t.Error(err) }})
	}()
	for len(natstest.Await(t, nodes, "the node is announced")) == 0 {
	}
	leave()
	if err := natstest.Await(t, done, "the announcement ends"); err != nil {
		t.Fatal(err)
	}
	stop()
	natstest.Await(t, followed, "the follower ends")
	stream, err := js.Stream(ctx, "KV_"+streams.BucketNodes)
	if err != nil {
		t.Fatal(err)
	}
	last := stream.CachedInfo().State.LastSeq
	if msg, err := stream.GetMsg(ctx, last); err != nil || msg.Header.Get("KV-Operation") != "DEL" {
		t.Fatalf("the deregistration: %+v, %v", msg, err)
	}
	natstest.SameContract(ctx, t, js, "KV_"+streams.BucketNodes, last)
}

func TestPut_CarriesTheContractOrFails(t *testing.T) {
	js := natstest.Start(t)
	if _, err := kv.Put(t.Context(), js, streams.BucketRunner, "paused.acme", []byte("paused")); err == nil {
		t.Error("a write without a context is accepted")
	}
	ctx := contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme"))
	for range 2 { // at any revision
		sequence, err := kv.Put(ctx, js, streams.BucketRunner, "paused.acme", []byte("paused"))
		if err != nil {
			t.Fatal(err)
		}
		natstest.SameContract(ctx, t, js, "KV_"+streams.BucketRunner, sequence)
	}
	kept, err := kv.Read(ctx, js, streams.BucketRunner, "paused.acme")
	if err != nil || string(kept.Value) != "paused" {
		t.Errorf("%q, %v", kept.Value, err)
	}
}
