package aggregate_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

// fill opens wallets and deposits into each, with keys that contain the wallet and a number.
func fill(t *testing.T, client gatewayv1connect.CommandServiceClient, deposits int, wallets ...string) {
	t.Helper()
	for _, id := range wallets {
		submit(t, client, "acme", command(id, "open", id+"-open-key", map[string]any{"owner": "ada"}))
		for n := range deposits {
			submit(t, client, "acme", deposit(id, fmt.Sprintf("%s-%03d-key", id, n), 1))
		}
	}
}

func get(
	t *testing.T, client gatewayv1connect.CommandServiceClient, id string,
) (*aggregatev1.GetAggregateResponse, error) {
	t.Helper()
	return client.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id})
}

// lost makes the message with an idempotency key unreadable in the journal's files.
func lost(t *testing.T, dir, key string) {
	t.Helper()
	natstest.AlterMessage(t, dir, streams.Events, "acme/"+key)
}

// refusedAll checks that reads and commands of the aggregate return DATA_LOSS with a text.
func refusedAll(t *testing.T, client gatewayv1connect.CommandServiceClient, id, text string) {
	t.Helper()
	_, err := get(t, client, id)
	refused(t, err, connect.CodeDataLoss, text)
	_, err = client.Submit(as(t, "acme"), deposit(id, "", 1))
	refused(t, err, connect.CodeDataLoss, text)
	dry := deposit(id, "", 1)
	dry.DryRun = true
	_, err = client.Submit(as(t, "acme"), dry)
	refused(t, err, connect.CodeDataLoss, text)
}

// whole checks that the aggregate can be read and changed.
func whole(t *testing.T, client gatewayv1connect.CommandServiceClient, id string, version int64) {
	t.Helper()
	if res, err := get(t, client, id); err != nil || res.GetVersion() != version {
		t.Errorf("%s is at version %d, %v; want %d", id, res.GetVersion(), err, version)
	}
	submit(t, client, "acme", deposit(id, "", 1))
}

// TestDamage_VersionGapIsDataLoss destroys blocks of the journal's files.
func TestDamage_VersionGapIsDataLoss(t *testing.T) {
	dir := t.TempDir()
	js, stop := natstest.StartStop(t, dir)
	client := node(t, js)
	next := func() { natstest.NextBlock(t, js, "events.acme.filler.f") }
	submit(t, client, "acme", command("early", "open", "early-open-key", map[string]any{"owner": "ada"}))
	next()
	fill(t, client, 1, "middle")
	submit(t, client, "acme", deposit("early", "", 1))
	next()
	submit(t, client, "acme", deposit("middle", "middle-lost-key", 1))
	submit(t, client, "acme", deposit("middle", "", 1))
	fill(t, client, 1, "gone")
	next()
	submit(t, client, "acme", deposit("middle", "", 1))
	fill(t, client, 1, "unharmed")
	stop()
	natstest.RemoveBlock(t, dir, streams.Events, "acme/early-open-key")
	natstest.RemoveBlock(t, dir, streams.Events, "acme/middle-lost-key")
	natstest.DropIndex(t, dir, streams.Events)

	js, _ = natstest.StartStop(t, dir)
	client = node(t, js)
	refusedAll(t, client, "early", `wallet "early" cannot be read because the journal lacks its event of version 1`)
	refusedAll(t, client, "middle",
		`wallet "middle" cannot be read because the journal lacks its events of versions 3 to 4`)
	_, err := client.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "middle", Version: 4})
	refused(t, err, connect.CodeDataLoss, "versions 3 to 4")
	whole(t, client, "unharmed", 2)
	_, err = client.Submit(as(t, "acme"), deposit("middle", "middle-lost-key", 1))
	refused(t, err, connect.CodeDataLoss, "versions 3 to 4")
	res, err := client.SubmitBatch(as(t, "acme"), batch("", deposit("middle", "", 1), deposit("unharmed", "", 1)))
	if err != nil || connect.Code(res.GetResults()[0].GetError().GetCode()) != connect.CodeDataLoss ||
		res.GetResults()[1].GetResponse() == nil {
		t.Errorf("%v, %v", res, err)
	}
}

// TestDamage_UnreadableAggregateIsNotEmpty alters a message below the stream's index: the server then finds no
// message of the block by subject, and returns that there are none.
func TestDamage_UnreadableAggregateIsNotEmpty(t *testing.T) {
	var (
		client  gatewayv1connect.CommandServiceClient
		service *aggregate.Service
	)
	for tries := 0; ; tries++ {
		dir := t.TempDir()
		js, stop := natstest.StartStop(t, dir)
		fill(t, node(t, js), 3, "w", "later")
		written := lastSequence(t, js)
		stop()
		lost(t, dir, "w-001-key")
		js, _ = natstest.StartStop(t, dir)
		client, service = nodeOf(t, js, model.Wallet)
		if service.Integrity().Damage() == nil && lastSequence(t, js) == written {
			break
		}
		if tries == 10 { // the server sometimes reads its files again, and misses the rest of the block
			t.Fatal("the index is never used")
		}
	}
	found := service.Integrity().Changed()
	stopped := startIntegrity(t, service) // reads the whole journal
	natstest.Await(t, found, "the damage is found")
	stopped()
	refusedAll(t, client, "w", `wallet "w" cannot be read`)
	_, err := client.Submit(as(t, "acme"), command("w", "open", "", map[string]any{"owner": "eve"}))
	refused(t, err, connect.CodeDataLoss, `wallet "w" cannot be read`)
	if _, err := get(t, client, "absent"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("wallet without events: %v", err)
	}
	fill(t, client, 1, "new")
}

// lastSequence returns the last sequence of EVENTS.
func lastSequence(t *testing.T, js jetstream.JetStream) uint64 {
	t.Helper()
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.LastSeq
}

func TestDamage_AggregateEndingBeforeSnapshotIsDataLoss(t *testing.T) {
	dir := t.TempDir()
	js, stop := natstest.StartStop(t, dir)
	client := node(t, js)
	fill(t, client, 190, "w")
	natstest.NextBlock(t, js, "events.acme.filler.f")
	for n := range 20 {
		submit(t, client, "acme", deposit("w", fmt.Sprintf("w-lost-%02d-key", n), 1))
	}
	awaitSnapshot(t, js, "acme.wallet.w")
	natstest.NextBlock(t, js, "events.acme.filler.f")
	fill(t, client, 1, "later")
	stop()
	natstest.RemoveBlock(t, dir, streams.Events, "acme/w-lost-00-key")
	natstest.DropIndex(t, dir, streams.Events)

	js, _ = natstest.StartStop(t, dir)
	for version, source := range []model.Source{
		model.Wallet, changed(t, "the wallet is not open", "the wallet is closed"),
	} { // the snapshot's model, and another
		client, _ := nodeOf(t, js, source)
		refusedAll(t, client, "w",
			`wallet "w" cannot be read because the journal lacks its events of versions 192 to 2`)
		whole(t, client, "later", int64(2+version))
	}
}

// awaitSnapshot waits until a snapshot of the aggregate is stored.
func awaitSnapshot(t *testing.T, js jetstream.JetStream, key string) {
	t.Helper()
	wait := time.After(10 * time.Second)
	bucket, err := js.KeyValue(t.Context(), streams.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := bucket.Watch(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watcher.Stop() }()
	for {
		select {
		case entry := <-watcher.Updates():
			if entry != nil {
				return
			}
		case <-wait:
			t.Fatal("no snapshot is stored")
		}
	}
}

// TestDamage_WarmNodeDetectsTruncatedJournal makes the server lose the last events of an aggregate that a node has
// cached.
func TestDamage_WarmNodeDetectsTruncatedJournal(t *testing.T) {
	dir := t.TempDir()
	first := natstest.Server(t, &server.Options{StoreDir: dir, MaxPayload: streams.MaxMessageBytes})
	port := first.Addr().(*net.TCPAddr).Port
	js := natstest.Connect(t, first)
	client := node(t, js)
	fill(t, client, 1, "w")
	natstest.NextBlock(t, js, "events.acme.filler.f")
	submit(t, client, "acme", deposit("w", "w-lost-key", 1))
	submit(t, client, "acme", deposit("w", "", 1))
	natstest.NextBlock(t, js, "events.acme.filler.f")
	fill(t, client, 1, "later")
	first.Shutdown()
	first.WaitForShutdown()
	natstest.RemoveBlock(t, dir, streams.Events, "acme/w-lost-key")
	natstest.DropIndex(t, dir, streams.Events)

	status := js.Conn().StatusChanged(nats.CONNECTED)
	defer js.Conn().RemoveStatusListener(status)
	natstest.Server(t, &server.Options{StoreDir: dir, Port: port, MaxPayload: streams.MaxMessageBytes})
	natstest.Await(t, status, "the client reconnects")
	for range 2 {
		refusedAll(t, client, "w", `wallet "w" cannot be read because the journal lacks its events of versions 3 to 4`)
	}
	whole(t, client, "later", 2)
}

func TestDamage_CommandsAreRejectedUntilLossIsAccepted(t *testing.T) {
	dir := t.TempDir()
	js, stop := natstest.StartStop(t, dir)
	client, service := nodeOf(t, js, model.Wallet)
	fill(t, client, 3, "w", "last")
	runIntegrity(t, service) // records the end of the journal
	stop()
	lost(t, dir, "last-002-key")
	natstest.DropIndex(t, dir, streams.Events)

	js, _ = natstest.StartStop(t, dir)
	client, service = nodeOf(t, js, model.Wallet)
	other, otherService := nodeOf(t, js, model.Wallet)
	for _, client := range []gatewayv1connect.CommandServiceClient{client, other} {
		for _, id := range []string{"w", "last"} {
			if _, err := get(t, client, id); err != nil {
				t.Errorf("read: %v", err)
			}
			_, err := client.Submit(as(t, "acme"), deposit(id, "", 1))
			refused(t, err, connect.CodeDataLoss, "until an operator accepts the loss")
		}
		res, err := client.SubmitBatch(as(t, "acme"), batch("", deposit("w", "", 1)))
		if err != nil || connect.Code(res.GetResults()[0].GetError().GetCode()) != connect.CodeDataLoss {
			t.Errorf("%v, %v", res, err)
		}
	}
	following := otherService.Integrity().Changed()
	stopped := startIntegrity(t, otherService)
	if _, err := journal.AcceptLoss(
		contextkit.PlatformContext(t.Context()), js, "operator", "the disk is gone",
	); err != nil {
		t.Fatal(err)
	}
	natstest.Await(t, following, "the accepted loss is noticed")
	whole(t, other, "w", 4)
	whole(t, other, "last", 3)
	stopped()
	following = service.Integrity().Changed()
	stopped = startIntegrity(t, service)
	natstest.Await(t, following, "the accepted loss is noticed")
	stopped()
	whole(t, client, "last", 4)
}

// startIntegrity runs a service's integrity check until stop is called.
func startIntegrity(t *testing.T, service *aggregate.Service) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- service.Integrity().Run(ctx, true, zerolog.New(zerolog.NewTestWriter(t))) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// runIntegrity runs a service's integrity check once, which records the end of the journal.
func runIntegrity(t *testing.T, service *aggregate.Service) {
	t.Helper()
	startIntegrity(t, service)()
}
