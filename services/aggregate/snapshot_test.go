package aggregate_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

// changed returns the wallet model with texts replaced, in pairs.
func changed(t *testing.T, pairs ...string) model.Source {
	t.Helper()
	return func(ctx context.Context) (string, []byte, error) {
		name, source, err := model.Wallet(ctx)
		text := string(source)
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Errorf("the model has no %q", pairs[i])
			}
			text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
		}
		return name, []byte(text), err
	}
}

// loaded returns the number of events that the service has read.
func loaded(t *testing.T, service *aggregate.Service) float64 {
	t.Helper()
	return measured(t, service, "headgate_aggregate_events_loaded_total").GetCounter().GetValue()
}

// measured returns one of the service's metrics.
func measured(t *testing.T, service *aggregate.Service, name string) *dto.Metric {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(service)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0]
		}
	}
	t.Fatalf("missing %s", name)
	return nil
}

func TestSnapshot_ColdNodeReadsSnapshotAndLaterEvents(t *testing.T) {
	js := natstest.Start(t)
	warm := node(t, js)
	submit(t, warm, "acme", command("w", "open", "first", map[string]any{"owner": "ada"}))
	for n := range 249 {
		submit(t, warm, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
	}
	bucket, err := js.KeyValue(t.Context(), streams.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, err := bucket.Get(
		t.Context(), "acme.wallet.w",
	); err != nil; _, err = bucket.Get(t.Context(), "acme.wallet.w") {
		if time.Now().After(deadline) {
			t.Fatalf("no snapshot is stored: %v", err)
		}
	}
	kept, err := js.Stream(t.Context(), "KV_"+streams.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	if msg, err := kept.GetLastMsgForSubject(t.Context(), "$KV.snapshots.acme.wallet.w"); err != nil ||
		msg.Header.Get("tenant-id") != "acme" || msg.Header.Get("traceparent") == "" {
		t.Errorf("headers of the snapshot: %v, %v; want the context headers", msg.Header, err)
	}
	w := &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"}
	cold, service := nodeOf(t, js, model.Wallet)
	if res, err := cold.GetAggregate(as(t, "acme"), w); err != nil || res.GetVersion() != 250 ||
		res.GetState().AsMap()["balance"] != 249.0 {
		t.Fatalf("%v, %v", res, err)
	}
	if n := loaded(t, service); n != 50 {
		t.Errorf("%v events read, want the 50 after the snapshot at 200", n)
	}
	if again := submit(t, cold, "acme", deposit("w", "d-150", 1)); !again.GetReplayed() {
		t.Error("the answer of a key before the snapshot was lost")
	}
	if res, err := cold.GetAggregate(
		as(t, "acme"), &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w", Version: 3},
	); err != nil || res.GetState().AsMap()["balance"] != 2.0 {
		t.Errorf("at a version before the snapshot: %v, %v", res, err)
	}
	other, service := nodeOf(t, js,
		changed(t, "balance: state.balance + event.amount", "balance: state.balance + 2 * event.amount"))
	if res, err := other.GetAggregate(as(t, "acme"), w); err != nil || res.GetState().AsMap()["balance"] != 498.0 ||
		loaded(t, service) != 250 {
		t.Errorf("under another model: %v after %v events, %v", res, loaded(t, service), err)
	}
	// A node that folds this many events stores a snapshot.
	snapshotAfter := func(revision uint64) jetstream.KeyValueEntry {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if entry, err := bucket.Get(t.Context(), "acme.wallet.w"); err == nil && entry.Revision() > revision {
				return entry
			}
		}
		t.Fatalf("no snapshot is stored after revision %d", revision)
		return nil
	}
	entry := snapshotAfter(1)
	with := func(pages string) string {
		return strings.TrimSuffix(string(entry.Value()), "}") + `,"pages":` + pages +
			`}` // JSON: the last of two equal members counts
	}
	for name, broken := range map[string]string{
		"that is not JSON":                  "{",
		"whose hashes are cut short":        with(`[{"first":2,"hashes":"AAAAAAA=","answers":{}}]`),
		"whose open block lost its answers": with(`[{"first":2,"hashes":"AAAAAA==","answers":null}]`),
	} {
		revision, err := bucket.Put(t.Context(), "acme.wallet.w", []byte(broken))
		if err != nil {
			t.Fatal(err)
		}
		cold, service := nodeOf(t, js, model.Wallet)
		if res, err := cold.GetAggregate(as(t, "acme"), w); err != nil || res.GetVersion() != 250 ||
			loaded(t, service) != 250 {
			t.Errorf("with a snapshot %s: %v after %v events, %v", name, res, loaded(t, service), err)
		}
		snapshotAfter(revision)
	}
}

func TestUpcast_OldEventsFoldUnderNewModel(t *testing.T) {
	js := natstest.Start(t)
	old := node(t, js)
	submit(t, old, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	submit(t, old, "acme", deposit("w", "key", 100))
	// The new model counts in thousandths and has changed the event type twice.
	renewed, _ := nodeOf(t, js, changed(t,
		"    evolve:\n      opened: {owner: event.owner, balance: 0}\n      deposited: {balance: state.balance + "+
			"event.amount}\n",
		"    events:\n      deposited:\n        version: 3\n        upcasts:\n        - {from: 1, set: {cents: "+
			"event.amount}, drop: [amount]}\n        - {from: 2, set: {mills: event.cents * 10}, drop: [cents]}\n"+
			"    evolve:\n      opened: {owner: event.owner, balance: 0}\n      deposited: {balance: state.balance + "+
			"event.mills}\n",
		"          - event: deposited\n            data: &moved\n              amount: cmd.amount\n              "+
			"reference: \"has(cmd.reference) ? cmd.reference : ''\"\n",
		"          - event: deposited\n            data: {mills: cmd.amount * 10}\n",
		"data: *moved", "data: {amount: cmd.amount}",
		"kind: \"'deposit'\", amount: event.amount, reference: event.reference",
		"kind: \"'deposit'\", amount: event.mills, reference: \"''\""))
	res, err := renewed.Submit(as(t, "acme"), deposit("w", "", 5))
	if err != nil || res.GetEvents()[0].GetData().AsMap()["mills"] != 50.0 {
		t.Fatalf("%v, %v", res, err)
	}
	got, err := renewed.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"})
	if err != nil || got.GetState().AsMap()["balance"] != 1050.0 {
		t.Errorf("%v, %v; want the old deposit of 100 and the new one of 5 in thousandths", got, err)
	}
	if again := submit(t, renewed, "acme", deposit("w", "key", 100)); !again.GetReplayed() ||
		again.GetEvents()[0].GetData().AsMap()["mills"] != 1000.0 {
		t.Errorf("old command sent again: %v", again)
	}
}

func TestSubmit_UnfoldableEventIsNotAppended(t *testing.T) {
	js := natstest.Start(t)
	// The second deposit overflows an integer.
	client, _ := nodeOf(
		t, js,
		changed(t, "deposited: {balance: state.balance + event.amount}",
			"deposited: {balance: state.balance + event.amount * 4611686018427387904}"),
	)
	submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	submit(t, client, "acme", deposit("w", "one", 1))
	_, err := client.Submit(as(t, "acme"), deposit("w", "two", 1))
	refused(t, err, connect.CodeFailedPrecondition, "integer overflow")
	dry := deposit("w", "", 1)
	dry.DryRun = true
	_, err = client.Submit(as(t, "acme"), dry)
	refused(t, err, connect.CodeFailedPrecondition, "integer overflow")
	res, err := client.SubmitBatch(as(t, "acme"),
		batch("b", deposit("w", "", 1), command("w", "withdraw", "", map[string]any{"amount": 5})))
	if err != nil || outcomes(res) != "failed_precondition, aborted" {
		t.Errorf("batch: %s, %v", outcomes(res), err)
	}
	// The aggregate continues, also on a node that folds it from its events.
	cold, _ := nodeOf(t, js, model.Wallet)
	for name, client := range map[string]gatewayv1connect.CommandServiceClient{"the node": client, "another": cold} {
		got, err := client.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"})
		if err != nil || got.GetVersion() != 2 {
			t.Errorf("%s: %v, %v, want version 2", name, got, err)
		}
	}
	if v := submit(
		t, client, "acme", command("w", "withdraw", "", map[string]any{"amount": 1 << 20}),
	).GetVersion(); v != 3 {
		t.Errorf("version after the next command is %d, want 3", v)
	}
}

func TestState_ConcurrentModelChangeDoesNotMixRevisions(t *testing.T) {
	js := natstest.Start(t)
	var doubled atomic.Bool
	twice := changed(t, "deposited: {balance: state.balance + event.amount}",
		"deposited: {balance: state.balance + 2 * event.amount}")
	models, err := model.Open(t.Context(), func(ctx context.Context) (string, []byte, error) {
		if doubled.Load() {
			return twice(ctx)
		}
		return model.Wallet(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	client, _ := nodeOver(t, js, models, aggregate.Config{})
	submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	// The model changes continuously, between any two steps of a command.
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			doubled.Store(!doubled.Load())
			if _, err := models.Reload(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	const deposited = 300
	deposits(t, client, "w", 1, deposited/2)
	for n := range deposited / 2 {
		submit(t, client, "acme", deposit("w", fmt.Sprintf("one-%d", n), 1))
	}
	close(stop)
	changing.Wait()
	for n := range 10 {
		doubled.Store(n%2 == 0)
		if _, err := models.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := float64(deposited)
		if doubled.Load() {
			want *= 2
		}
		got, err := client.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"})
		if err != nil || got.GetState().AsMap()["balance"] != want {
			t.Errorf("balance %v, %v; want %v", got.GetState(), err, want)
		}
	}
}
