package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

func walletCommand(t *testing.T, id, command, key string, payload map[string]any) *aggregatev1.SubmitRequest {
	t.Helper()
	object, err := structpb.NewStruct(payload)
	if err != nil {
		t.Fatal(err)
	}
	return &aggregatev1.SubmitRequest{
		AggregateType:  "wallet",
		AggregateId:    id,
		Command:        command,
		Payload:        object,
		IdempotencyKey: key,
	}
}

// exhausted checks that an error names the exceeded quota, in its text and in its details.
func exhausted(t *testing.T, err error, quota string, limit int64) {
	t.Helper()
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Fatalf("got %v, want resource_exhausted", err)
	}
	if text := err.Error(); !strings.Contains(text, "acme") ||
		!strings.Contains(text, fmt.Sprintf("%d %s", limit, quota)) || !strings.Contains(text, "SetStorageQuota") {
		t.Errorf("error %q, want tenant, quota and remedy", text)
	}
	var known *connect.Error
	if !errors.As(err, &known) {
		t.Fatalf("%v is not an RPC error", err)
	}
	var failure *errdetails.QuotaFailure
	var info *errdetails.ErrorInfo
	for _, detail := range known.Details() {
		value, err := connectproto.UnmarshalErrorDetail(detail)
		if err != nil {
			t.Fatal(err)
		}
		switch value := value.(type) {
		case *errdetails.QuotaFailure:
			failure = value
		case *errdetails.ErrorInfo:
			info = value
		case *errdetails.RetryInfo:
			t.Error("the error asks for a retry")
		}
	}
	if v := failure.GetViolations(); len(v) != 1 || v[0].GetSubject() != "tenant:acme" || v[0].GetQuotaId() != quota ||
		v[0].GetQuotaValue() != limit {
		t.Errorf("violations %v", v)
	}
	if info.GetReason() != "STORAGE_QUOTA" || info.GetMetadata()["quota"] != quota || info.GetMetadata()["use"] == "" {
		t.Errorf("reason %v", info)
	}
}

func TestQuota_RejectsCommandsBeyondLimit(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeWith(t, js, model.Wallet, aggregate.Config{Quota: fleet.StorageQuota{Events: 5, Aggregates: 2}})
	acme := as(t, "acme")
	submit := func(id, command, key string, payload map[string]any) (*aggregatev1.SubmitResponse, error) {
		return client.Submit(acme, walletCommand(t, id, command, key, payload))
	}
	for n, id := range []string{"a", "b"} {
		if _, err := submit(id, "open", fmt.Sprint("k", n), map[string]any{"owner": "ada"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := submit("c", "open", "k2", map[string]any{"owner": "ada"})
	exhausted(t, err, "aggregates", 2)
	for n := range 3 {
		if _, err := submit("a", "deposit", fmt.Sprint("d", n), map[string]any{"amount": 1}); err != nil {
			t.Fatal(err)
		}
	}
	_, err = submit("a", "deposit", "d3", map[string]any{"amount": 1})
	exhausted(t, err, "events", 5)

	// Reads, dry runs and repeated commands succeed.
	again, err := submit("a", "deposit", "d2", map[string]any{"amount": 1})
	if err != nil || !again.GetReplayed() {
		t.Errorf("replay of an earlier command: %v, %v", again, err)
	}
	dry := walletCommand(t, "a", "deposit", "", map[string]any{"amount": 1})
	dry.DryRun = true
	if _, err := client.Submit(acme, dry); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if got, err := client.GetAggregate(
		acme, &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "a"},
	); err != nil || got.GetVersion() != 4 {
		t.Errorf("read: %v, %v", got, err)
	}
	// Another tenant has its own quota.
	if _, err := client.Submit(
		as(t, "globex"), walletCommand(t, "a", "open", "k0", map[string]any{"owner": "ada"}),
	); err != nil {
		t.Errorf("another tenant is rejected: %v", err)
	}
	// A batch is rejected as single commands are.
	object, _ := structpb.NewStruct(map[string]any{"amount": 1})
	batch, err := client.SubmitBatch(acme, &aggregatev1.SubmitBatchRequest{Commands: []*aggregatev1.BatchCommand{
		{AggregateType: "wallet", AggregateId: "b", Command: "deposit", Payload: object},
	}})
	if err != nil || connect.Code(batch.GetResults()[0].GetError().GetCode()) != connect.CodeResourceExhausted {
		t.Errorf("batch: %v, %v", batch, err)
	}
}

func TestQuota_ConcurrentCommandsDoNotExceedLimit(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeWith(t, js, model.Wallet, aggregate.Config{Quota: fleet.StorageQuota{Aggregates: 3}})
	acme := as(t, "acme")
	var stored atomic.Int64
	var calls sync.WaitGroup
	begin := make(chan struct{})
	for n := range 64 {
		calls.Go(func() {
			<-begin
			_, err := client.Submit(acme,
				walletCommand(t, fmt.Sprint("w", n), "open", fmt.Sprint("k", n), map[string]any{"owner": "ada"}))
			switch {
			case err == nil:
				stored.Add(1)
			case connect.CodeOf(err) != connect.CodeResourceExhausted:
				t.Errorf("got %v", err)
			}
		})
	}
	close(begin)
	calls.Wait()
	if n := stored.Load(); n != 3 {
		t.Errorf("%d of 64 concurrent commands created an aggregate, want 3", n)
	}
}

// TestQuota_OnlyPlatformUsesReserve checks that the reserve depends on the caller, with any idempotency keys.
func TestQuota_OnlyPlatformUsesReserve(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeWith(t, js, model.Wallet, aggregate.Config{Quota: fleet.StorageQuota{Events: 20}})
	acme := as(t, "acme")
	for n := range 20 {
		if _, err := client.Submit(
			acme, walletCommand(t, fmt.Sprint("w", n), "open", fmt.Sprint("k", n), map[string]any{"owner": "ada"}),
		); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"workflow:e:transfer:take", "workflow:", "WORKFLOW:x", ""} {
		_, err := client.Submit(acme, walletCommand(t, "w0", "deposit", key, map[string]any{"amount": 1}))
		exhausted(t, err, "events", 20)
		_, err = client.Submit(platform(acme, "true"),
			walletCommand(t, "w0", "deposit", key, map[string]any{"amount": 1}))
		exhausted(t, err, "events", 20)
	}
	object, _ := structpb.NewStruct(map[string]any{"amount": 1})
	batch := func(ctx context.Context, keys ...string) (codes []connect.Code) {
		t.Helper()
		req := &aggregatev1.SubmitBatchRequest{}
		for n, key := range keys {
			req.Commands = append(req.Commands, &aggregatev1.BatchCommand{
				AggregateType:  "wallet",
				AggregateId:    fmt.Sprint("w", n),
				Command:        "deposit",
				Payload:        object,
				IdempotencyKey: key,
			})
		}
		res, err := client.SubmitBatch(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range res.GetResults() {
			codes = append(codes, connect.Code(result.GetError().GetCode()))
		}
		return codes
	}
	refused := []connect.Code{connect.CodeResourceExhausted, connect.CodeResourceExhausted}
	if codes := batch(acme, "workflow:a", "b"); !slices.Equal(codes, refused) {
		t.Errorf("batch of a client: %v", codes)
	}
	// The platform may store one event in twenty more, with any key; a batch is limited like a single command.
	codes := batch(platform(acme, "1"), "a", "workflow:b")
	slices.Sort(codes)
	if !slices.Equal(codes, []connect.Code{0, connect.CodeResourceExhausted}) {
		t.Errorf("batch of the platform: %v, want one success and one rejection", codes)
	}
	_, err := client.Submit(platform(acme, "1"),
		walletCommand(t, "w5", "deposit", "workflow:c", map[string]any{"amount": 1}))
	exhausted(t, err, "events", 20)
}

// platform returns the context of a call whose caller the gateway states to be the platform.
func platform(ctx context.Context, value string) context.Context {
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set(contextkit.HeaderPlatform, value)
	return ctx
}

// TestQuota_CancelledCommandsAreCounted checks that callers which cancel while their events are being stored cannot
// exceed their quota.
func TestQuota_CancelledCommandsAreCounted(t *testing.T) {
	const quota, most = 20, 100
	js := natstest.StartSynced(t) // delays its acknowledgements
	for name, config := range map[string]aggregate.Config{"acme": {}, "globex": {Synced: true}} {
		t.Run(name, func(t *testing.T) {
			config.Quota = fleet.StorageQuota{Events: quota}
			client, _ := nodeWith(t, js, model.Wallet, config)
			tenant := as(t, name)
			published := make(chan *nats.Msg, most)
			if _, err := js.Conn().ChanSubscribe("events."+name+".>", published); err != nil {
				t.Fatal(err)
			}
			cancelled, refused := 0, false
			for n := 0; n < most && !refused; n++ {
				ctx, cancel := context.WithCancel(tenant)
				done := make(chan error, 1)
				go func() {
					_, err := client.Submit(ctx,
						walletCommand(t, fmt.Sprint("w", n), "open", "", map[string]any{"owner": "ada"}))
					done <- err
				}()
				select {
				case <-published:
					cancel()
					if <-done != nil {
						cancelled++
					}
				case err := <-done:
					if refused = connect.CodeOf(err) == connect.CodeResourceExhausted; !refused && err != nil {
						t.Fatal(err)
					}
				}
				cancel()
			}
			stream, err := js.Stream(t.Context(), streams.Events)
			if err != nil {
				t.Fatal(err)
			}
			info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("events."+name+".>"))
			if err != nil {
				t.Fatal(err)
			}
			stored := uint64(0)
			for _, messages := range info.State.Subjects {
				stored += messages
			}
			if stored != quota || !refused {
				t.Errorf("%d events stored, quota %d; %d calls canceled", stored, quota, cancelled)
			}
		})
	}
}
