package gateway_test

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/gen/runner/admin/v1/adminv1connect"
	"github.com/headgate/headgate/internal/fanout"
	"github.com/headgate/headgate/internal/rpc"
)

// member is one of several nodes, with a separate address, whose readiness the
// test sets and which shows the headers of what reached it.
type member struct {
	upstreamNode
	adminv1connect.UnimplementedRunnerAdminHandler
	node     route.Node
	unready  atomic.Bool
	hung     atomic.Bool   // it answers no probe, until
	released chan struct{} // is closed
	waits    atomic.Bool   // a probe is waiting for it
	statuses atomic.Int64
	lists    atomic.Int64

	seenMu sync.Mutex
	probe  http.Header // the last health check's
}

func (m *member) Status(context.Context, *adminv1.StatusRequest) (*adminv1.StatusResponse, error) {
	m.statuses.Add(1)
	return &adminv1.StatusResponse{}, nil
}

func (m *member) ListWorkflows(
	context.Context, *adminv1.ListWorkflowsRequest,
) (*adminv1.ListWorkflowsResponse, error) {
	m.lists.Add(1)
	return &adminv1.ListWorkflowsResponse{}, nil
}

// lastProbe returns the headers of the last health check.
func (m *member) lastProbe() http.Header {
	m.seenMu.Lock()
	defer m.seenMu.Unlock()
	return m.probe
}

// noteProbe records the headers of a health check.
func (m *member) noteProbe(ctx context.Context) {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return // the question does not come from a call
	}
	header := http.Header{}
	for key, values := range info.RequestHeader().All() {
		header[http.CanonicalHeaderKey(key)] = slices.Clone(values)
	}
	m.seenMu.Lock()
	defer m.seenMu.Unlock()
	m.probe = header
}

// startMember starts a node.
func startMember(t *testing.T, kind contextkit.Kind, id string) *member {
	t.Helper()
	m := &member{released: make(chan struct{})}
	server := rpc.NewServer(
		rpc.Config{Name: id, Addr: "127.0.0.1:0"}, func(ctx context.Context, _ contextkit.TenantID) error {
			m.noteProbe(ctx)
			if m.hung.Load() {
				m.waits.Store(true)
				<-m.released // not ctx.Done: an answer at the deadline is one
			}
			if m.unready.Load() {
				return connect.NewError(connect.CodeUnavailable, "drained")
			}
			return nil
		}, zerolog.Nop(),
	)
	queriesconnect.RegisterQueryServiceHandler(server.RPC, m)
	adminv1connect.RegisterRunnerAdminHandler(server.RPC, m)
	ctx, cancel := context.WithCancel(context.Background())
	if err := server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		close(m.released)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	m.node = route.Node{
		ID:       id,
		Kind:     kind,
		Endpoint: server.Addr(),
		Ready:    true,
	}
	return m
}

// hang makes the member accept requests and answer nothing.
func (m *member) hang() {
	m.hung.Store(true)
	m.set(func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
}

// replace replaces all nodes by the members.
func (e *edge) replace(t *testing.T, members ...*member) {
	t.Helper()
	nodes := make([]route.Node, len(members))
	for i, m := range members {
		nodes[i] = m.node
	}
	if err := e.routes.Replace(nodes, nil); err != nil {
		t.Fatal(err)
	}
}

// adminGet sends a GET to the operators' server.
func (e *edge) adminGet(t *testing.T, path string) (int, string) {
	t.Helper()
	at := *e
	at.url = e.admin
	return at.http(t, http.MethodGet, path, "")
}

// eventually polls the condition without delay until it holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for ticker := time.NewTicker(5 * time.Millisecond); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestBreaker_CallsOfSilentNodeAreDiverted(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Breakers = breaker.Config{FirstPause: time.Hour} })
	one, two := startMember(t, contextkit.KindProjection, "one"), startMember(t, contextkit.KindProjection, "two")
	dead := &member{node: route.Node{
		ID:       "dead",
		Kind:     contextkit.KindProjection,
		Endpoint: "127.0.0.1:1",
		Ready:    true,
	}}
	e.replace(t, one, two, dead)
	token := e.token(t, "*", "query.read")
	for i := range 60 {
		tenant := []string{"acme", "globex", "initech", "umbrella", "hooli", "stark"}[i%6]
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token, "X-Tenant-Id", tenant,
		); got.err != nil {
			t.Fatalf("call %d, for %s: %v", i, tenant, got.err)
		}
	}
	if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
		text, `headgate_breaker_open{endpoint="127.0.0.1:1",kind="projection",process="gateway"} 1`,
	) ||
		!strings.Contains(
			text, `headgate_breaker_open{endpoint="`+one.node.Endpoint+`",kind="projection",process="gateway"} 0`,
		) {
		t.Errorf("the metrics do not show the breakers:\n%s", text)
	}
}

func TestBreaker_IgnoredWhenMostNodesAreSilent(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		c.Breakers, c.MaxTimeout = breaker.Config{FirstPause: time.Hour, Failures: 1}, 200*time.Millisecond
	})
	members := []*member{
		startMember(t, contextkit.KindProjection, "a"), startMember(t, contextkit.KindProjection, "b"),
		startMember(t, contextkit.KindProjection, "c"),
	}
	e.replace(t, members...)
	token := e.token(t, "acme", "command.submit", "query.read")
	// Every node is silent, as when the gateway's own network fails.
	for _, m := range members {
		m.set(func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
	}
	for range 3 {
		if code, text := e.http(
			t, http.MethodPost, "/v1/query/wallets", "{}", "Authorization", token,
		); code != http.StatusGatewayTimeout {
			t.Fatalf("%d %s", code, text)
		}
	}
	for _, m := range members {
		m.set(nil)
	}
	if got := e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token); got.err != nil {
		t.Errorf("all nodes are healthy, and none is called: %v", got.err)
	}
}

func TestRetry_HonoursPushback(t *testing.T) { everyUpstream(t, aNodesPushbackIsHonoured) }

func aNodesPushbackIsHonoured(t *testing.T, start starter) {
	e := start(nil, nil)
	token := e.token(t, "acme", "query.read")
	for name, rule := range map[string]struct {
		pushback string
		detail   time.Duration
		calls    int
		atLeast  time.Duration
	}{
		"do not try again":            {pushback: "-1", calls: 1},
		"not a number":                {pushback: "soon", calls: 1},
		"after a delay":               {pushback: "150", calls: 2, atLeast: 150 * time.Millisecond},
		"RetryInfo":                   {detail: 150 * time.Millisecond, calls: 2, atLeast: 150 * time.Millisecond},
		"after the deadline":          {pushback: "60000", calls: 1},
		"RetryInfo past the deadline": {detail: time.Minute, calls: 1},
		"wait is left to the client":  {detail: 1500 * time.Millisecond, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			e.node.set(func(ctx context.Context, call int) error {
				if call > 1 {
					return nil
				}
				info, _ := connect.CallInfoForServerContext(ctx)
				if rule.pushback != "" {
					info.ResponseTrailer().Set("grpc-retry-pushback-ms", rule.pushback)
				}
				err := connect.NewError(connect.CodeUnavailable, "busy")
				if rule.detail > 0 {
					err = rpc.WithDetails(err, &errdetails.RetryInfo{RetryDelay: durationpb.New(rule.detail)})
				}
				return err
			})
			began := time.Now()
			got := e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
			if calls, _, _, _, _ := e.node.seen(); calls != rule.calls || (got.err == nil) != (rule.calls > 1) {
				t.Errorf("%d calls, want %d; %v", calls, rule.calls, got.err)
			}
			if took := time.Since(began); took < rule.atLeast {
				t.Errorf("retried after %v, want after %v", took, rule.atLeast)
			}
			if got.header("Grpc-Retry-Pushback-Ms") != "" {
				t.Error("the pushback is passed on to the client")
			}
		})
	}
}

func TestProbes_TenantsLeaveUnreadyNode(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		c.Probes = probe.Config{Every: 10 * time.Millisecond, FanOut: fanout.Config{TTL: time.Millisecond}}
	})
	one, two := startMember(t, contextkit.KindProjection, "one"), startMember(t, contextkit.KindProjection, "two")
	e.replace(t, one, two)
	token := e.token(t, "acme", "query.read")
	answers := func() *member {
		one.set(nil)
		two.set(nil)
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			t.Fatal(got.err)
		}
		if calls, _, _, _, _ := one.seen(); calls == 1 {
			return one
		}
		return two
	}
	first := answers()
	first.unready.Store(true)
	eventually(t, "the tenant is moved", func() bool { return answers() != first })
	if _, text := e.adminGet(t, "/nodes"); !strings.Contains(text, `"answer":"NOT_SERVING"`) ||
		!strings.Contains(text, `"answer":"SERVING"`) {
		t.Errorf("/nodes: %s", text)
	}
	first.unready.Store(false)
	eventually(t, "the tenant is moved back", func() bool { return answers() == first })
}

// checkPlatformContract compares a call's headers with the transport contract of a platform call.
func checkPlatformContract(t *testing.T, header http.Header) {
	t.Helper()
	for _, name := range []string{"X-Correlation-Id", "Traceparent", "X-Request-Id"} {
		if len(header[name]) != 1 || header.Get(name) == "" {
			t.Errorf("%s is %q, want one value", name, header[name])
		}
	}
	if _, there := header["X-Tenant-Id"]; there {
		t.Error("a platform call names a tenant")
	}
	if header.Get("Grpc-Timeout") == "" {
		t.Error("the call has no deadline")
	}
}

func TestProbes_CarryContract(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		c.Probes = probe.Config{Every: 10 * time.Millisecond, FanOut: fanout.Config{TTL: time.Millisecond}}
	})
	m := startMember(t, contextkit.KindProjection, "one")
	e.replace(t, m)
	eventually(t, "the node receives the call", func() bool { return m.lastProbe() != nil })
	checkPlatformContract(t, m.lastProbe())
}

func TestNodes_ListsNodesThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	e := start(t, nil)
	one, two := startMember(t, contextkit.KindProjection, "one"), startMember(t, contextkit.KindRunner, "two")
	dead := &member{node: route.Node{
		ID:       "dead",
		Kind:     contextkit.KindRunner,
		Endpoint: "127.0.0.1:1",
		Ready:    true,
	}}
	e.replace(t, one, two, dead)
	type fleet struct {
		Nodes []struct{ ID, Answer, Error string }
	}
	var view fleet
	var asked []http.Header // what the two that answer were asked with
	at := *e
	at.url = e.admin
	eventually(t, "the snapshot is made for the request and lists the nodes", func() bool {
		_, text := at.http(t, http.MethodGet, "/nodes", "", "X-Correlation-Id", "fleet-1", "Traceparent", traceparent)
		view = fleet{}
		if err := json.Unmarshal([]byte(text), &view); err != nil {
			t.Fatal(err)
		}
		asked = []http.Header{one.lastProbe(), two.lastProbe()}
		ours := !slices.ContainsFunc(asked,
			func(header http.Header) bool { return header.Get("X-Correlation-Id") != "fleet-1" })
		return len(view.Nodes) == 3 && ours
	})
	for _, node := range view.Nodes {
		if (node.ID == "dead") != (node.Error != "") || (node.ID == "dead") == (node.Answer == "SERVING") {
			t.Errorf("%+v", node)
		}
	}
	for _, header := range asked {
		checkPlatformContract(t, header)
		if !strings.HasPrefix(header.Get("Traceparent"), traceparent[:36]) {
			t.Errorf("trace of the request: %q", header.Get("Traceparent"))
		}
	}
}

func TestRoute_NamedNodeNeedNotBeReady(t *testing.T) {
	e := start(t, nil)
	one, two := startMember(t, contextkit.KindRunner, "one"), startMember(t, contextkit.KindRunner, "two")
	one.node.Ready = false
	e.replace(t, one, two)
	token := e.token(t, "*", "runner.admin")
	status := func(query string) (int, string) {
		return e.http(t, http.MethodGet, "/admin/runner/status"+query, "", "Authorization", token)
	}
	if code, text := status("?node=one"); code != http.StatusOK || one.statuses.Load() != 1 {
		t.Errorf("node that is not ready: %d %s", code, text)
	}
	if code, text := status("?node=two"); code != http.StatusOK || two.statuses.Load() != 1 {
		t.Errorf("ready node: %d %s", code, text)
	}
	if code, text := status("?node=three"); code != http.StatusNotFound ||
		!strings.Contains(text, `no runner node is called \"three\"`) {
		t.Errorf("unknown node: %d %s", code, text)
	}
	if code, text := status(""); code != http.StatusBadRequest ||
		!strings.Contains(text, "name one of them (one, two)") {
		t.Errorf("no node named, two nodes: %d %s", code, text)
	}
	e.replace(t, one)
	if code, text := status(""); code != http.StatusOK || one.statuses.Load() != 2 {
		t.Errorf("no node named, one node: %d %s", code, text)
	}
}

func TestRoute_DrainedNodeAnswersReads(t *testing.T) {
	e := start(t, nil)
	drained, failing := startMember(t, contextkit.KindRunner, "drained"), startMember(t, contextkit.KindRunner,
		"failing")
	drained.node.Ready, drained.node.Drained, drained.node.Refusal = false, true, "operators have drained the node"
	failing.node.Ready = false
	e.replace(t, drained, failing)
	token := e.token(t, "*", "workflow.read", "runner.admin")
	const instances = "/admin/runner/tenants/acme/workflows"
	if code, text := e.http(t, http.MethodGet, instances, "", "Authorization", token); code != http.StatusOK ||
		drained.lists.Load() != 1 {
		t.Errorf("a read: %d %s, %d lists at the drained node", code, text, drained.lists.Load())
	}
	if code, text := e.http(t, http.MethodPost, instances+"/transfer/t:retry", "{}", "Authorization", token,
		"Content-Type", "application/json"); code != http.StatusServiceUnavailable ||
		!strings.Contains(text, "no runner node is ready: operators have drained the node") {
		t.Errorf("a change: %d %s", code, text)
	}
	ready := startMember(t, contextkit.KindRunner, "ready")
	e.replace(t, drained, ready)
	if code, text := e.http(t, http.MethodGet, instances, "", "Authorization", token); code != http.StatusOK ||
		ready.lists.Load() != 1 {
		t.Errorf("a read beside a ready node: %d %s", code, text)
	}
	e.replace(t, failing)
	if code, _ := e.http(t, http.MethodGet, instances, "", "Authorization",
		token); code != http.StatusServiceUnavailable {
		t.Errorf("a read of a node that is not ready: %d", code)
	}
}

func TestAdmission_OperatorsAreAdmittedWhenFull(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.MaxConcurrent, c.TenantShare = 10, 1 })
	m := startMember(t, contextkit.KindProjection, "p")
	operated := startMember(t, contextkit.KindRunner, "r")
	e.replace(t, m, operated)
	release, entered := make(chan struct{}), make(chan struct{}, 20)
	m.set(func(context.Context, int) error {
		entered <- struct{}{}
		<-release
		return nil
	})
	token := e.token(t, "*", "query.read", "runner.admin")
	var calls sync.WaitGroup
	for range 9 {
		calls.Go(func() {
			if got := e.query(
				t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token, "X-Tenant-Id", "acme",
			); got.err != nil {
				t.Error(got.err)
			}
		})
	}
	for range 9 {
		<-entered
	}
	if got := e.query(
		t, "connect+json", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token, "X-Tenant-Id", "acme",
	); got.code != connect.CodeResourceExhausted {
		t.Errorf("tenth query: %v", got.err)
	}
	if code, text := e.http(
		t, http.MethodGet, "/admin/runner/status", "", "Authorization", token,
	); code != http.StatusOK {
		t.Errorf("operator: %d %s", code, text)
	}
	if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
		text, `headgate_shed_total{priority="normal",process="gateway"} 1`,
	) || !strings.Contains(text, `headgate_in_flight{process="gateway"} 9`) {
		t.Errorf("the metrics do not show it:\n%s", text)
	}
	close(release)
	calls.Wait()
}

func TestAdmin_HasSeparateServer(t *testing.T) {
	e := start(t, nil)
	if !strings.HasPrefix(e.admin, "http://127.0.0.1:") || e.admin == e.url {
		t.Errorf("the operators' server listens on %s, want a loopback address", e.admin)
	}
	for _, path := range []string{"/metrics", "/nodes", "/debug/pprof/"} {
		if code, text := e.http(t, http.MethodGet, path, ""); code != http.StatusNotFound {
			t.Errorf("the public port serves %s: %d %s", path, code, text)
		}
		if code, _ := e.adminGet(t, path); code != http.StatusOK {
			t.Errorf("the operators' server does not serve %s: %d", path, code)
		}
	}
	_, text := e.adminGet(t, "/metrics")
	for _, name := range []string{
		"headgate_in_flight", "headgate_shed_total", "headgate_upstream_channels", "headgate_upstream_in_flight",
		"headgate_upstream_channels_made_total",
		"headgate_upstream_channels_evicted_total", "headgate_node_ready", "headgate_routing_epoch",
		"headgate_probes_total",
	} {
		if !strings.Contains(text, "\n"+name+"{") {
			t.Errorf("missing metric %s", name)
		}
	}
}

// A node whose announcements ended is shown as not ready until it returns.
func TestMetrics_LostNodeIsNotReady(t *testing.T) {
	e := start(t, nil)
	one, two := startMember(t, contextkit.KindProjection, "one"), startMember(t, contextkit.KindProjection, "two")
	shown := func(want ...string) {
		t.Helper()
		_, text := e.adminGet(t, "/metrics")
		if got := regexp.MustCompile(
			`headgate_node_ready\{kind="projection",node="(?:one|two)",process="gateway"\} \d`,
		).FindAllString(text, -1); len(got) != len(want) || !strings.HasSuffix(got[0], want[0]) ||
			!strings.HasSuffix(got[len(got)-1], want[len(want)-1]) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	e.replace(t, one)
	e.routes.SetLost([]route.Node{two.node})
	shown("1", "0")
	e.replace(t, one, two)
	shown("1", "1")
	e.replace(t, one)
	e.routes.SetLost(nil)
	shown("1")
}

func TestProbes_CallsOfSilentNodeAreDiverted(t *testing.T) {
	for name, change := range map[string]func(*gateway.Config){
		"probes find the node": func(c *gateway.Config) {
			c.Probes = probe.Config{
				Every:  10 * time.Millisecond,
				FanOut: fanout.Config{TTL: time.Millisecond, Timeout: 50 * time.Millisecond},
			}
		},
		// One probe is unanswered when the table loses the node.
		"the node's announcements end": func(c *gateway.Config) {
			c.Probes = probe.Config{
				Every:  10 * time.Millisecond,
				FanOut: fanout.Config{TTL: time.Millisecond, Timeout: 300 * time.Millisecond},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := start(t, change)
			one, two := startMember(t, contextkit.KindProjection,
				"one"), startMember(t, contextkit.KindProjection, "two")
			e.replace(t, one, two)
			token := e.token(t, "acme", "query.read")
			wallets := &projectionv1.QueryRequest{View: "wallets"}
			tenant, err := contextkit.ParseTenantID("acme")
			if err != nil {
				t.Fatal(err)
			}
			silent, other := one, two
			if node, _ := e.routes.Lookup(contextkit.KindProjection, tenant); node.ID == two.node.ID {
				silent, other = two, one
			}
			silent.hang()
			var group sync.WaitGroup
			const calls = 5
			for range calls {
				group.Go(func() {
					began := time.Now()
					if got := e.query(t, "grpc", wallets, "Authorization", token); got.err != nil {
						t.Errorf("after %v: %v", time.Since(began), got.err)
					}
				})
			}
			if name == "the node's announcements end" {
				eventually(t, "calls and a probe wait", func() bool {
					made, _, _, _, _ := silent.seen()
					return made == calls && silent.waits.Load()
				})
				e.replace(t, other)
			}
			group.Wait()
		})
	}
}
