package aggregate_test

import (
	"context"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
)

// stating returns the context of a call with headers (in pairs) as a gateway writes them.
func stating(ctx context.Context, headers ...string) context.Context {
	ctx, info := connect.NewClientContext(ctx)
	for n := 0; n < len(headers); n += 2 {
		info.RequestHeader().Add(headers[n], headers[n+1])
	}
	return ctx
}

func TestInternalCommand_NeedsItsOwnRight(t *testing.T) {
	client := node(t, natstest.Start(t))
	transfer := func(name, key string, payload map[string]any) *aggregatev1.SubmitRequest {
		req := command("t", name, key, payload)
		req.AggregateType = "transfer"
		return req
	}
	submit(t, client, "acme", transfer("request", "", map[string]any{"from": "a", "to": "b", "amount": 1}))
	rights, platform := contextkit.HeaderRights, contextkit.HeaderPlatform
	for name, headers := range map[string][]string{
		"no statement":                    {},
		"no right":                        {rights, "none"},
		"right of another command":        {rights, "command.internal:transfer.fail"},
		"right of another aggregate":      {rights, "command.internal:wallet"},
		"right to submit":                 {rights, "command.submit command.submit:transfer.complete"},
		"wildcard":                        {rights, "command.internal:*"},
		"platform without the right":      {rights, "none", platform, "1"},
		"two statements":                  {rights, "command.internal", rights, "command.internal"},
		"platform, stated twice":          {platform, "1", platform, "1"},
		"platform and two statements":     {rights, "none", rights, "none", platform, "1"},
		"principal named like the runner": {contextkit.HeaderPrincipal, "runner"},
		"statement in other letter case":  {"X-HEADGATE-RIGHTS", "COMMAND.INTERNAL"},
	} {
		t.Run(name, func(t *testing.T) {
			dry := transfer("complete", "", nil)
			dry.DryRun = true
			for _, req := range []*aggregatev1.SubmitRequest{
				transfer("complete", "", nil), dry, transfer("complete", "k", nil),
				transfer("fail", "", map[string]any{"wrong": true}),
			} {
				if req.GetCommand() == "fail" && name == "right of another command" {
					continue
				}
				_, err := client.Submit(stating(as(t, "acme"), headers...), req)
				refused(t, err, connect.CodePermissionDenied, "is internal")
			}
			payload, err := structpb.NewStruct(map[string]any{"owner": "ada"})
			if err != nil {
				t.Fatal(err)
			}
			for _, dryRun := range []bool{false, true} {
				_, err := client.SubmitBatch(
					stating(as(t, "acme"), headers...),
					&aggregatev1.SubmitBatchRequest{DryRun: dryRun, Commands: []*aggregatev1.BatchCommand{
						{AggregateType: "wallet", AggregateId: "w", Command: "open", Payload: payload},
						{AggregateType: "transfer", AggregateId: "t", Command: "complete"},
					}},
				)
				refused(t, err, connect.CodePermissionDenied, "transfer.complete is internal")
			}
		})
	}
	if _, err := client.GetAggregate(
		as(t, "acme"), &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "w"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatalf("a rejected batch opened the wallet: %v", err)
	}
	got, err := client.GetAggregate(as(t, "acme"),
		&aggregatev1.GetAggregateRequest{AggregateType: "transfer", AggregateId: "t"})
	if err != nil || got.GetVersion() != 1 {
		t.Fatalf("got %v, %v; want the request only", got, err)
	}

	for name, headers := range map[string][]string{
		"right of all commands":         {rights, "command.internal"},
		"right of the aggregate":        {rights, "command.internal:transfer"},
		"right of the command":          {rights, "command.internal:wallet.open command.internal:transfer.complete"},
		"gateway of an earlier version": {platform, "1"},
	} {
		dry := transfer("complete", "", nil)
		dry.DryRun = true
		if _, err := client.Submit(stating(as(t, "acme"), headers...), dry); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.Submit(
		stating(as(t, "acme"), rights, "command.internal"), transfer("complete", "k", nil),
	); err != nil {
		t.Fatal(err)
	}
	_, err = client.Submit(as(t, "acme"), transfer("complete", "k", nil)) // a retry that would be answered
	refused(t, err, connect.CodePermissionDenied, "is internal")
}
