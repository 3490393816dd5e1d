package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// deadlineMargin is the deadline margin of an upstream call.
const deadlineMargin = 20 * time.Millisecond

// A call without a deadline of its client has the lower one of the edge's and of its method's policy, over every
// protocol at both ports. What is left at the node is a fact of the request, not of the machine's speed.
func TestBounds_TimeoutsOfEdgeAndMethodHoldOverEveryProtocol(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edge, stream time.Duration // bounds of the edge
		call, watch  time.Duration // the bounds in force: policies have 5 s and 20 s
	}{
		"methods": {time.Hour, time.Hour, 5 * time.Second, 20 * time.Second},
		"edge":    {3 * time.Second, 7 * time.Second, 3 * time.Second, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			m := &mirror{ticker: newTicker(t)}
			e := startWith(t, func(g *gateway.Config) { g.MaxTimeout, g.MaxStreamTimeout = c.edge, c.stream },
				m.register, m.ticker.set(t))
			e.node.set(func(ctx context.Context, _ int) error { m.answer(ctx); return nil })
			token := e.tokenOf(t, "app", mirrorRights...)
			for _, w := range everyWay() {
				m.set(nil, nil)
				bound := c.call
				if w.stream {
					bound = c.watch
				}
				got := w.do(t, e, m, map[string][]string{"Authorization": {token}})
				if left := m.remaining(); got.err != nil || left <= 0 || left > bound-deadlineMargin {
					t.Errorf("%s: %v; the node's deadline is in %v, want at most %v minus the margin", w, got.err, left,
						bound)
				}
			}
		})
	}
}

// A call at the port for gRPC whose message never comes ends with the edge's timeout.
func TestBounds_CallWithoutMessageTimesOutAtGRPCPort(t *testing.T) {
	t.Parallel()
	e := start(t,
		func(c *gateway.Config) { c.MaxTimeout, c.MaxStreamTimeout = 200*time.Millisecond, 200*time.Millisecond })
	conn, err := grpc.NewClient(e.grpc[len("http://"):], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, method := range []string{"Query", "Watch"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", e.token(t, "acme", "query.read"))
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
			"/projection.gateway.v1.QueryService/"+method)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&projectionv1.QueryResponse{}); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%s: %v, want DEADLINE_EXCEEDED", method, err)
		}
	}
}

// Of many tenants' calls to one node in trouble, ten are repeated: the node's budget alone bounds them, since each
// tenant has its own.
func TestBounds_NodesRetryBudgetAloneBoundsRetries(t *testing.T) {
	t.Parallel()
	e := start(t, patient)
	e.node.set(unavailable)
	const tenants, saved = 15, 10
	for n := range tenants {
		name := fmt.Sprintf("tenant-%d", n)
		e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", e.token(t, name, "query.read"))
	}
	if calls, _, _, _, _ := e.node.seen(); calls != tenants+saved {
		t.Errorf("%d calls of %d tenants reach the node, want %d retries", calls, tenants, saved)
	}
}

// Of one tenant's calls to two nodes in trouble, ten are repeated and a tenth more: the tenant's budget alone bounds
// them, since each node has its own.
func TestBounds_TenantsRetryBudgetAloneBoundsRetries(t *testing.T) {
	t.Parallel()
	e := start(t, patient)
	e.node.set(unavailable)
	nodes := e.routes.Nodes()
	at := slices.IndexFunc(nodes, func(n route.Node) bool { return n.Kind == contextkit.KindProjection })
	other := nodes[at]
	other.ID, other.Endpoint = "p2", "localhost:"+other.Endpoint[len("127.0.0.1:"):] // the same node by another name
	if err := e.routes.Replace(append(slices.Clone(nodes), other), nil); err != nil {
		t.Fatal(err)
	}
	const requests, repeated = 12, 10 + 1
	token := e.token(t, "acme", "query.read")
	for range requests {
		e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}
	if calls, _, _, _, _ := e.node.seen(); calls != requests+repeated {
		t.Errorf("%d calls reach the nodes for %d requests, want %d retries", calls, requests, repeated)
	}
}

// A call is attempted three times, even if nodes are patient and the budgets allow more.
func TestBounds_CallHasThreeAttempts(t *testing.T) {
	t.Parallel()
	e := start(t, patient)
	e.node.set(unavailable)
	e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", e.token(t, "acme", "query.read"))
	if calls, _, _, _, _ := e.node.seen(); calls != 3 {
		t.Errorf("%d attempts, want 3", calls)
	}
}

func unavailable(context.Context, int) error {
	return connect.NewError(connect.CodeUnavailable, "in trouble")
}
