package aggregate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/services/aggregate"
)

// notebook is a model whose state grows with each note.
func notebook(context.Context) (string, []byte, error) {
	return "notebook.yaml", []byte(`model: notebook
aggregates:
  wallet:
    commands:
      write:
        payload: {type: object}
        emit:
          - {event: written, data: {text: cmd.text}}
      tear:
        payload: {type: object}
        emit:
          - {event: torn, data: {pages: cmd.pages}}
    evolve:
      written: {pages: "has(state.pages) ? state.pages + [event.text] : [event.text]"}
      torn: {pages: "state.pages.filter(p, !p.startsWith(event.pages))"}
`), nil
}

// write returns the command that writes a page of 1 MiB which starts with letter.
func write(letter string) *aggregatev1.SubmitRequest {
	return command("n", "write", "", map[string]any{"text": letter + strings.Repeat("x", 1_000_000)})
}

func TestSubmit_TooLargeStateIsRejected(t *testing.T) {
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	js := natstest.Start(t)
	client, _ := nodeOf(t, js, notebook)
	for range 4 {
		submit(t, client, "acme", write("a"))
	}
	too := func(err error) {
		t.Helper()
		refused(t, err, connect.CodeFailedPrecondition, "the limit is 4194304")
		var failed *connect.Error
		if !errors.As(err, &failed) || len(failed.Details()) != 1 {
			t.Fatalf("%v, want a single detail", err)
		}
		detail, err := connectproto.UnmarshalErrorDetail(failed.Details()[0])
		if info, ok := detail.(*errdetails.ErrorInfo); err != nil || !ok || info.GetReason() != "STATE_TOO_LARGE" ||
			info.GetMetadata()["max_bytes"] != "4194304" {
			t.Errorf("detail %v, %v; want STATE_TOO_LARGE", detail, err)
		}
	}
	_, err := client.Submit(as(t, "acme"), write("b"))
	too(err)
	dry := write("b")
	dry.DryRun = true
	_, err = client.Submit(as(t, "acme"), dry)
	too(err)
	res, err := client.SubmitBatch(as(t, "acme"), &aggregatev1.SubmitBatchRequest{Commands: []*aggregatev1.BatchCommand{
		{
			AggregateType: "wallet",
			AggregateId:   "n",
			Command:       "tear",
			Payload:       command("n", "", "", map[string]any{"pages": "z"}).GetPayload(),
		},
		{AggregateType: "wallet", AggregateId: "n", Command: "write", Payload: write("b").GetPayload()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if code := res.GetResults()[1].GetError().GetCode(); code != int32(connect.CodeFailedPrecondition) {
		t.Errorf("code of the command in a batch is %d, want FAILED_PRECONDITION", code)
	}
	got, err := client.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "n"})
	if err != nil || got.GetVersion() != 4 {
		t.Fatalf("version %d, %v; want 4", got.GetVersion(), err)
	}
	submit(t, client, "acme", command("n", "tear", "", map[string]any{"pages": "a"}))
	submit(t, client, "acme", write("b"))
}

func TestSubmit_TooLargeStateCanShrink(t *testing.T) {
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	js := natstest.Start(t)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	var sequence uint64
	for version := range int64(6) { // as an earlier version of the platform allowed
		events := []journal.Event{{
			ID: contextkit.NewID(), Type: "written", AggregateType: "wallet", AggregateID: "n", Version: version + 1,
			Time: time.Now(),
			Data: fmt.Appendf(nil, `{"text":"%c%s"}`, 'a'+byte(version%2), strings.Repeat("x", 1_000_000)),
		}}
		if err := eventLog.Append(as(t, "acme"), natstest.Tenant(t, "acme"), sequence, events); err != nil {
			t.Fatal(err)
		}
		sequence = events[0].Sequence
	}
	client, _ := nodeOf(t, js, notebook)
	_, err = client.Submit(as(t, "acme"), write("c"))
	refused(t, err, connect.CodeFailedPrecondition, "the limit is 4194304")
	submit(t, client, "acme", command("n", "tear", "", map[string]any{"pages": "z"})) // as large as before
	submit(t, client, "acme", command("n", "tear", "", map[string]any{"pages": "a"}))
	submit(t, client, "acme", command("n", "write", "", map[string]any{"text": "short"}))
}

func TestCache_LargeStatesStayWithinByteLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("large data, no concurrency")
	}
	js := natstest.Start(t)
	const cacheBytes = 16 << 20
	client, service := nodeWith(t, js, notebook,
		aggregate.Config{CacheBytes: cacheBytes, Answers: response.Config{TenantBytes: 1 << 30, NodeBytes: 1 << 30}})
	submit(t, client, "globex", command("quiet", "write", "", map[string]any{"text": "one"}))
	before := loaded(t, service)
	for n := range 64 { // 32 MiB
		for range 2 {
			big := command("n", "write", "", map[string]any{"text": strings.Repeat("x", 256<<10)})
			big.AggregateId = fmt.Sprint("big-", n)
			submit(t, client, "acme", big)
		}
	}
	submit(t, client, "globex", command("quiet", "write", "", map[string]any{"text": "two"}))
	if events := loaded(t, service) - before; events != 0 {
		t.Errorf("%v events folded again for a tenant within its share, want none", events)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(service)
	metrics, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var bytes, evicted float64
	for _, family := range metrics {
		for _, metric := range family.GetMetric() {
			switch family.GetName() {
			case "headgate_aggregate_cache_bytes":
				bytes += metric.GetGauge().GetValue()
			case "headgate_aggregate_cache_evictions_total":
				evicted += metric.GetCounter().GetValue()
			}
		}
	}
	if bytes < cacheBytes/4 || bytes > cacheBytes || evicted == 0 {
		t.Errorf("cache of %v bytes after %v evictions, want at most %d after some", bytes, evicted, cacheBytes)
	}
	if n := testutil.CollectAndCount(service, "headgate_aggregate_cache_entries"); n != 2 {
		t.Errorf("%d series of entries, want 2", n)
	}
	got, err := client.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "big-0"})
	if err != nil || got.GetVersion() != 2 {
		t.Errorf("version of an evicted aggregate is %d, %v; want 2", got.GetVersion(), err)
	}
}
