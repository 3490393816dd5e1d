package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
)

// readiness is the body of /ready.
type readiness struct {
	Status, Reason string
	Degraded       map[string]string
}

func (e *edge) ready(t *testing.T, path string, header ...string) (int, readiness) {
	t.Helper()
	status, text := e.http(t, http.MethodGet, path, "", header...)
	var body readiness
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatalf("%s: %d %s: %v", path, status, text, err)
	}
	return status, body
}

func (e *edge) adminReady(t *testing.T, path string) (int, readiness) {
	t.Helper()
	at := *e
	at.url = e.admin
	return at.ready(t, path)
}

// health checks the gateway by the gRPC health protocol.
func (e *edge) health(t *testing.T) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	client := contextkit.NewClient(connecthttp.NewTransport(e.h2c, e.url, connecthttp.WithGRPC()))
	spec := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
	var res healthv1.HealthCheckResponse
	if err := client.CallUnary(
		contextkit.PlatformContext(t.Context()), spec, &healthv1.HealthCheckRequest{}, &res,
	); err != nil {
		t.Fatal(err)
	}
	return res.GetStatus()
}

// setReady makes exactly the nodes with these ids ready.
func (e *edge) setReady(ids ...string) {
	for _, node := range e.routes.Nodes() {
		e.routes.SetReady(node.ID, slices.Contains(ids, node.ID))
	}
}

func TestReady_KindWithoutReadyNodeIsDegraded(t *testing.T) {
	e := start(t, nil)
	all := []string{"aggregate", "projection", "runner"} // the test's binary has these
	for _, tc := range []struct {
		name     string
		ready    []string // nodes
		status   int
		degraded []string
	}{
		{"all kinds ready", []string{"a", "p", "gone"}, 200, nil},
		{"the last runner drains", []string{"a", "p"}, 200, []string{"runner"}},
		{"the last aggregate leaves", []string{"p"}, 200, []string{"aggregate", "runner"}},
		{"no node is ready", nil, 503, all},
	} {
		e.setReady(tc.ready...)
		missing := func(body readiness) (out []string) {
			for kind, reason := range body.Degraded {
				if slices.Contains(all, kind) && reason == "no "+kind+" node is ready" {
					out = append(out, kind)
				}
			}
			slices.Sort(out)
			return out
		}
		for port, ask := range map[string]func() (int, readiness){
			"edge":      func() (int, readiness) { return e.ready(t, "/ready") },
			"operators": func() (int, readiness) { return e.adminReady(t, "/ready") },
		} {
			if status, body := ask(); status != tc.status || (body.Status == "ready") != (status == 200) ||
				!slices.Equal(missing(body), tc.degraded) {
				t.Errorf("%s, at the %s port: %d %+v, want %d with %v", tc.name, port, status, body, tc.status,
					tc.degraded)
			}
		}
		want := healthv1.HealthCheckResponse_SERVING
		if tc.status != 200 {
			want = healthv1.HealthCheckResponse_NOT_SERVING
		}
		if got := e.health(t); got != want {
			t.Errorf("%s: gRPC health is %v, want %v", tc.name, got, want)
		}
		if err := e.edge.Ready(t.Context()); (err == nil) != (tc.status == 200) {
			t.Errorf("%s: the gateway announced %v", tc.name, err)
		}
		if got := e.edge.Degraded(
			t.Context(),
		); slices.Contains(got, contextkit.KindRunner) != slices.Contains(tc.degraded, "runner") {
			t.Errorf("%s: the gateway announced %v as degraded", tc.name, got)
		}
		_, metrics := e.adminGet(t, "/metrics")
		for _, kind := range all {
			value := 0
			if slices.Contains(tc.degraded, kind) {
				value = 1
			}
			if want := fmt.Sprintf(
				`headgate_kind_degraded{kind=%q,process="gateway"} %d`, kind, value,
			); !strings.Contains(metrics, want) {
				t.Errorf("%s: the metrics lack %s", tc.name, want)
			}
		}
	}
}

// tenantNode is a node that serves tenants, with its own /ready.
type tenantNode struct {
	url     string
	asked   atomic.Int64 // about tenants
	tenants *rpc.Tenants
	stuck   contextkit.TenantID
}

// startTenantNode starts a node that serves the tenants, of which one is stuck, and returns it with
// its route.
func startTenantNode(
	t *testing.T, kind contextkit.Kind, id string, stuck contextkit.TenantID, tenants ...contextkit.TenantID,
) (*tenantNode, route.Node) {
	t.Helper()
	n := &tenantNode{tenants: rpc.NewTenants(tenants...), stuck: stuck}
	server := rpc.NewServer(
		rpc.Config{Name: id, Addr: "127.0.0.1:0"}, func(_ context.Context, tenant contextkit.TenantID) error {
			switch {
			case tenant.IsZero():
				return nil
			case tenant == n.stuck:
				n.asked.Add(1)
				return errors.New("the tenant's projection does not advance")
			}
			n.asked.Add(1)
			return n.tenants.Ready(tenant)
		}, zerolog.Nop(),
	)
	ctx, cancel := context.WithCancel(context.Background())
	if err := server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	n.url = server.URL()
	return n, route.Node{
		ID:       id,
		Kind:     kind,
		Endpoint: server.Addr(),
		Ready:    true,
	}
}

func tenantIDs(t *testing.T, names ...string) []contextkit.TenantID {
	t.Helper()
	out := make([]contextkit.TenantID, len(names))
	for i, name := range names {
		var err error
		if out[i], err = contextkit.ParseTenantID(name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestReady_TenantsReadinessEqualsItsCalls(t *testing.T) {
	ids := tenantIDs(t, "serving", "suspended", "stuck", "placed", "moved")
	serving, suspended, stuck, placed, moved := ids[0], ids[1], ids[2], ids[3], ids[4]
	e := start(t,
		func(c *gateway.Config) { c.Optional = []contextkit.Kind{contextkit.KindControl, contextkit.KindRunner} })
	projection, p := startTenantNode(t, contextkit.KindProjection, "p", stuck, ids...)
	_, p2 := startTenantNode(t, contextkit.KindProjection, "p2", contextkit.TenantID{}, ids...)
	p2.Ready = false // drained
	_, a := startTenantNode(t, contextkit.KindAggregate, "a", contextkit.TenantID{}, ids...)
	if err := e.routes.Replace([]route.Node{a, p, p2}, []route.Placement{
		{Tenant: placed, Kind: contextkit.KindProjection, Node: "absent", Only: true},
		{Tenant: moved, Kind: contextkit.KindProjection, Node: "p2", Only: true},
	}); err != nil {
		t.Fatal(err)
	}
	e.edge.SetTenants(map[contextkit.TenantID]gateway.TenantState{suspended: {Suspended: true, Reason: "unpaid"}})
	for _, tc := range []struct {
		tenant     string
		gateway    int
		reason     string
		projection int // status of its node

	}{
		{serving.String(), 200, "", 200},
		{"unknown", 503, "projection: tenant unknown is not served here", 503},
		{suspended.String(), 503, "tenant suspended is suspended: unpaid", 200},
		{stuck.String(), 503, "projection: the tenant's projection does not advance", 503},
		{placed.String(), 503, "projection: the tenant is placed on node absent, which is not ready", 200},
		{moved.String(), 503, "projection: the tenant is placed on node p2, which is not ready", 200},
	} {
		path := "/ready?tenant=" + tc.tenant
		for port, ask := range map[string]func() (int, readiness){
			"operators": func() (int, readiness) { return e.adminReady(t, path) },
			"edge": func() (int, readiness) {
				return e.ready(t, path, "Authorization", e.token(t, tc.tenant, "query.read"))
			},
		} {
			status, body := ask()
			if status != tc.gateway || !strings.Contains(body.Reason, tc.reason) ||
				(body.Status == "ready") != (tc.gateway == 200) {
				t.Errorf("%s at the gateway's %s port: %d %+v, want %d with %q", tc.tenant, port, status, body,
					tc.gateway, tc.reason)
			}
			if tc.tenant != suspended.String() && body.Degraded["runner"] != "no runner node is ready" {
				t.Errorf("%s on the gateway's %s port does not name the degraded kinds: %+v", tc.tenant, port, body)
			}
		}
		at := *e
		at.url = projection.url
		if status, body := at.ready(t, path); status != tc.projection {
			t.Errorf("%s at the projection: %d %+v, want %d", tc.tenant, status, body, tc.projection)
		}
	}
	e.setReady("a")
	e.edge.SetTenants(nil)
	if status, body := e.adminReady(t, "/ready?tenant="+suspended.String()); status != 503 ||
		!strings.Contains(body.Reason, "projection: no projection node is ready") {
		t.Errorf("no projection node: %d %+v", status, body)
	}
}

func TestReady_TenantsReadinessNeedsItsCredential(t *testing.T) {
	ids := tenantIDs(t, "acme", "globex")
	e := start(t, nil)
	e.edge.SetTenants(map[contextkit.TenantID]gateway.TenantState{ids[1]: {Suspended: true, Reason: "unpaid"}})
	strangers := map[string][]string{
		"no credential": nil, "foreign tenant": {"Authorization", e.token(t, "acme", "query.read")},
		"invalid credential": {"Authorization", "Bearer x"},
	}
	for name, header := range strangers {
		want := http.StatusUnauthorized
		if name == "foreign tenant" {
			want = http.StatusForbidden
		}
		var bodies []string
		for _, tenant := range []string{"globex", "unknown"} {
			status, text := e.http(t, http.MethodGet, "/ready?tenant="+tenant, "", header...)
			if status != want || strings.Contains(text, "suspended") || strings.Contains(text, "unpaid") {
				t.Errorf("credential of %s, tenant %s: %d %s, want %d", name, tenant, status, text, want)
			}
			bodies = append(bodies, strings.ReplaceAll(text, tenant, "T"))
		}
		if bodies[0] != bodies[1] {
			t.Errorf("%s can distinguish a suspended from an unknown tenant: %q", name, bodies)
		}
	}
	// The health protocol, which needs no credential, does not show it either.
	client := contextkit.NewClient(connecthttp.NewTransport(e.h2c, e.url, connecthttp.WithGRPC()))
	spec := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
	var res healthv1.HealthCheckResponse
	if err := client.CallUnary(
		contextkit.TenantContext(t.Context(), ids[1]), spec, &healthv1.HealthCheckRequest{}, &res,
	); err != nil || res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health of a suspended tenant: %v, %v", res.GetStatus(), err)
	}
}

func TestReady_TenantChecksAreRateLimited(t *testing.T) {
	e := start(t, nil)
	node, p := startTenantNode(t, contextkit.KindProjection, "p", contextkit.TenantID{}, tenantIDs(t, "acme")...)
	if err := e.routes.Replace([]route.Node{p}, nil); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for n := range 500 {
		if status, _ := e.adminReady(
			t, fmt.Sprintf("/ready?tenant=random-%d", n),
		); status == http.StatusTooManyRequests {
			refused++
		}
	}
	// Each check reads the node's readiness at most twice, and the gateway's own probes read it too.
	if asked := node.asked.Load(); asked == 0 || refused == 0 || asked > 2*int64(500-refused)+50 {
		t.Errorf("of 500 tenants %d were rejected, and the node received %d calls", refused, asked)
	}
}

// A gateway in front of foreign services only serves no others, and waits for no nodes of the
// platform.
func TestReady_ForeignOnlyNeedsNoPlatformNode(t *testing.T) {
	r := newRoom(t)
	register := func(server *connect.Server) {
		server.Register(connect.Method{
			Spec: connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc},
			Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
				note := dynamicpb.NewMessage(r.desc.Input())
				if err := stream.Receive(note); err != nil {
					return err
				}
				return stream.Send(note)
			},
		})
	}
	e := startWith(t, func(c *gateway.Config) { c.ForeignOnly = true }, register, r.set)
	if got := e.edge.Degraded(t.Context()); len(got) > 0 {
		t.Errorf("degraded: %v", got)
	}
	if err := e.edge.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	token := e.token(t, "acme", "query.read", "room.talk")
	if got := e.query(
		t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
	); got.code != connect.CodeNotFound {
		t.Errorf("platform query: %v", got.err)
	}
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", token)
	stream, err := e.client("grpc").CallClientStream(ctx,
		connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := errors.Join(
		stream.Send(r.note("acme", "hall", "hello")), stream.Receive(dynamicpb.NewMessage(r.desc.Output())),
	); err != nil {
		t.Error(err)
	}
}
