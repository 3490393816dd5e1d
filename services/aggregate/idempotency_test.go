package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// deposits submits commands under the keys d-first to d-last in batches.
func deposits(t *testing.T, client gatewayv1connect.CommandServiceClient, id string, first, last int) {
	t.Helper()
	for ; first <= last; first += 100 {
		req := &aggregatev1.SubmitBatchRequest{}
		for n := first; n <= min(last, first+99); n++ {
			one := deposit(id, fmt.Sprintf("d-%d", n), 1)
			req.Commands = append(req.Commands, &aggregatev1.BatchCommand{
				AggregateType:  one.GetAggregateType(),
				AggregateId:    id,
				Command:        one.GetCommand(),
				Payload:        one.GetPayload(),
				IdempotencyKey: one.GetIdempotencyKey(),
			})
		}
		res, err := client.SubmitBatch(as(t, "acme"), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res.GetResults() {
			if r.GetError() != nil {
				t.Fatal(r.GetError())
			}
		}
	}
}

// records returns the names of the idempotency bucket's records.
func records(t *testing.T, js jetstream.JetStream) []string {
	t.Helper()
	bucket, err := js.KeyValue(t.Context(), streams.BucketIdempotency)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := bucket.Keys(t.Context())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		t.Fatal(err)
	}
	slices.Sort(keys)
	return keys
}

func TestIdempotency_KeysOfThousandsOfCommandsAreFound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client sends thousands of commands")
	}
	js := natstest.Start(t)
	warm := node(t, js)
	submit(t, warm, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	// A block index has 64 blocks of 64 answers; it is created once there are 64 blocks more.
	const commands = 128 + 64*(3*64) + 200
	deposits(t, warm, "w", 1, commands)
	indexes := []string{"acme.wallet.w.2-4096", "acme.wallet.w.4098-4096"}
	var stored []string
	for deadline := time.Now().Add(20 * time.Second); ; {
		submit(t, warm, "acme", deposit("w", "", 1)) // sends pending records
		stored = slices.DeleteFunc(records(t, js), func(name string) bool { return !strings.HasSuffix(name, "-4096") })
		if slices.Equal(stored, indexes) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("block indexes %q, want %q", stored, indexes)
		}
	}
	deposits(t, warm, "w", commands+1, commands+400) // two more snapshots, which contain the block indexes
	snapshots, err := js.KeyValue(t.Context(), streams.BucketSnapshots)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		entry, err := snapshots.Get(t.Context(), "acme.wallet.w")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(entry.Value()), `"chapters":[2,4098]`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no snapshot contains the block indexes")
		}
	}
	cold, service := nodeOf(t, js, model.Wallet)
	for name, client := range map[string]gatewayv1connect.CommandServiceClient{
		"the node": warm, "restarted node": cold,
	} {
		for _, n := range []int{1, 64, 65, 4096, 4097, 8192, 8193, 8500, commands - 128, commands - 127, commands} {
			again := submit(t, client, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
			if !again.GetReplayed() || again.GetVersion() != int64(n+1) {
				t.Errorf("%s: answer of d-%d is %v, want version %d again", name, n, again, n+1)
			}
		}
		_, err := client.Submit(as(t, "acme"), deposit("w", "d-5000", 2))
		refused(t, err, connect.CodeAlreadyExists, "used for another command")
		if submit(t, client, "acme", deposit("w", fmt.Sprintf("new-%d", len(name)), 1)).GetReplayed() {
			t.Errorf("%s found an answer for a new key", name)
		}
	}
	if n := loaded(t, service); n > 1000 {
		t.Errorf("%v events read in addition to the snapshot", n)
	}

	// A node with another model revision folds all events, and writes the same records.
	stream, err := js.Stream(t.Context(), "KV_"+streams.BucketIdempotency)
	if err != nil {
		t.Fatal(err)
	}
	before := records(t, js)
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	doubled := changed(t, "balance: state.balance + event.amount", "balance: state.balance + 2 * event.amount")
	other, service := nodeOf(t, js, doubled)
	for _, n := range []int{1, 4096, 8193, commands} {
		if again := submit(t, other, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1)); !again.GetReplayed() ||
			again.GetVersion() != int64(n+1) {
			t.Errorf("node with another model: answer of d-%d is %v, want version %d again", n, again, n+1)
		}
	}
	if n := loaded(t, service); n < commands {
		t.Errorf("%v events folded by another model", n)
	}
	for deadline := time.Now().Add(20 * time.Second); !slices.Equal(records(t, js), before); {
		submit(t, other, "acme", deposit("w", "", 1))
		if time.Now().After(deadline) {
			t.Fatalf("records after folding: %q, want %q", records(t, js), before)
		}
	}

	// After expiry the key is free (JetStream itself has only seen the first key of each batch), and commands
	// succeed.
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, _ := nodeOf(t, js, doubled) // has its snapshot
	if again := submit(t, last, "acme", deposit("w", "d-2", 1)); again.GetReplayed() {
		t.Error("an expired key was found")
	}
}

func TestIdempotency_EventsOlderThanTheTTLMakeNoRecords(t *testing.T) {
	js := natstest.Start(t)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme, old := natstest.Tenant(t, "acme"), time.Now().Add(-streams.IdempotencyTTL-time.Hour)
	events := []journal.Event{
		{
			ID:            contextkit.NewID(),
			Type:          "opened",
			AggregateType: "wallet",
			AggregateID:   "w",
			Version:       1,
			Time:          old,
			Data:          []byte(`{"owner":"ada"}`),
		},
	}
	for n := range 400 {
		events = append(events, journal.Event{
			ID:            contextkit.NewID(),
			Type:          "deposited",
			AggregateType: "wallet",
			AggregateID:   "w",
			Version:       int64(n + 2),
			Time:          old,
			Data:          []byte(`{"amount":1}`),
			Command:       journal.CommandRef{IdempotencyKey: fmt.Sprintf("d-%d", n), Fingerprint: "f"},
		})
	}
	if err := eventLog.Append(as(t, "acme"), acme, 0, events); err != nil {
		t.Fatal(err)
	}
	client := node(t, js)
	// The 128 newest answers precede the first command of today.
	deposits(t, client, "w", 1001, 1000+64+1)
	for deadline := time.Now().Add(20 * time.Second); len(records(t, js)) == 0; {
		submit(t, client, "acme", deposit("w", "", 1))
		if time.Now().After(deadline) {
			t.Fatal("no record is stored")
		}
	}
	// Sequence 1 opens; the 128 newest old ones begin at 1+400-128+1.
	if got, want := records(t, js), []string{"acme.wallet.w.274-64"}; !slices.Equal(got, want) {
		t.Errorf("records %q, want %q", got, want)
	}
}

func TestSubmit_WaitsForTheIdempotencyBacklog(t *testing.T) {
	t.Parallel()
	js := natstest.Start(t)
	client := node(t, js)
	submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	if err := js.DeleteKeyValue(t.Context(), streams.BucketIdempotency); err != nil {
		t.Fatal(err)
	}
	var err error
	accepted := 0
	for ; err == nil && accepted < 1000; accepted++ {
		_, err = client.Submit(as(t, "acme"), deposit("w", fmt.Sprintf("d-%d", accepted), 1))
	}
	refused(t, err, connect.CodeUnavailable, "is unavailable")
	accepted--
	// The 128 newest answers are in the events, and some blocks in the aggregate's log.
	if least, most := 128+5*64, 128+6*64; accepted < least || accepted > most {
		t.Errorf("%d commands accepted without a record, want %d to %d", accepted, least, most)
	}
	if err := setup.Ensure(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for again := true; again; {
		_, err := client.Submit(as(t, "acme"), deposit("w", "last", 1))
		if again = err != nil; again && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	for _, n := range []int{0, 63, 64, accepted - 1} {
		if again := submit(t, client, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1)); !again.GetReplayed() ||
			again.GetVersion() != int64(n+2) {
			t.Errorf("answer of d-%d is %v, want version %d again", n, again, n+2)
		}
	}
	for got := records(t, js); len(got) < 5; got = records(t, js) {
		if time.Now().After(deadline) {
			t.Fatalf("records %q, want at least 5", got)
		}
	}
}

func TestSubmit_NodeBehindReplaysOtherNodesAnswers(t *testing.T) {
	js := natstest.Start(t)
	behind, other := node(t, js), node(t, js)
	submit(t, behind, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	both := &aggregatev1.SubmitBatchRequest{}
	for _, c := range []*aggregatev1.SubmitRequest{
		deposit("w", "in", 100), command("w", "withdraw", "out", map[string]any{"amount": 50}),
	} {
		both.Commands = append(both.Commands, &aggregatev1.BatchCommand{
			AggregateType:  "wallet",
			AggregateId:    "w",
			Command:        c.GetCommand(),
			Payload:        c.GetPayload(),
			IdempotencyKey: c.GetIdempotencyKey(),
		})
	}
	if res, err := other.SubmitBatch(as(t, "acme"), both); err != nil || outcomes(res) != "v2, v3" {
		t.Fatalf("%v, %v", outcomes(res), err)
	}
	// By its cached state the wallet is empty: it would reject the command, so it must catch up and decide again.
	again := submit(t, behind, "acme", command("w", "withdraw", "out", map[string]any{"amount": 50}))
	if !again.GetReplayed() || again.GetVersion() != 3 {
		t.Errorf("the withdrawal took effect twice: %v", again)
	}
	deposits(t, other, "w", 1, 10)
	dry := deposit("w", "", 5)
	dry.DryRun = true
	if res := submit(t, behind, "acme", dry); res.GetVersion() != 14 {
		t.Errorf("dry run was decided on version %d, want the newest, 13", res.GetVersion()-1)
	}
}

func TestCatchUp_FoldedEventsAreNotFoldedAgain(t *testing.T) {
	js := natstest.Start(t)
	submit(t, node(t, js), "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	const events = 5000
	deposits(t, node(t, js), "w", 2, events)
	w := &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"}
	for n := range 50 { // until a call is cut off while it folds
		source := changed(t, "balance: 0", fmt.Sprintf("balance: %d", n+1)) // no snapshot is of this model
		client, service := nodeOf(t, js, source)
		ctx, cut := context.WithCancel(as(t, "acme"))
		done := make(chan error, 1)
		go func() {
			_, err := client.GetAggregate(ctx, w)
			done <- err
		}()
		for loaded(t, service) == 0 {
		}
		cut()
		err := natstest.Await(t, done, "the read ends")
		folded := loaded(t, service)
		res, again := client.GetAggregate(as(t, "acme"), w)
		if again != nil || res.GetVersion() != events || loaded(t, service) != events {
			t.Fatalf("after %v (%v events): version %d after %v events, %v; want %d", err, folded, res.GetVersion(),
				loaded(t, service), again, events)
		}
		if err != nil && folded < events {
			return
		}
	}
	t.Error("no call was canceled")
}
