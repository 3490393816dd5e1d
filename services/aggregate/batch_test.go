package aggregate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// batch returns a SubmitBatchRequest under an idempotency key.
func batch(key string, commands ...*aggregatev1.SubmitRequest) *aggregatev1.SubmitBatchRequest {
	req := &aggregatev1.SubmitBatchRequest{IdempotencyKey: key}
	for _, c := range commands {
		req.Commands = append(req.Commands, &aggregatev1.BatchCommand{
			AggregateType:   c.GetAggregateType(),
			AggregateId:     c.GetAggregateId(),
			Command:         c.GetCommand(),
			Payload:         c.GetPayload(),
			IdempotencyKey:  c.GetIdempotencyKey(),
			ExpectedVersion: c.ExpectedVersion,
		})
	}
	return req
}

// outcomes formats the results of a batch in one line.
func outcomes(res *aggregatev1.SubmitBatchResponse) string {
	var out []string
	for _, r := range res.GetResults() {
		if e := r.GetError(); e != nil {
			out = append(out, connect.Code(e.GetCode()).String())
			continue
		}
		text := fmt.Sprintf("v%d", r.GetResponse().GetVersion())
		if r.GetResponse().GetReplayed() {
			text += " replayed"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func TestSubmitBatch_IsAtomicPerAggregate(t *testing.T) {
	js := natstest.Start(t)
	client := node(t, js)
	submit(t, client, "acme", command("a", "open", "", map[string]any{"owner": "ada"}))
	version := func(req *aggregatev1.SubmitRequest, v int64) *aggregatev1.SubmitRequest {
		req.ExpectedVersion = &v
		return req
	}
	withdraw := func(id string, amount int) *aggregatev1.SubmitRequest {
		return command(id, "withdraw", "", map[string]any{"amount": amount})
	}
	keyed := func(req *aggregatev1.SubmitRequest, key string) *aggregatev1.SubmitRequest {
		req.IdempotencyKey = key
		return req
	}
	state := func(id string) string {
		res, err := client.GetAggregate(as(t, "acme"),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: id})
		if err != nil {
			return connect.CodeOf(err).String()
		}
		return fmt.Sprintf("%v at v%d", res.GetState().AsMap()["balance"], res.GetVersion())
	}
	first := func() *aggregatev1.SubmitBatchRequest {
		return batch("k1", deposit("a", "", 10), version(withdraw("a", 10), 2),
			command("b", "open", "", map[string]any{"owner": "bob"}))
	}
	dry := batch("", deposit("a", "", 5))
	dry.DryRun = true
	for _, step := range []struct {
		name string
		req  *aggregatev1.SubmitBatchRequest
		want string // results
		a, b string // states afterwards
	}{
		{"later commands see the events of earlier ones", first(), "v2, v3, v1", "0 at v3", "0 at v1"},
		{"the same key again", first(), "v2 replayed, v3 replayed, v1 replayed", "0 at v3", "0 at v1"},
		{
			"a rejection rejects the commands of the same aggregate only",
			batch("k2", deposit("a", "", 10), withdraw("a", 11), deposit("a", "", 1), deposit("b", "", 7)),
			"aborted, failed_precondition, aborted, v2", "0 at v3", "7 at v2",
		},
		{
			"an unknown command rejects the commands of the same aggregate only",
			batch("k3", deposit("a", "", 10), command("a", "burn", "", nil), deposit("b", "", 1)),
			"aborted, not_found, v3", "0 at v3", "8 at v3",
		},
		{"a dry run writes nothing", dry, "v4", "0 at v3", "8 at v3"},
		{
			"other command under a used key", batch("", keyed(deposit("a", "", 3), "k1#0")), "already_exists",
			"0 at v3", "8 at v3",
		},
		{
			"grown batch: only the new command is decided",
			batch("k1", deposit("a", "", 10), version(withdraw("a", 10), 2),
				command("b", "open", "", map[string]any{"owner": "bob"}), deposit("a", "", 2)),
			"v2 replayed, v3 replayed, v1 replayed, v4", "2 at v4", "8 at v3",
		},
	} {
		res, err := client.SubmitBatch(as(t, "acme"), step.req)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if res.GetPosition() == "" != step.req.GetDryRun() && strings.Contains(step.want, "v") {
			t.Errorf("%s: the position is %q", step.name, res.GetPosition())
		}
		for _, r := range res.GetResults() {
			if e := r.GetError(); e != nil && e.GetCode() != int32(connect.CodeNotFound) && len(e.GetDetails()) == 0 {
				t.Errorf("%s: an error without details: %v", step.name, e)
			}
		}
		if got := outcomes(res); got != step.want || state("a") != step.a || state("b") != step.b {
			t.Errorf(
				"%s: got %s, state of a %s, of b %s; want %s, %s, %s", step.name, got, state("a"), state("b"),
				step.want,
				step.a, step.b,
			)
		}
	}
	stream, err := js.Stream(t.Context(), streams.Events)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := stream.Info(t.Context()); err != nil || info.State.Msgs != 7 {
		t.Errorf("%d events in the journal, want 7, none of a rejected part; %v", info.State.Msgs, err)
	}
	_, err = client.SubmitBatch(as(t, "acme"), &aggregatev1.SubmitBatchRequest{})
	refused(t, err, connect.CodeInvalidArgument, "commands")
	foreign := batch("", deposit("a", "", 1))
	foreign.TenantId = "globex"
	if res, err := client.SubmitBatch(as(t, "acme"), foreign); err == nil {
		t.Errorf("a batch that names another tenant: %v", res)
	}
	if res, err := client.SubmitBatch(as(t, "initech"), batch("", deposit("a", "", 1))); err == nil {
		t.Errorf("a batch of a tenant that the node does not serve: %v", res)
	}
	for name, req := range map[string]*aggregatev1.SubmitBatchRequest{
		"of one aggregate": batch("", keyed(deposit("a", "", 1), "same"), deposit("a", "", 1),
			keyed(deposit("a", "", 1), "same")),
		"of two aggregates": batch("", deposit("a", "", 1), keyed(deposit("b", "", 1), "same"),
			keyed(deposit("a", "", 1), "same")),
		"key equal to the batch's key": batch("k9", keyed(deposit("a", "", 1), "k9#2"), deposit("a", "", 1),
			deposit("b", "", 1)),
	} {
		_, err := client.SubmitBatch(as(t, "acme"), req)
		if refused(
			t, err, connect.CodeInvalidArgument, "commands[2].idempotency_key is also used by commands[",
		); state("a") != "2 at v4" || state("b") != "8 at v3" {
			t.Errorf("%s: state of a is %s, of b %s after a batch with a duplicate key", name, state("a"), state("b"))
		}
	}
}

func TestSubmitBatch_ConcurrentNodesDecideEachBatchOnce(t *testing.T) {
	js := natstest.Start(t)
	one, two := node(t, js), node(t, js)
	submit(t, one, "acme", command("w", "open", "", map[string]any{"owner": "ada"}))
	var group errgroup.Group
	for n := range 20 {
		for _, client := range []gatewayv1connect.CommandServiceClient{one, two} {
			group.Go(func() error {
				req := batch(fmt.Sprintf("batch-%d", n), deposit("w", "", 1), deposit("w", "", 1), deposit("w", "", 1),
					deposit("w", "", 1), deposit("w", "", 1))
				for {
					res, err := client.SubmitBatch(as(t, "acme"), req)
					if err != nil {
						return err
					}
					refusal := res.GetResults()[0].GetError()
					if refusal == nil {
						return nil
					}
					if connect.Code(refusal.GetCode()) != connect.CodeAborted { // retry after a conflict
						return errors.New(refusal.GetMessage())
					}
				}
			})
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	res, err := one.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"})
	if err != nil || res.GetState().AsMap()["balance"] != 100.0 || res.GetVersion() != 101 {
		t.Errorf("got %v, %v; want 100 in 101 versions: 20 batches of 5, each once", res, err)
	}
}
