package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/limit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
)

// submitBy sends a command by a protocol and returns its code.
func (e *edge) submitBy(t *testing.T, protocol, token, aggregate, command string, header ...string) connect.Code {
	t.Helper()
	if protocol == "rest" {
		status, text := e.http(t, http.MethodPost, "/v1/commands/"+aggregate+"/x/"+command, `{}`,
			append([]string{"Authorization", token}, header...)...)
		if status == http.StatusOK {
			return 0
		}
		var answer struct{ Code string }
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		var code connect.Code
		if err := code.UnmarshalText([]byte(answer.Code)); err != nil {
			t.Fatal(err)
		}
		return code
	}
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", token)
	for n := 0; n < len(header); n += 2 {
		info.RequestHeader().Add(header[n], header[n+1])
	}
	_, err := commandsconnect.NewCommandServiceClient(e.client(protocol)).Submit(ctx,
		&aggregatev1.SubmitRequest{AggregateType: aggregate, AggregateId: "x", Command: command})
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}

// commandProtocols are the protocols over which a command can be sent.
var commandProtocols = slices.DeleteFunc(slices.Clone(protocols),
	func(protocol string) bool { return protocol == "connect+get" })

func TestAuthorize_RightsPerCommand(t *testing.T) {
	e := start(t,
		func(config *gateway.Config) { config.Limits = limit.Config{Rate: 1e6, Burst: 1e6} }) // denials are not delayed
	for _, protocol := range commandProtocols {
		for _, tc := range []struct {
			right, aggregate, command string
			want                      connect.Code
		}{
			{"command.submit:transfer.request", "transfer", "request", 0},
			{"command.submit:transfer.request", "transfer", "complete", connect.CodePermissionDenied},
			{"command.submit:transfer.request", "wallet", "request", connect.CodePermissionDenied},
			{"command.submit:transfer.re*", "transfer", "request", 0},
			{"command.submit:transfer", "transfer", "complete", 0},
			{"command.submit:transfer", "wallet", "open", connect.CodePermissionDenied},
			{"command.internal", "transfer", "complete", connect.CodePermissionDenied},
		} {
			if got := e.submitBy(t, protocol, e.token(t, "acme", tc.right), tc.aggregate, tc.command); got != tc.want {
				t.Errorf("%s: %s for %s.%s: %v, want %v", protocol, tc.right, tc.aggregate, tc.command, got, tc.want)
			}
		}
	}
	requests := e.token(t, "acme", "command.submit:transfer.request", "command.submit:wallet.*")
	for _, tc := range []struct {
		path, body string
		want       int
	}{
		{"/v1/commands", `{"aggregateType":"transfer","aggregateId":"x","command":"request"}`, http.StatusOK},
		{"/v1/commands", `{"aggregateType":"transfer","aggregateId":"x","command":"complete"}`, http.StatusForbidden},
		{"/v1/commands", `{"aggregateType":"transfer","aggregateId":"x"}`, http.StatusForbidden},
		{
			"/v1/commands", `{"aggregateType":"transfer","aggregateId":"x","command":"request","dryRun":true}`,
			http.StatusOK,
		},
		{
			"/v1/commands", `{"aggregateType":"transfer","aggregateId":"x","command":"complete","dryRun":true}`,
			http.StatusForbidden,
		},
		{
			"/v1/commands", `{"aggregateType":"transfer.request","aggregateId":"x","command":"complete"}`,
			http.StatusForbidden,
		},
		{"/v1/commands", `{"aggregateType":"transfer.request","aggregateId":"x"}`, http.StatusForbidden},
		{"/v1/commands/transfer/x/complete", `{"command":"request"}`, http.StatusBadRequest},
		{"/v1/commands/transfer/x/request", `{"command":"complete"}`, http.StatusBadRequest},
		{"/v1/commands/transfer/x/comple%74e", `{}`, http.StatusForbidden},
		{
			"/v1/commands:batch",
			`{"commands":[{"aggregateType":"transfer","aggregateId":"x","command":"request"},{"aggregateType":"wallet","aggregateId":"x","command":"open"}]}`,
			http.StatusNotImplemented,
		},
		{
			"/v1/commands:batch",
			`{"commands":[{"aggregateType":"transfer","command":"request"},{"aggregateType":"transfer","command":"complete"}]}`,
			http.StatusForbidden,
		},
		{"/v1/commands:batch", `{"dryRun":true,"commands":[{"aggregateType":"wallet"}]}`, http.StatusForbidden},
	} {
		if status, text := e.http(t, http.MethodPost, tc.path, tc.body, "Authorization", requests); status != tc.want {
			t.Errorf("%s %s: %d, want %d: %s", tc.path, tc.body, status, tc.want, text)
		}
	}
}

func TestNodeRights_OnlyGatewaySetsThem(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e := start(func(config *gateway.Config) { config.Platform = []string{"app"} }, nil)
		for _, tc := range []struct {
			tenants string
			rights  []string
			want    []string
		}{
			{"acme", []string{"command.submit"}, nil},
			{"acme", []string{"command.submit", "command.submit:transfer.complete", "query.read"}, nil},
			{"acme", []string{"command.submit", "command.internal"}, []string{"command.internal"}},
			{
				"acme", []string{"command.submit", "command.internal:a", "command.internal:b.c"},
				[]string{"command.internal:a command.internal:b.c"},
			},
			{
				"acme", []string{"command.submit", "command.internal:a", "command.internal"},
				[]string{"command.internal"},
			},
			{"acme,*", []string{"command.submit"}, []string{"none"}}, // the platform
			{"acme,*", []string{"command.submit", "command.internal"}, []string{"command.internal"}},
		} {
			for _, protocol := range commandProtocols {
				code := e.submitBy(t, protocol, e.token(t, tc.tenants, tc.rights...), "transfer", "complete",
					"X-Tenant-Id", "acme", "X-Headgate-Rights", "command.internal", "X_Headgate_Rights",
					"command.internal", "x-headgate-platform", "1")
				_, header, _, _, _ := e.node.seen()
				if got := header[contextkit.HeaderRights]; code != 0 || !slices.Equal(got, tc.want) ||
					len(header["x_headgate_rights"]) > 0 {
					t.Errorf("%s: rights %q: code %v, the node received %q, want %q", protocol, tc.rights, code, got,
						tc.want)
				}
			}
		}
		e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets", TenantId: "acme"}, "Authorization",
			e.token(t, "acme", "query.read", "command.internal"))
		if _, header, _, _, _ := e.node.seen(); len(header[contextkit.HeaderRights]) > 0 {
			t.Errorf("method without node rights: the node received %q", header[contextkit.HeaderRights])
		}
	})
}

func TestNodeRights_NodesDenialIsAudited(t *testing.T) {
	e := start(t, nil)
	stream, err := e.js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(),
		jetstream.OrderedConsumerConfig{FilterSubjects: []string{"audit.acme.denied"}})
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(reason rpc.ErrorReason, right string) func(context.Context, int) error {
		return func(context.Context, int) error {
			return rpc.WithDetails(connect.NewError(connect.CodePermissionDenied, "no"),
				rpc.Reason(reason, "right", right))
		}
	}
	token := e.token(t, "acme", "command.submit")
	for _, other := range []func(context.Context, int) error{
		refuse("OTHER", "command.internal:x.y"), refuse(rpc.ReasonMissingRight, "thing.read"),
		refuse(rpc.ReasonMissingRight, "no right"),
	} {
		e.node.set(other)
		e.submitBy(t, "grpc", token, "transfer", "other")
	}
	e.node.set(refuse(rpc.ReasonMissingRight, auth.ActionInternal+":transfer.complete"))
	if code := e.submitBy(t, "grpc", token, "transfer", "complete"); code != connect.CodePermissionDenied {
		t.Fatalf("code %v", code)
	}
	msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Decision, Reason, Principal, Right, Resource, Code, Node string }
	if err := json.Unmarshal(msg.Data(), &record); err != nil {
		t.Fatal(err)
	}
	if record.Decision != "denied" || record.Right != auth.ActionInternal || record.Resource != "transfer.complete" ||
		record.Code != "permission_denied" || record.Node == "" {
		t.Fatalf("audit record %s", msg.Data())
	}
}
