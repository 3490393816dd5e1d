package gateway_test

import (
	"context"
	"encoding/hex"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
)

func TestOnUpstreamCall_EachAttemptHasSpan(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		var (
			mu    sync.Mutex
			asked []rpc.Asked
			own   []contextkit.SpanID // the gateway's
		)
		e := start(func(c *gateway.Config) {
			c.OnUpstreamCall = func(rc contextkit.RequestContext, call rpc.Asked) {
				mu.Lock()
				defer mu.Unlock()
				asked, own = append(asked, call), append(own, rc.SpanID)
			}
		}, nil)
		token := e.token(t, "acme", "query.read")
		var parents []string // that the node saw
		for _, protocol := range protocols {
			mu.Lock()
			asked, own, parents = nil, nil, nil
			mu.Unlock()
			e.node.set(func(ctx context.Context, call int) error {
				rc, _ := contextkit.FromContext(ctx)
				parents = append(parents, hex.EncodeToString(rc.Traceparent.ParentID[:]))
				if call == 1 {
					return connect.NewError(connect.CodeUnavailable, "again")
				}
				return nil
			})
			if got := e.query(
				t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token, "Traceparent",
				traceparent,
			); got.err != nil {
				t.Fatalf("%s: %v", protocol, got.err)
			}
			mu.Lock()
			if len(asked) != 2 || len(parents) != 2 || own[0] != own[1] {
				t.Fatalf("%s: %d attempts recorded, the node received %d", protocol, len(asked), len(parents))
			}
			for n, call := range asked {
				if span := hex.EncodeToString(call.Span[:]); span != parents[n] ||
					span == hex.EncodeToString(own[n][:]) {
					t.Errorf("%s: attempt %d has span %s, the node received parent %s", protocol, n+1, span, parents[n])
				}
				if want := map[int]connect.Code{0: connect.CodeUnavailable, 1: 0}[n]; call.Code() != want ||
					call.Server == "" || !strings.HasSuffix(call.Procedure, "QueryService/Query") {
					t.Errorf("%s: attempt %d: got %+v, want code %v", protocol, n+1, call, want)
				}
			}
			asked = nil
			mu.Unlock()
			quiet := strings.TrimSuffix(traceparent, "-01") + "-00"
			e.node.set(nil)
			if got := e.query(
				t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token, "Traceparent", quiet,
			); got.err != nil {
				t.Fatalf("%s: %v", protocol, got.err)
			}
			mu.Lock()
			if len(asked) != 0 {
				t.Errorf("%s: calls of an unsampled trace are recorded", protocol)
			}
			mu.Unlock()
		}
	})
}
