package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
)

func TestContract_RoundTripsOverEveryProtocol(t *testing.T) {
	everyUpstream(t, testContract)
}

func testContract(t *testing.T, start starter) {
	e := start(nil, nil)
	token := e.token(t, "acme", "query.read")
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			e.node.set(nil)
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"},
				"Authorization", token, "X-Correlation-Id", "corr-1", "Traceparent", traceparent, "Tracestate",
				"vendor=1", "X-Request-Id", "req-1",
				"X-Custom", "passes", "X-Custom-Bin", connect.EncodeBinaryHeader([]byte{0, 255}), "Cookie", "session=1")
			if got.err != nil {
				t.Fatal(got.err)
			}
			_, header, rc, left, query := e.node.seen()
			for name, want := range map[string]string{
				"x-tenant-id": "acme", "x-correlation-id": "corr-1", "x-request-id": "req-1", "tracestate": "vendor=1",
				"x-custom": "passes", "x-custom-bin": connect.EncodeBinaryHeader([]byte{0, 255}),
			} {
				if values := header[name]; len(values) != 1 || values[0] != want {
					t.Errorf("the node received %s = %q, want %q", name, values, want)
				}
			}
			for _, name := range []string{"authorization", "cookie"} {
				if len(header[name]) > 0 {
					t.Errorf("the node received %s", name)
				}
			}
			if rc.Traceparent.TraceID.String() != traceparent[3:35] ||
				strings.Contains(rc.Traceparent.String(), traceparent[36:52]) {
				t.Errorf("the node received traceparent %s, want the same trace under the gateway's parent id",
					rc.Traceparent)
			}
			if query.GetTenantId() != "acme" || query.GetView() != "wallets" {
				t.Errorf("the node received %v", query)
			}
			if left <= 0 || left > 5*time.Second {
				t.Errorf("the node's deadline is in %v, want the remainder of the method's 5 s", left)
			}
			row := got.res.GetRows()[0].AsMap()
			if row["tenant"] != "acme" || row["none"] != nil || fmt.Sprint(row["list"]) != "[1.5 true]" ||
				got.res.GetPosition() != "p" {
				t.Errorf("response %v", got.res)
			}
			for name, want := range map[string]string{
				"x-correlation-id": "corr-1", "x-request-id": "req-1", "trace-id": traceparent[3:35], "x-node": "one",
				"x-node-bin": connect.EncodeBinaryHeader([]byte{0, 1, 254}), "x-cost": "7",
			} {
				if value := got.header(name); value != want {
					t.Errorf("the client received %s = %q, want %q", name, value, want)
				}
			}
		})
	}
}

func TestHeaders_InvalidHeaderIsRejectedByName(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e := start(nil, nil)
		header := []string{"Authorization", e.token(t, "acme", "query.read"), "X-Custom", "gr\xfcn"}
		for _, protocol := range []string{"connect", "rest"} { // gRPC's clients do not send it
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, header...)
			if calls, _, _, _, _ := e.node.seen(); got.code != connect.CodeInvalidArgument ||
				!strings.Contains(got.err.Error(), `"x-custom"`) || calls != 0 {
				t.Errorf("%s: %v after %d calls of the node, want an error that names the header", protocol, got.err,
					calls)
			}
		}
		if status, text := e.http(
			t, http.MethodGet, "/v1/watch/wallets", "", header...,
		); status != http.StatusBadRequest || !strings.Contains(text, "x-custom") {
			t.Errorf("stream: %d %s, want an error that names the header", status, text)
		}
	})
}

func TestErrors_NodesErrorReachesClientOverEveryProtocol(t *testing.T) {
	everyUpstream(t, testNodeErrors)
}

func testNodeErrors(t *testing.T, start starter) {
	e := start(nil, nil)
	token := e.token(t, "acme", "query.read")
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) {
			e.node.set(func(context.Context, int) error {
				return rpc.WithDetails(connect.NewError(connect.CodeFailedPrecondition, "not now: „ü“"),
					&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)},
					rpc.Reason("BUSY", "by", "a worker"))
			})
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
			if got.code != connect.CodeFailedPrecondition || got.err.Message() != "not now: „ü“" ||
				len(got.err.Details()) != 2 {
				t.Fatalf("err = %v with %d details", got.err, len(got.err.Details()))
			}
			detail, err := connectproto.UnmarshalErrorDetail(got.err.Details()[0])
			if retry, ok := detail.(*errdetails.RetryInfo); err != nil || !ok ||
				retry.GetRetryDelay().AsDuration() != 3*time.Second {
				t.Errorf("detail %v, %v", detail, err)
			}
			if got.header("x-cost") != "7" {
				t.Errorf("trailer %q", got.header("x-cost"))
			}
		})
	}
}
