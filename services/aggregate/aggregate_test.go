package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectinprocess"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

func TestMain(m *testing.M) { natstest.Main(m) }

// node starts a service over NATS and returns its client.
func node(t *testing.T, js jetstream.JetStream) gatewayv1connect.CommandServiceClient {
	t.Helper()
	client, _ := nodeOf(t, js, model.Wallet)
	return client
}

// nodeOf is node with a model. It returns the service too.
func nodeOf(
	t *testing.T, js jetstream.JetStream, source model.Source,
) (gatewayv1connect.CommandServiceClient, *aggregate.Service) {
	t.Helper()
	return nodeWith(t, js, source, aggregate.Config{})
}

func nodeWith(
	t *testing.T, js jetstream.JetStream, source model.Source, config aggregate.Config,
) (gatewayv1connect.CommandServiceClient, *aggregate.Service) {
	t.Helper()
	models, err := model.Open(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	return nodeOver(t, js, models, config)
}

// nodeOver is nodeWith over models that the test changes.
func nodeOver(
	t *testing.T, js jetstream.JetStream, models *model.Registry, config aggregate.Config,
) (gatewayv1connect.CommandServiceClient, *aggregate.Service) {
	t.Helper()
	tenants, err := rpc.ParseTenants([]string{"acme", "globex"})
	if err != nil {
		t.Fatal(err)
	}
	service, err := aggregate.New(t.Context(), config, js, models, tenants, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := connect.NewServer(contextkit.ServerInterceptor, rpc.Validate)
	service.Register(server)
	return gatewayv1connect.NewCommandServiceClient(contextkit.NewClient(connectinprocess.New(server))), service
}

func as(t *testing.T, tenant string) context.Context {
	return contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant))
}

func command(id, name, key string, payload map[string]any) *aggregatev1.SubmitRequest {
	object, err := structpb.NewStruct(payload)
	if err != nil {
		panic(err)
	}
	return &aggregatev1.SubmitRequest{
		AggregateType:  "wallet",
		AggregateId:    id,
		Command:        name,
		IdempotencyKey: key,
		Payload:        object,
	}
}

func deposit(id, key string, amount int) *aggregatev1.SubmitRequest {
	return command(id, "deposit", key, map[string]any{"amount": amount})
}

func submit(
	t *testing.T, client gatewayv1connect.CommandServiceClient, tenant string, req *aggregatev1.SubmitRequest,
) *aggregatev1.SubmitResponse {
	t.Helper()
	res, err := client.Submit(as(t, tenant), req)
	if err != nil {
		t.Fatalf("%s of %s: %v", req.GetCommand(), req.GetAggregateId(), err)
	}
	return res
}

func refused(t *testing.T, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("err = %v, want %v with %q", err, code, text)
	}
}

func TestSubmit_AppendsEventsOrIsRejectedWithReason(t *testing.T) {
	client := node(t, natstest.Start(t))
	opened := submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	if opened.GetVersion() != 1 || opened.GetPosition() == "" || opened.GetEvents()[0].GetType() != "opened" ||
		opened.GetEvents()[0].GetData().AsMap()["owner"] != "ada" {
		t.Fatalf("opened: %v", opened)
	}
	expect := func(version int64) *int64 { return &version }
	cases := []struct {
		name   string
		tenant string
		change func(*aggregatev1.SubmitRequest)
		code   connect.Code
		text   string
	}{
		{
			"rule", "acme", func(r *aggregatev1.SubmitRequest) { r.Command = "withdraw" },
			connect.CodeFailedPrecondition, "the balance does not cover the amount",
		},
		{
			"schema", "acme", func(r *aggregatev1.SubmitRequest) { r.Payload = nil }, connect.CodeInvalidArgument,
			"missing property 'amount'",
		},
		{
			"validation", "acme", func(r *aggregatev1.SubmitRequest) { r.AggregateId = "a.b" },
			connect.CodeInvalidArgument, "aggregate_id",
		},
		{
			"unknown aggregate", "acme", func(r *aggregatev1.SubmitRequest) { r.AggregateType = "purse" },
			connect.CodeNotFound, "has no aggregate",
		},
		{
			"unknown command", "acme", func(r *aggregatev1.SubmitRequest) { r.Command = "burn" }, connect.CodeNotFound,
			"no command",
		},
		{
			"wrong version", "acme", func(r *aggregatev1.SubmitRequest) { r.ExpectedVersion = expect(7) },
			connect.CodeAborted, "at version 1, expected version is 7",
		},
		{
			"must not exist", "acme", func(r *aggregatev1.SubmitRequest) { r.ExpectedVersion = expect(0) },
			connect.CodeAborted, "expected version is 0",
		},
		{
			"another tenant's wallet", "globex", func(*aggregatev1.SubmitRequest) {}, connect.CodeFailedPrecondition,
			"the wallet is not open",
		},
		{
			"tenant in the message", "acme", func(r *aggregatev1.SubmitRequest) { r.TenantId = "globex" },
			connect.CodePermissionDenied, "tenant_id",
		},
		{"tenant not served", "initech", func(*aggregatev1.SubmitRequest) {}, connect.CodeNotFound, "not served here"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			req := deposit("w", "", 5)
			tc.change(req)
			_, err := client.Submit(as(t, tc.tenant), req)
			refused(t, err, tc.code, tc.text)
		})
	}
	t.Run("details contain the current version", func(t *testing.T) {
		req := deposit("w", "", 5)
		req.ExpectedVersion = expect(9)
		_, err := client.Submit(as(t, "acme"), req)
		var known *connect.Error
		if !errors.As(err, &known) || len(known.Details()) != 1 {
			t.Fatalf("err = %v", err)
		}
		detail, err := connectproto.UnmarshalErrorDetail(known.Details()[0])
		if info, ok := detail.(*errdetails.ErrorInfo); err != nil || !ok || info.GetReason() != "VERSION_MISMATCH" ||
			info.GetMetadata()["current_version"] != "1" {
			t.Fatalf("detail = %v, %v", detail, err)
		}
	})
	if got := submit(t, client, "acme", deposit("w", "", 5)); got.GetVersion() != 2 {
		t.Fatalf("version after the rejections is %d, want 2", got.GetVersion())
	}
}

func TestSubmit_RepeatedKeyReturnsStoredAnswer(t *testing.T) {
	js := natstest.Start(t)
	first, second := node(t, js), node(t, js)
	submit(t, first, "acme", command("w", "open", "open", map[string]any{"owner": "ada"}))
	submit(t, first, "acme", command("v", "open", "open-v", map[string]any{"owner": "bob"}))
	original := submit(t, first, "acme", deposit("w", "key", 5))
	for name, client := range map[string]gatewayv1connect.CommandServiceClient{
		"same node": first, "another node": second, "restarted node": node(t, js),
	} {
		again := submit(t, client, "acme", deposit("w", "key", 5))
		if !again.GetReplayed() || again.GetVersion() != 2 || again.GetPosition() != original.GetPosition() ||
			again.GetEvents()[0].GetId() != original.GetEvents()[0].GetId() {
			t.Errorf("%s: got %v, want the first answer %v", name, again, original)
		}
	}
	_, err := second.Submit(as(t, "acme"), deposit("w", "key", 6))
	refused(t, err, connect.CodeAlreadyExists, "used for another command")
	_, err = second.Submit(as(t, "acme"), deposit("v", "key", 5))
	refused(t, err, connect.CodeAlreadyExists, "used for another command")
	if other := submit(
		t, first, "globex", command("w", "open", "key", map[string]any{"owner": "eve"}),
	); other.GetReplayed() {
		t.Error("the key of another tenant was found")
	}
	t.Run("a rejected command does not consume its key", func(t *testing.T) {
		_, err := first.Submit(as(t, "acme"), command("w", "withdraw", "later", map[string]any{"amount": 50}))
		refused(t, err, connect.CodeFailedPrecondition, "does not cover")
		submit(t, first, "acme", deposit("w", "", 100))
		if res := submit(
			t, first, "acme", command("w", "withdraw", "later", map[string]any{"amount": 50}),
		); res.GetReplayed() {
			t.Error("the rejection was stored as an answer")
		}
	})
	t.Run("a key survives the loss of the answer records", func(t *testing.T) {
		if err := js.DeleteKeyValue(t.Context(), streams.BucketIdempotency); err != nil {
			t.Fatal(err)
		}
		if err := setup.Ensure(t.Context(), js, 1); err != nil {
			t.Fatal(err)
		}
		if again := submit(t, node(t, js), "acme", deposit("w", "key", 5)); !again.GetReplayed() ||
			again.GetVersion() != 2 {
			t.Errorf("got %v", again)
		}
	})
}

func TestSubmit_ConcurrentNodesLoseNoCommand(t *testing.T) {
	js := natstest.Start(t)
	nodes := []gatewayv1connect.CommandServiceClient{node(t, js), node(t, js), node(t, js)}
	submit(t, nodes[0], "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	const each = 40
	var group errgroup.Group
	for n, client := range nodes {
		for i := range each {
			group.Go(func() error {
				req := deposit("w", fmt.Sprintf("%d-%d", n, i), 1)
				for {
					_, err := client.Submit(as(t, "acme"), req)
					if connect.CodeOf(err) != connect.CodeAborted || err == nil {
						return err
					}
				}
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for n, client := range nodes {
		res, err := client.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"})
		if err != nil || res.GetState().AsMap()["balance"] != float64(3*each) || res.GetVersion() != 3*each+1 {
			t.Errorf("node %d: got %v, %v; want a balance of %d", n, res, err, 3*each)
		}
	}
}

func TestSubmit_StoresContextAndCloudEventsHeaders(t *testing.T) {
	js := natstest.Start(t)
	client := node(t, js)
	tp, err := contextkit.ParseTraceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	if err != nil {
		t.Fatal(err)
	}
	ctx, info := connect.NewClientContext(contextkit.NewContext(t.Context(), contextkit.RequestContext{
		TenantID:      natstest.Tenant(t, "acme"),
		CorrelationID: "corr-1",
		RequestID:     "req-1",
		CausationID:   "cause-1",
		Traceparent:   tp,
		TraceID:       tp.TraceID,
		Tracestate:    "vendor=1",
	}))
	info.RequestHeader().Set(contextkit.HeaderPrincipal, "key:ops")
	res, err := client.Submit(ctx, command("w", "open", "key-1", map[string]any{"owner": "ada"}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x-correlation-id": "corr-1", "x-request-id": "req-1", "trace-id": tp.TraceID.String(),
	} {
		if got := info.ResponseHeader().Get(name); got != want {
			t.Errorf("response header %s = %q, want %q", name, got, want)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), "events.acme.wallet.w")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tenant-id": "acme", "x-correlation-id": "corr-1", "correlation-id": "corr-1", "x-request-id": "req-1",
		"causation-id": "cause-1",
		"tracestate":   "vendor=1", "trace-id": tp.TraceID.String(),
		"ce-specversion": "1.0", "ce-id": res.GetEvents()[0].GetId(), "ce-source": "/tenants/acme/wallet/w",
		"ce-type":      "opened",
		"content-type": "application/json", "ce-aggregateversion": "1", "ce-idempotencykey": "key-1",
		"ce-principal": "key:ops",
	} {
		if got := msg.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("journal header %s = %q, want %q", name, got, want)
		}
	}
	if got := msg.Header.Get("traceparent"); !strings.HasPrefix(got, tp.String()[:36]) ||
		strings.Contains(got, tp.String()[36:52]) {
		t.Errorf("traceparent in the journal: %s, want the trace of %s with a new parent id", got, tp)
	}
	if string(msg.Data) != `{"owner":"ada"}` {
		t.Errorf("unexpected journal header %s", msg.Data)
	}
}

func TestSubmit_DryRunAppendsNothing(t *testing.T) {
	client := node(t, natstest.Start(t))
	submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	req := deposit("w", "key", 5)
	req.DryRun = true
	res := submit(t, client, "acme", req)
	if len(res.GetEvents()) != 1 || res.GetVersion() != 2 || res.GetPosition() != "" {
		t.Fatalf("dry run: %v", res)
	}
	req.DryRun = false
	if res := submit(t, client, "acme", req); res.GetReplayed() || res.GetVersion() != 2 {
		t.Fatalf("after the dry run: %v", res)
	}
}

func TestGetAggregate_ReturnsStateAtVersion(t *testing.T) {
	client := node(t, natstest.Start(t))
	submit(t, client, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	submit(t, client, "acme", deposit("w", "", 5))
	submit(t, client, "acme", deposit("w", "", 7))
	read := func(id string, version int64) (*aggregatev1.GetAggregateResponse, error) {
		return client.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id, Version: version})
	}
	for version, balance := range map[int64]float64{0: 12, 1: 0, 2: 5, 3: 12} {
		if res, err := read("w", version); err != nil || res.GetState().AsMap()["balance"] != balance {
			t.Errorf("at version %d: %v, %v; want a balance of %v", version, res, err, balance)
		}
	}
	_, err := read("w", 4)
	refused(t, err, connect.CodeOutOfRange, "version 4 does not exist yet")
	_, err = read("absent", 0)
	refused(t, err, connect.CodeNotFound, "has no events")
}

func TestIdempotency_RecordCarriesContextHeaders(t *testing.T) {
	js := natstest.Start(t)
	client := node(t, js)
	kept, err := js.CreateConsumer(t.Context(), "KV_"+streams.BucketIdempotency,
		jetstream.ConsumerConfig{InactiveThreshold: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	rc := contextkit.RequestContext{
		TenantID:      natstest.Tenant(t, "acme"),
		CorrelationID: "corr-1",
		Traceparent:   contextkit.NewTraceparent(),
	}
	if _, err := client.Submit(
		contextkit.NewContext(t.Context(), rc), command("w", "open", "key-1", map[string]any{"owner": "ada"}),
	); err != nil {
		t.Fatal(err)
	}
	for n := range 191 { // 64 answers exceed the 128 recent ones
		if _, err := client.Submit(
			contextkit.NewContext(t.Context(), rc), deposit("w", fmt.Sprintf("d-%d", n), 1),
		); err != nil {
			t.Fatal(err)
		}
	}
	msg, err := kept.Next(jetstream.FetchMaxWait(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tenant-id": "acme", "x-correlation-id": "corr-1", "correlation-id": "corr-1",
		"trace-id": rc.Traceparent.TraceID.String(),
	} {
		if got := msg.Headers().Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestIdempotency_KeySurvivesLostRecord(t *testing.T) {
	js := natstest.Start(t)
	warm := node(t, js)
	submit(t, warm, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	for n := range 195 {
		submit(t, warm, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
	}
	// As if the node had crashed before it wrote any record.
	records, err := js.Stream(t.Context(), "KV_"+streams.BucketIdempotency)
	if err != nil {
		t.Fatal(err)
	}
	empty := func() bool {
		if err := records.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := records.Info(t.Context())
		return err == nil && info.State.Msgs == 0
	}
	for !empty() {
	}
	cold := node(t, js)
	for _, key := range []string{"d-0", "d-66", "d-194"} { // the first two are older than the 128 recent ones
		if again := submit(t, cold, "acme", deposit("w", key, 1)); !again.GetReplayed() {
			t.Errorf("%s took effect twice", key)
		}
	}
	submit(t, cold, "acme", deposit("w", "new", 1)) // writes the full answer block
	deadline := time.Now().Add(10 * time.Second)
	for {
		info, err := records.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if info.State.Msgs == 1 { // of 64 answers
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the record was not written again")
		}
	}
	_, err = cold.Submit(as(t, "acme"), deposit("w", "d-0", 2))
	refused(t, err, connect.CodeAlreadyExists, "used for another command")
	submit(t, cold, "acme", command("v", "open", "", map[string]any{"owner": "bob"}))
	_, err = cold.Submit(as(t, "acme"), deposit("v", "d-194", 1)) // used by another aggregate
	refused(t, err, connect.CodeAlreadyExists, "used for another command")
}

func TestIdempotency_NewKeyReadsNoRecord(t *testing.T) {
	js := natstest.Start(t)
	reads, err := js.Conn().SubscribeSync("$JS.API.STREAM.MSG.GET.KV_" + streams.BucketIdempotency)
	if err != nil {
		t.Fatal(err)
	}
	read := func() int {
		t.Helper()
		if err := js.Conn().FlushTimeout(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		n, _, err := reads.Pending()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	warm := node(t, js)
	submit(t, warm, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	for n := range 500 { // 5 answer blocks and 52 further answers
		submit(t, warm, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
	}
	if n := read(); n != 0 {
		t.Errorf("%d records read for new keys", n)
	}
	cold := node(t, js) // reads the snapshot of version 400 and 100 events
	submit(t, cold, "acme", deposit("w", "new", 1))
	if n := read(); n != 0 {
		t.Errorf("restarted node: %d records read for new keys", n)
	}
	for name, client := range map[string]gatewayv1connect.CommandServiceClient{
		"the node": warm, "restarted node": cold,
	} {
		for n, key := range []string{"d-0", "d-63", "d-64", "d-319", "d-320", "d-371", "d-372", "d-499"} {
			again := submit(t, client, "acme", deposit("w", key, 1))
			if want := []int64{2, 65, 66, 321, 322, 373, 374, 501}[n]; !again.GetReplayed() ||
				again.GetVersion() != want {
				t.Errorf("%s: answer of %s is %v, want version %d again", name, key, again, want)
			}
		}
		_, err = client.Submit(as(t, "acme"), deposit("w", "d-63", 2))
		refused(t, err, connect.CodeAlreadyExists, "used for another command")
	}
	if n := read(); n < 8 { // at least four answers are in the bucket, for both nodes
		t.Errorf("%d reads of answers in the bucket, want at least 8", n)
	}
}

func TestIdempotency_NodesWriteIdenticalRecords(t *testing.T) {
	js := natstest.Start(t)
	one, other := node(t, js), node(t, js)
	submit(t, one, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	for n := range 400 {
		submit(t, one, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
		submit(t, one, "acme", deposit("w", fmt.Sprintf("d-%d", max(0, n-100)), 1)) // a retry does not change the order
		if n%3 == 0 {
			submit(t, other, "acme", deposit("w", fmt.Sprintf("d-%d", n), 1))
		}
	}
	for n := range 2 { // both write their full blocks
		submit(t, one, "acme", deposit("w", fmt.Sprintf("one-%d", n), 1))
		submit(t, other, "acme", deposit("w", fmt.Sprintf("other-%d", n), 1))
	}
	bucket, err := js.KeyValue(t.Context(), streams.BucketIdempotency)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"acme.wallet.w.130-64", "acme.wallet.w.194-64", "acme.wallet.w.2-64", "acme.wallet.w.66-64"}
	for deadline := time.Now().Add(10 * time.Second); ; {
		keys, err := bucket.Keys(t.Context())
		if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
			t.Fatal(err)
		}
		if slices.Sort(keys); slices.Equal(keys, want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("records %q, want %q", keys, want)
		}
	}
}

func TestSubmit_SyncedJournalGroupsCommits(t *testing.T) {
	js := natstest.Start(t)
	client, service := nodeWith(t, js, model.Wallet, aggregate.Config{Synced: true})
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	// How many commands are grouped depends on the machine, so repeat until some are.
	const wallets, rounds = 200, 50
	for round := range rounds {
		var all sync.WaitGroup
		for n := range wallets {
			all.Go(func() {
				id := fmt.Sprintf("w-%d-%d", round, n)
				for _, req := range []*aggregatev1.SubmitRequest{
					command(id, "open", "open-"+id, map[string]any{"owner": "ada"}), deposit(id, "key-"+id, 5),
					deposit(id, "key-"+id, 5),
				} {
					if _, err := client.Submit(as(t, "acme"), req); err != nil {
						t.Errorf("%s of %s: %v", req.GetCommand(), id, err)
					}
				}
				_, err := client.Submit(as(t, "acme"), command(id, "withdraw", "", map[string]any{"amount": 6}))
				if connect.CodeOf(err) != connect.CodeFailedPrecondition {
					t.Errorf("%s: effective commands %v, want exactly two", id, err)
				}
			})
		}
		all.Wait()
		info, err := stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := uint64(2 * wallets * (round + 1)); info.State.Msgs != want {
			t.Fatalf("%d events, want %d", info.State.Msgs, want)
		}
		sizes := measured(t, service, "headgate_aggregate_group_size").GetHistogram()
		if groups := sizes.GetSampleCount(); groups > 0 {
			if least := 24 * float64(groups); sizes.GetSampleSum() < least {
				t.Errorf("%d groups of %v commands, want at least %v", groups, sizes.GetSampleSum(), least)
			}
			return
		}
	}
	t.Error("no commands shared a write")
}
