package projection_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// maxConsumers is the maximum number of consumers that a node has on the journal, for any number of tenants and
// watchers.
const maxConsumers = 7

// consumers returns the number of the journal's consumers.
func consumers(t *testing.T, js jetstream.JetStream) int {
	t.Helper()
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Consumers
}

func TestService_SharesConsumersBetweenTenants(t *testing.T) {
	js := natstest.Start(t)
	f := start(t, js, sqliteIn(t), model.Wallet)
	goroutines := runtime.NumGoroutine()
	ids := []contextkit.TenantID{natstest.Tenant(t, "acme"), natstest.Tenant(t, "globex")}
	for i := range 1500 {
		ids = append(ids, natstest.Tenant(t, fmt.Sprintf("t%04d", i)))
	}
	for _, id := range ids[len(ids)-100:] { // before they are served
		f.append(t, id.String(), "w", "opened", `{"owner":"early"}`)
	}
	f.tenants.Replace(ids)
	for _, id := range ids {
		within(t, "the node is ready for "+id.String(), func() bool { return f.service.Ready(t.Context(), id) == nil })
	}
	if n := consumers(t, js); n > maxConsumers {
		t.Errorf("%d consumers, want at most %d", n, maxConsumers)
	}
	for _, id := range ids[len(ids)-200:] {
		f.append(t, id.String(), "v", "opened", `{"owner":"late"}`)
	}
	for _, id := range ids[len(ids)-200:] {
		if _, err := f.client.Get(
			as(t, id.String()),
			&projectionv1.GetRequest{View: "wallets", Key: "v", MinPosition: f.position(t, id.String())},
		); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if n := consumers(t, js); n > maxConsumers {
		t.Errorf("%d consumers, want at most %d", n, maxConsumers)
	}
	// The number of open files bounds the goroutines, not the number of tenants.
	if n := runtime.NumGoroutine() - goroutines; n > 1000 {
		t.Errorf("%d goroutines for %d tenants", n, len(ids))
	}
}

func TestWatch_ThousandWatchersResume(t *testing.T) {
	js := natstest.Start(t)
	f := start(t, js, sqliteIn(t), model.Wallet)
	f.fill(t)
	seen := f.position(t, "acme")
	f.append(t, "acme", "w0", "deposited", `{"amount":500,"reference":""}`)
	now := f.position(t, "acme")
	if _, err := f.query(t, nil); err != nil {
		t.Fatal(err)
	}
	var watchers sync.WaitGroup
	for range 1200 {
		watchers.Go(func() {
			ctx, cancel := context.WithCancel(as(t, "acme"))
			defer cancel()
			stream, err := f.client.Watch(ctx,
				&projectionv1.WatchRequest{View: "wallets", After: seen, MinPosition: now})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = stream.Close() }()
			message, err := stream.Receive()
			if err != nil || message.GetReset_() || len(message.GetChanges()) != 1 ||
				message.GetChanges()[0].GetKey() != "w0" {
				t.Errorf("resumed watcher: got %v, %v; want the changed row", message, err)
			}
		})
	}
	for range 20 {
		if n := consumers(t, js); n > maxConsumers {
			t.Errorf("%d consumers, want at most %d", n, maxConsumers)
		}
	}
	watchers.Wait()
}
