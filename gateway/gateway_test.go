package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"connectrpc.com/grpcreflect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	commandsconnect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	_ "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/fastpath"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/compression"
	"github.com/headgate/headgate/internal/streams"
)

func TestMain(m *testing.M) {
	if os.Getenv(conformanceDescriptor) != "" {
		if err := serveConformance(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	natstest.Main(m)
}

// upstreamNode is a real node on loopback that records the requests that it receives.
type upstreamNode struct {
	queriesconnect.UnimplementedQueryServiceHandler
	commandsconnect.UnimplementedCommandServiceHandler

	mu      sync.Mutex
	calls   int
	header  map[string][]string
	context contextkit.RequestContext
	left    time.Duration // of the deadline
	query   *projectionv1.QueryRequest
	answer  func(ctx context.Context, call int) error

	cacheControl atomic.Pointer[string]
}

func (u *upstreamNode) note(ctx context.Context) error {
	u.mu.Lock()
	u.calls++
	call, answer := u.calls, u.answer
	info, _ := connect.CallInfoForServerContext(ctx)
	u.header = map[string][]string{}
	for key, values := range info.RequestHeader().All() {
		u.header[strings.ToLower(key)] = values
	}
	u.context, _ = contextkit.FromContext(ctx)
	u.left = 0
	if deadline, ok := ctx.Deadline(); ok {
		u.left = time.Until(deadline)
	}
	u.mu.Unlock()
	info.ResponseHeader().Set("x-node", "one")
	if value := u.cacheControl.Load(); value != nil && *value != "" {
		info.ResponseHeader().Set("cache-control", *value)
	}
	info.ResponseHeader().Set("x-node-bin", connect.EncodeBinaryHeader([]byte{0, 1, 254}))
	info.ResponseTrailer().Set("x-cost", "7")
	if answer != nil {
		return answer(ctx, call)
	}
	return nil
}

func (u *upstreamNode) Query(ctx context.Context, req *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	if err := u.note(ctx); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.query = req
	if req.GetView() == largeView {
		row, err := structpb.NewStruct(map[string]any{"text": strings.Repeat("x", largeBytes)})
		return &projectionv1.QueryResponse{Rows: []*structpb.Struct{row}}, err
	}
	row, err := structpb.NewStruct(
		map[string]any{"view": req.GetView(), "tenant": req.GetTenantId(), "none": nil, "list": []any{1.5, true}},
	)
	return &projectionv1.QueryResponse{Rows: []*structpb.Struct{row}, Position: "p"}, err
}

// largeView is the view whose answers have about largeBytes bytes.
const (
	largeView  = "large"
	largeBytes = 1 << 20
)

func (u *upstreamNode) Submit(ctx context.Context, _ *aggregatev1.SubmitRequest) (*aggregatev1.SubmitResponse, error) {
	return &aggregatev1.SubmitResponse{Version: 1}, u.note(ctx)
}

func (u *upstreamNode) set(answer func(ctx context.Context, call int) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calls, u.answer = 0, answer
}

func (u *upstreamNode) seen() (
	calls int, header map[string][]string, rc contextkit.RequestContext, left time.Duration,
	query *projectionv1.QueryRequest,
) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls, u.header, u.context, u.left, u.query
}

// edge is a gateway on loopback in front of an upstreamNode.
type edge struct {
	url    string
	admin  string
	grpc   string // the URL for gRPC alone
	routes *route.Table
	edge   *gateway.Gateway
	node   *upstreamNode
	js     jetstream.JetStream
	issuer *auth.Issuer
	plain  *http.Client
	h2c    *http.Client
}

func start(t testing.TB, change func(*gateway.Config)) *edge { return startWith(t, change, nil) }

// startWith is start with a further service, given by its descriptor set and its registration at
// the node.
func startWith(t testing.TB, change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
	t.Helper()
	return startUpstream(t, overMainPort, change, register, sets...)
}

// upstreamTransport is the transport of upstream calls.
type upstreamTransport string

const (
	overMainPort upstreamTransport = "over gRPC"
	overGRPCPort upstreamTransport = "over the gRPC-only port"
	inProcess    upstreamTransport = "in process"
	// allPlain is overGRPCPort with the plain implementation of every fast path, in the gateway and in the node.
	allPlain upstreamTransport = "with plain implementations"
)

// starter is [startWith] with a fixed transport of upstream calls.
type starter func(change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge

// everyUpstream runs a test with nodes that are called over gRPC, at each of their ports, and with a
// node in the gateway's process; and with the plain implementation of every fast path.
func everyUpstream(t *testing.T, test func(t *testing.T, start starter)) {
	t.Helper()
	for _, transport := range []upstreamTransport{overMainPort, overGRPCPort, inProcess, allPlain} {
		if transport == allPlain && testing.Short() {
			continue
		}
		t.Run(string(transport), func(t *testing.T) {
			test(t, func(change func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
				return startUpstream(t, transport, change, register, sets...)
			})
		})
	}
}

// startUpstream is startWith with a transport of upstream calls.
func startUpstream(
	t testing.TB, transport upstreamTransport, change func(*gateway.Config), register func(*connect.Server),
	sets ...[]byte,
) *edge {
	t.Helper()
	// NATS stops after the gateway, which stores its last audit records when it stops.
	e := &edge{node: &upstreamNode{}, js: natstest.Start(t)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	serve := func(run func(context.Context) error) {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	var paths fastpath.Paths
	if transport == allPlain {
		paths = fastpath.AllPlain()
	}
	server := rpc.NewServer(rpc.Config{
		Name:      "node",
		Addr:      "127.0.0.1:0",
		GRPC:      "127.0.0.1:0",
		FastPaths: paths,
	},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	queriesconnect.RegisterQueryServiceHandler(server.RPC, e.node)
	commandsconnect.RegisterCommandServiceHandler(server.RPC, e.node)
	if register != nil {
		register(server.RPC)
	}
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve(server.Serve)
	endpoint := server.Addr()
	if transport == overGRPCPort || transport == allPlain {
		endpoint = server.GRPCAddr()
	}

	var err error
	if e.issuer, err = auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate"); err != nil {
		t.Fatal(err)
	}
	accepted, err := e.issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.routes = route.NewTable()
	if err := e.routes.Replace([]route.Node{
		{ID: "a", Kind: contextkit.KindAggregate, Endpoint: endpoint, Ready: true},
		{ID: "p", Kind: contextkit.KindProjection, Endpoint: endpoint, Ready: true},
		{ID: "t", Kind: "ticker", Endpoint: endpoint, Ready: true},
		{ID: "gone", Kind: contextkit.KindRunner, Endpoint: "127.0.0.1:1", Ready: true},
	}, nil); err != nil {
		t.Fatal(err)
	}
	config := gateway.Config{
		Listen: rpc.Config{
			Name:      "gateway",
			Addr:      "127.0.0.1:0",
			GRPC:      "127.0.0.1:0",
			FastPaths: paths,
		},
		Auth:     accepted,
		Probes:   probe.Config{Every: time.Hour}, // once, so that tests say what is ready
		Upstream: upstream.PoolConfig{FastPaths: paths},
	}
	if transport == inProcess {
		local := server.InProcess(frame.GRPCCodec{})
		config.Upstream.Local = func(at string) upstream.Opener {
			if at != endpoint {
				return nil
			}
			return local
		}
	}
	if change != nil {
		change(&config)
	}
	catalog, err := policy.NewCatalog(sets...)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(config, catalog, e.routes, e.js, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	serve(g.Serve)
	e.edge = g
	e.url, e.admin, e.grpc = g.URL(), g.AdminURL(), "http://"+g.GRPCAddr()
	e.plain = &http.Client{Transport: &http.Transport{}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	e.h2c = &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(e.plain.CloseIdleConnections)
	t.Cleanup(e.h2c.CloseIdleConnections)
	return e
}

// token issues a token; tenants are separated by commas.
func (e *edge) token(t testing.TB, tenants string, rights ...string) string {
	t.Helper()
	p := &auth.Principal{Subject: "app"}
	for name := range strings.SplitSeq(tenants, ",") {
		if name == "*" {
			p.AnyTenant = true
			continue
		}
		p.Tenants = append(p.Tenants, natstest.Tenant(t, name))
	}
	for _, text := range rights {
		right, err := auth.ParseRight(text)
		if err != nil {
			t.Fatal(err)
		}
		p.Rights = append(p.Rights, right)
	}
	token, err := e.issuer.Issue(p, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}

// protocols are the protocols for Query and Submit, each with a plain client that adds no headers.
var protocols = []string{"connect+json", "connect+proto", "connect+get", "grpc", "native grpc", "grpcweb", "rest"}

// client returns a client of the protocol without contextkit: the test writes every header.
func (e *edge) client(protocol string) *connect.Client {
	options := map[string][]connecthttp.Option{
		"connect+json": {connecthttp.WithProtoJSON()}, "connect+proto": {}, "connect+get": {connecthttp.WithHTTPGet()},
		"grpc": {connecthttp.WithGRPC()}, "native grpc": {connecthttp.WithGRPC()},
		"grpcweb": {connecthttp.WithGRPCWeb()},
	}[protocol]
	httpClient, url := e.plain, e.url
	switch protocol {
	case "grpc":
		httpClient = e.h2c
	case "native grpc":
		httpClient, url = e.h2c, e.grpc
	}
	return connect.NewClient(connecthttp.NewTransport(httpClient, url, options...))
}

// result is an answer of any protocol.
type result struct {
	res    *projectionv1.QueryResponse
	code   connect.Code // 0 for none
	err    *connect.Error
	header func(string) string
}

// query calls Query over a protocol with the headers in pairs.
func (e *edge) query(t *testing.T, protocol string, req *projectionv1.QueryRequest, header ...string) result {
	t.Helper()
	if protocol == "rest" {
		return e.queryREST(t, req, header...)
	}
	ctx, info := connect.NewClientContext(t.Context())
	for i := 0; i < len(header); i += 2 {
		info.RequestHeader().Add(header[i], header[i+1])
	}
	res, err := queriesconnect.NewQueryServiceClient(e.client(protocol)).Query(ctx, req)
	out := result{res: res, header: func(name string) string {
		if value := info.ResponseHeader().Get(name); value != "" {
			return value
		}
		return info.ResponseTrailer().Get(name)
	}}
	if err != nil {
		out.code = connect.CodeOf(err)
		errors.As(err, &out.err)
	}
	return out
}

func (e *edge) queryREST(t *testing.T, req *projectionv1.QueryRequest, header ...string) result {
	t.Helper()
	body := map[string]any{}
	if req.GetTenantId() != "" {
		body["tenantId"] = req.GetTenantId()
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	httpReq, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/query/"+req.GetView(),
		strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	httpReq.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		httpReq.Header.Add(header[i], header[i+1])
	}
	res, err := e.plain.Do(httpReq)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := result{header: res.Header.Get}
	if res.StatusCode == http.StatusOK {
		out.res = &projectionv1.QueryResponse{}
		if err := connectproto.NewJSONCodec().UnmarshalRead(
			t.Context(), strings.NewReader(string(raw)), out.res,
		); err != nil {
			t.Fatal(err)
		}
		return out
	}
	var refusal struct {
		Code, Message string
		Details       []struct{ Type, Value string }
	}
	if err := json.Unmarshal(raw, &refusal); err != nil {
		t.Fatalf("status %d: %s", res.StatusCode, raw)
	}
	if err := out.code.UnmarshalText([]byte(refusal.Code)); err != nil {
		t.Fatal(err)
	}
	out.err = connect.NewError(out.code, refusal.Message)
	for _, d := range refusal.Details {
		value, err := connect.DecodeBinaryHeader(d.Value)
		if err != nil {
			t.Fatal(err)
		}
		out.err = out.err.WithDetail(&connect.ErrorDetail{Type: d.Type, Value: value})
	}
	return out
}

// http sends a plain request with the headers in pairs; empty values are left out.
func (e *edge) http(t *testing.T, method, path, body string, header ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Add(header[i], header[i+1])
		}
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestContract_RoundTripsOverEveryProtocol(t *testing.T) {
	everyUpstream(t, theContractReachesTheNodeAndComesBackOverEveryProtocol)
}

func theContractReachesTheNodeAndComesBackOverEveryProtocol(t *testing.T, start starter) {
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
	everyUpstream(t, aNodesErrorSurvivesEveryProtocol)
}

func aNodesErrorSurvivesEveryProtocol(t *testing.T, start starter) {
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

func TestTenant_MustAgreeWithCredential(t *testing.T) {
	e := start(t, nil)
	one, both := e.token(t, "acme", "query.read"), e.token(t, "acme,globex", "query.read")
	cases := []struct {
		name, token, header, body string
		want                      string // tenant that the node sees, or "" when refused
		code                      connect.Code
	}{
		{"nowhere", one, "", "", "acme", 0},
		{"in the header", one, "acme", "", "acme", 0},
		{"in the message", one, "", "acme", "acme", 0},
		{"foreign tenant in the header", one, "globex", "", "", connect.CodePermissionDenied},
		{"foreign tenant in the message", one, "", "globex", "", connect.CodePermissionDenied},
		{
			"own tenant in the header, foreign tenant in the message", one, "acme", "globex", "",
			connect.CodePermissionDenied,
		},
		{
			"foreign tenant in the header, own tenant in the message", one, "globex", "acme", "",
			connect.CodePermissionDenied,
		},
		{"no tenant, credential for two", both, "", "", "", connect.CodeInvalidArgument},
		{"in the header, credential for two", both, "globex", "", "globex", 0},
		{"in the message, credential for two", both, "", "globex", "globex", 0},
		{"two tenants of the credential", both, "acme", "globex", "", connect.CodePermissionDenied},
		{"no tenant", one, "*", "", "", connect.CodeInvalidArgument},
	}
	for _, protocol := range protocols {
		for _, tc := range cases {
			t.Run(protocol+"/"+tc.name, func(t *testing.T) {
				e.node.set(nil)
				header := []string{"Authorization", tc.token}
				if tc.header != "" {
					header = append(header, "X-Tenant-Id", tc.header)
				}
				got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets", TenantId: tc.body}, header...)
				calls, _, rc, _, _ := e.node.seen()
				if got.code != tc.code || (calls > 0) != (tc.want != "") ||
					(tc.want != "" && rc.TenantID.String() != tc.want) {
					t.Fatalf("code %v, %d calls of the node for %q; want %v and %q", got.code, calls, rc.TenantID,
						tc.code, tc.want)
				}
			})
		}
		t.Run(protocol+"/twice in the header", func(t *testing.T) {
			e.node.set(nil)
			got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", one,
				"X-Tenant-Id", "acme", "X-Tenant-Id", "acme")
			if calls, _, _, _, _ := e.node.seen(); got.code != connect.CodeInvalidArgument || calls != 0 {
				t.Fatalf("code %v, %d calls of the node", got.code, calls)
			}
		})
	}
}

func TestTenant_IgnoredPlacesAreNotForwarded(t *testing.T) {
	e := start(t, nil)
	one := e.token(t, "acme", "query.read", "runner.admin", "workflow.read")
	// A place that counts names another tenant: the call is denied before it reaches a node.
	for name, refused := range map[string]struct{ method, path, body string }{
		"in the query":               {http.MethodGet, "/v1/query/wallets?tenant_id=globex", ""},
		"in the query, by JSON name": {http.MethodGet, "/v1/query/wallets?tenantId=globex", ""},
		"twice in the query":         {http.MethodGet, "/v1/query/wallets?tenant_id=acme&tenant_id=globex", ""},
		"under both names":           {http.MethodGet, "/v1/query/wallets?tenant_id=acme&tenantId=globex", ""},
		"in the path":                {http.MethodPost, "/admin/runner/tenants/globex/pause", "{}"},
		"in the path, encoded":       {http.MethodPost, "/admin/runner/tenants/%67lobex/pause", "{}"},
		"in the path and the body":   {http.MethodPost, "/admin/runner/tenants/acme/pause", `{"tenantId":"globex"}`},
		"in the path of a workflow":  {http.MethodGet, "/admin/runner/tenants/globex/workflows/transfer/t", ""},
		"in Connect's message of GET": {
			http.MethodGet,
			`/projection.gateway.v1.QueryService/Query?connect=v1&encoding=json&message={"view":"wallets","tenantId":"globex"}`,
			"",
		},
		"in the body, under two names": {
			http.MethodPost, "/v1/query/wallets", `{"tenantId":"acme","tenant_id":"globex"}`,
		},
	} {
		status, text := e.http(t, refused.method, refused.path, refused.body, "Authorization", one)
		if status != http.StatusForbidden && status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if calls, _, _, _, _ := e.node.seen(); calls != 0 {
		t.Fatalf("%d calls of the node", calls)
	}
	// A place that does not count changes nothing.
	for _, protocol := range protocols {
		for name, header := range map[string][]string{
			"NATS header":        {"Tenant-Id", "globex"},
			"similar header":     {"X_Tenant_Id", "globex"},
			"binary header":      {"X-Tenant-Id-Bin", connect.EncodeBinaryHeader([]byte("globex"))},
			"gRPC-like prefix":   {"Grpc-X-Tenant-Id", "globex"},
			"forwarded identity": {"X-Forwarded-User", "globex"},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				e.node.set(nil)
				req := &projectionv1.QueryRequest{View: "wallets"}
				if protocol != "rest" && protocol != "connect+get" {
					req.Metadata = map[string]string{
						"tenant_id": "globex", "x-tenant-id": "globex", "tenant-id": "globex",
					}
				}
				got := e.query(t, protocol, req, append(header, "Authorization", one)...)
				if _, seen, rc, _, query := e.node.seen(); got.err != nil || rc.TenantID.String() != "acme" ||
					query.GetTenantId() != "acme" || len(seen["x-tenant-id"]) != 1 {
					t.Errorf("%v; the node's tenant is %q, x-tenant-id %q", got.err, rc.TenantID, seen["x-tenant-id"])
				}
			})
		}
	}
}

func TestAuthorize_MissingRightIsDenied(t *testing.T) {
	e := start(t, nil)
	for _, protocol := range protocols {
		for name, tc := range map[string]struct {
			token string
			code  connect.Code
		}{
			"no credential":   {"", connect.CodeUnauthenticated},
			"no rights":       {e.token(t, "acme"), connect.CodePermissionDenied},
			"other right":     {e.token(t, "acme", "command.submit"), connect.CodePermissionDenied},
			"other view":      {e.token(t, "acme", "query.read:orders*"), connect.CodePermissionDenied},
			"the view":        {e.token(t, "acme", "query.read:wallets"), 0},
			"views by prefix": {e.token(t, "acme", "query.read:wal*"), 0},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				e.node.set(nil)
				var header []string
				if tc.token != "" {
					header = []string{"Authorization", tc.token}
				}
				got := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, header...)
				if calls, _, _, _, _ := e.node.seen(); got.code != tc.code || (calls > 0) != (tc.code == 0) {
					t.Fatalf("code %v, %d calls of the node; want %v", got.code, calls, tc.code)
				}
			})
		}
	}
}

func TestAuthorize_EveryCommandOfBatchNeedsRight(t *testing.T) {
	e := start(t, nil)
	wallets := e.token(t, "acme", "command.submit:wallet*")
	for body, want := range map[string]int{
		`{"commands":[{"aggregateType":"wallet"},{"aggregateType":"wallets"}]}`:  http.StatusOK,
		`{"commands":[{"aggregateType":"wallet"},{"aggregateType":"transfer"}]}`: http.StatusForbidden,
		`{"commands":[{"aggregateType":"wallet"},{"aggregateId":"x"}]}`:          http.StatusForbidden,
		`{"commands":[]}`: http.StatusOK, // nothing that could be refused; the node says what it thinks of it
	} {
		status, text := e.http(t, http.MethodPost, "/v1/commands:batch", body, "Authorization", wallets)
		if status == http.StatusBadRequest || status == http.StatusNotImplemented {
			status = http.StatusOK // it has reached the node, which knows no batches
		}
		if status != want {
			t.Errorf("%s: %d, want %d: %s", body, status, want, text)
		}
	}
}

func TestStanding_PlatformCallNeedsCredentialForAllTenants(t *testing.T) {
	t.Parallel()
	e := start(t, nil)
	for token, want := range map[string]int{
		e.token(t, "acme", "runner.admin"): http.StatusForbidden, e.token(t, "*", "query.read"): http.StatusForbidden,
		e.token(t, "*", "runner.admin"): http.StatusServiceUnavailable, // it was admitted, and this runner is absent
	} {
		if status, text := e.http(
			t, http.MethodPost, "/admin/runner/drain", "{}", "Authorization", token,
		); status != want {
			t.Errorf("status %d, want %d: %s", status, want, text)
		}
	}
}

// patient keeps breakers closed in tests of other subjects.
func patient(config *gateway.Config) { config.Breakers.Failures = 1000 }

func TestRetry_OnlySafeCallsAreRetried(t *testing.T) {
	everyUpstream(t, onlyWhatIsSafeToRepeatIsTriedAgain)
}

func onlyWhatIsSafeToRepeatIsTriedAgain(t *testing.T, start starter) {
	e := start(patient, nil)
	token := e.token(t, "acme", "query.read", "command.submit")
	commands := commandsconnect.NewCommandServiceClient(e.client("grpc"))
	submit := func(key string) error {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", token)
		_, err := commands.Submit(ctx, &aggregatev1.SubmitRequest{
			AggregateType:  "wallet",
			AggregateId:    "w",
			Command:        "open",
			IdempotencyKey: key,
		})
		return err
	}
	unavailable := func(times int) func(context.Context, int) error {
		return func(_ context.Context, call int) error {
			if call <= times {
				return connect.NewError(connect.CodeUnavailable, "in a moment")
			}
			return nil
		}
	}
	query := func() error {
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			return got.err
		}
		return nil
	}
	cases := []struct {
		name   string
		times  int
		call   func() error
		calls  int
		failed bool
	}{
		{"query, transient failure", 2, query, 3, false},
		{"query, permanent failure", 9, query, 3, true},
		{"command without a key", 1, func() error { return submit("") }, 1, true},
		{"command with a key", 1, func() error { return submit("key") }, 2, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			e.node.set(unavailable(tc.times))
			err := tc.call()
			if calls, _, _, _, _ := e.node.seen(); calls != tc.calls || (err != nil) != tc.failed {
				t.Fatalf("%d calls, err = %v; want %d, failed %v", calls, err, tc.calls, tc.failed)
			}
		})
	}
	t.Run("non-retryable error", func(t *testing.T) {
		e.node.set(func(context.Context, int) error { return connect.NewError(connect.CodeInternal, "broken") })
		err := query()
		if calls, _, _, _, _ := e.node.seen(); err == nil || calls != 1 {
			t.Fatalf("%d calls, err = %v", calls, err)
		}
	})
}

func TestDeadline_ReachesNodeAndEndsItsWork(t *testing.T) {
	t.Parallel()
	everyUpstream(t, aDeadlineTravelsAndEndsTheNodesWork)
}

func aDeadlineTravelsAndEndsTheNodesWork(t *testing.T, start starter) {
	e := start(nil, nil)
	token := e.token(t, "acme", "query.read")
	for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb"} {
		t.Run(protocol, func(t *testing.T) {
			ended := make(chan error, 1)
			e.node.set(func(ctx context.Context, _ int) error {
				<-ctx.Done()
				ended <- ctx.Err()
				return ctx.Err()
			})
			ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
			defer cancel()
			ctx, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Authorization", token)
			_, err := queriesconnect.NewQueryServiceClient(e.client(protocol)).Query(ctx,
				&projectionv1.QueryRequest{View: "wallets"})
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Fatalf("err = %v", err)
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Fatal("the node's call was not canceled")
			}
			if _, _, _, left, _ := e.node.seen(); left <= 0 || left > 240*time.Millisecond {
				t.Errorf("the node's timeout is %v, want the client's 250 ms minus the gateway's margin", left)
			}
		})
	}
}

func TestForward_LostNodeIsUnavailableWithoutItsAddress(t *testing.T) {
	e := start(t, nil)
	status, text := e.http(t, http.MethodGet, "/admin/runner/status", "", "Authorization",
		e.token(t, "*", "runner.admin"))
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "the upstream cannot be reached") ||
		strings.Contains(text, "127.0.0.1") {
		t.Fatalf("%d %s", status, text)
	}
}

func TestAdmission_CallsBeyondBoundAreRejectedImmediately(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.MaxConcurrent = 1 })
	token := e.token(t, "acme", "query.read")
	entered, release := make(chan struct{}), make(chan struct{})
	e.node.set(func(context.Context, int) error {
		close(entered)
		<-release
		return nil
	})
	first := make(chan result, 1)
	go func() {
		first <- e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}()
	<-entered
	if got := e.query(
		t, "connect+json", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
	); got.code != connect.CodeResourceExhausted {
		t.Errorf("over the limit: %v", got.err)
	}
	close(release)
	if got := <-first; got.err != nil {
		t.Errorf("within the limit: %v", got.err)
	}
}

func TestQuota_NoisyTenantDoesNotAffectOthers(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Concurrent: 1} })
	noisy, quiet := e.token(t, "acme", "query.read"), e.token(t, "globex", "query.read")
	entered, release := make(chan struct{}), make(chan struct{})
	e.node.set(func(_ context.Context, call int) error {
		if call == 1 {
			close(entered)
			<-release
		}
		return nil
	})
	first := make(chan result, 1)
	go func() {
		first <- e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", noisy)
	}()
	<-entered
	got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", noisy)
	if got.code != connect.CodeResourceExhausted || len(got.err.Details()) != 2 {
		t.Errorf("over the tenant's limit: %v", got.err)
	}
	if got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", quiet); got.err != nil {
		t.Errorf("call of another tenant: %v", got.err)
	}
	close(release)
	if got := <-first; got.err != nil {
		t.Errorf("within the limit: %v", got.err)
	}
}

func TestRejections_ImpatientClientIsDelayed(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Rate: 0.1, Burst: 1} })
	token := e.token(t, "acme", "query.read")
	if got := e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token); got.err != nil {
		t.Fatal(got.err)
	}
	for n := range 3 {
		if got := e.query(
			t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.code != connect.CodeResourceExhausted || len(got.err.Details()) != 2 {
			t.Errorf("rejection %d: %v", n, got.err)
		}
		if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
			text, fmt.Sprintf(`headgate_rejections_delayed_total{process="gateway"} %d`, n),
		) {
			t.Errorf("%d refusals are not held back of %d:\n%s", n, n+1, text)
		}
	}
}

func TestBreaker_SilentNodeIsNotCalled(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "workflow.read")
	text := ""
	for range 4 { // each is tried up to three times
		var status int
		if status, text = e.http(
			t, http.MethodGet, "/admin/runner/tenants/acme/workflows/transfer/t", "", "Authorization", token,
		); status != http.StatusServiceUnavailable {
			t.Fatalf("status %d: %s", status, text)
		}
	}
	if !strings.Contains(text, "CIRCUIT_BREAKER_OPEN") || !strings.Contains(text, "RetryInfo") {
		t.Errorf("the node is still called: %s", text)
	}
	query := func() *connect.Error {
		return e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
			e.token(t, "acme", "query.read")).err
	}
	refusal := connect.NewError(connect.CodeUnavailable, "rejected by the node")
	e.node.set(func(context.Context, int) error {
		return rpc.WithDetails(refusal, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)})
	})
	for range 10 {
		if err := query(); err == nil || err.Message() != "rejected by the node" {
			t.Fatalf("a node that sent RetryInfo is not called: %v", err)
		}
	}
	e.node.set(func(context.Context, int) error { return refusal })
	for range 10 {
		_ = query()
	}
	if calls, _, _, _, _ := e.node.seen(); calls > 7 {
		t.Errorf("a node that rejects all calls is called %d times", calls)
	}
	if err := query(); err == nil || !strings.Contains(err.Message(), "does not answer") {
		t.Errorf("a node that rejects all calls is called: %v", err)
	}
}

func TestRetry_StaysWithinBudget(t *testing.T) {
	e := start(t, patient)
	token := e.token(t, "acme", "query.read")
	e.node.set(func(context.Context, int) error { return connect.NewError(connect.CodeUnavailable, "in trouble") })
	const requests = 150
	for range requests {
		e.query(t, "connect+proto", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}
	if calls, _, _, _, _ := e.node.seen(); calls > requests+requests/10+10 {
		t.Errorf("%d calls reach a failing node for %d requests, want a tenth more and the initial 10", calls,
			requests)
	}
}

func TestREST_SupportsEveryEncoding(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	e.node.set(nil)
	for _, c := range compression.All() {
		var packed strings.Builder
		w, err := c.Compress(&packed)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, `{"metadata":{"k":"`+strings.Repeat("v", 200)+`"}}`); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		send := func(body, encoding string) (int, string) {
			return e.http(
				t, http.MethodPost, "/v1/query/wallets", body, "Authorization", token, "Content-Type",
				"application/json",
				"Content-Encoding", encoding, "Accept-Encoding", c.Name()+";q=0.5, unknown",
			)
		}
		if status, text := send(packed.String(), c.Name()); status != http.StatusOK {
			t.Fatalf("%s: status %d: %s", c.Name(), status, text)
		}
		if _, _, _, _, query := e.node.seen(); len(query.GetMetadata()["k"]) != 200 {
			t.Errorf("%s: the node received %v", c.Name(), query)
		}
		if status, text := send("not compressed", c.Name()); status != http.StatusBadRequest {
			t.Errorf("%s: uncompressed body: status %d: %s", c.Name(), status, text)
		}
		if status, text := send("{}", "rot13"); status != http.StatusUnsupportedMediaType ||
			!strings.Contains(text, "supported: gzip, zstd, br") {
			t.Errorf("unknown encoding: status %d: %s", status, text)
		}
	}
	t.Run("decompression bomb is rejected", func(t *testing.T) {
		var bomb strings.Builder
		c := compression.All()[0]
		w, err := c.Compress(&bomb)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, `{"metadata":{"k":"`+strings.Repeat("v", 8<<20)+`"}}`)
		_ = w.Close()
		status, text := e.http(t, http.MethodPost, "/v1/query/wallets", bomb.String(), "Authorization", token,
			"Content-Encoding", c.Name())
		if status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d bytes that decompress to 8 MiB: status %d: %s", bomb.Len(), status, text)
		}
	})
}

func TestCORS_OnlyListedOriginsAreAllowed(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Origins = []gateway.Origin{{Origin: "https://app.example.com"}} })
	preflight := func(origin, method, headers string) http.Header {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodOptions,
			e.url+"/projection.gateway.v1.QueryService/Query", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		if method != "" { // else it is an OPTIONS request of the page itself
			req.Header.Set("Access-Control-Request-Method", method)
			req.Header.Set("Access-Control-Request-Headers", headers)
		}
		res, err := e.plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.Header
	}
	if header := preflight(
		"https://app.example.com", "POST",
		"authorization,connect-protocol-version,content-type,last-event-id,x-tenant-id",
	); header.Get("Access-Control-Allow-Origin") != "https://app.example.com" ||
		header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("response to the allowed origin: %v", header)
	}
	if header := preflight(
		"https://app.example.com", "HEAD", "authorization,idempotency-key,if-none-match",
	); header.Get("Access-Control-Allow-Methods") != "HEAD" || header.Get("Access-Control-Allow-Headers") == "" {
		t.Errorf("response to HEAD with REST headers: %v", header)
	}
	if exposed := preflight(
		"https://app.example.com", "", "",
	).Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, "Etag") ||
		!strings.Contains(exposed, "Retry-After") {
		t.Errorf("exposed headers %q", exposed)
	}
	if header := preflight(
		"https://evil.example.com", "POST", "content-type",
	); header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("response to another origin: %v", header)
	}
	for _, bad := range []string{
		"*", "app.example.com", "https://*.example.com", "https://app.example.com/", "file://x",
	} {
		catalog, err := policy.NewCatalog()
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := e.issuer.Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gateway.New(
			gateway.Config{Auth: accepted, Origins: []gateway.Origin{{Origin: bad}}}, catalog, route.NewTable(), e.js,
			zerolog.Nop(),
		); err == nil {
			t.Errorf("origin %q is valid, want an error", bad)
		}
	}
}

func TestExplain_NeedsRight(t *testing.T) {
	e := start(t, nil)
	asker, other := e.token(t, "acme", "query.read", "gateway.explain"), e.token(t, "acme", "query.read")
	explained := func(token, tenant string) (record struct {
		Decision, Reason, Node, Code string
		Attempts                     int
		Routing                      uint64 `json:"routing_revision"`
	}, given bool) {
		got := e.query(t, "connect+json", &projectionv1.QueryRequest{View: "wallets", TenantId: tenant},
			"Authorization", token, "X-Headgate-Explain", "1")
		text := got.header("X-Headgate-Decision")
		if text != "" {
			if err := json.Unmarshal([]byte(text), &record); err != nil {
				t.Fatal(err)
			}
		}
		return record, text != ""
	}
	if _, given := explained(other, ""); given {
		t.Error("Explain answers a principal without the right")
	}
	if r, _ := explained(asker, ""); r.Decision != "allowed" || r.Node != "p" || r.Attempts != 1 || r.Routing != 1 ||
		r.Code != "ok" {
		t.Errorf("successful call: %+v", r)
	}
	if r, _ := explained(asker, "globex"); r.Decision != "denied" ||
		!strings.HasPrefix(r.Reason, "TENANT_MISMATCH: ") || r.Node != "" {
		t.Errorf("denied call: %+v", r)
	}
}

func TestOpenAPI_NeedsCredential(t *testing.T) {
	e := start(t, nil)
	for token, want := range map[string]int{"": http.StatusUnauthorized, e.token(t, "acme"): http.StatusOK} {
		status, text := e.http(t, http.MethodGet, "/openapi.json", "", "Authorization", token)
		if status != want || (want == http.StatusOK) != strings.Contains(text, `"/v1/query/{view}"`) {
			t.Errorf("status %d, want %d: %.200s", status, want, text)
		}
	}
}

func TestReflection_NeedsCredential(t *testing.T) {
	e := start(t, nil)
	list := func(token string) (string, error) {
		ctx, info := connect.NewClientContext(t.Context())
		if token != "" {
			info.RequestHeader().Set("Authorization", token)
		}
		stream := grpcreflect.NewClient(e.client("grpc")).NewStream(ctx)
		defer stream.Close()
		names, err := stream.ListServices()
		return fmt.Sprint(names), err
	}
	if names, err := list(""); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("no credential: %s, %v", names, err)
	}
	names, err := list(e.token(t, "acme"))
	if err != nil || !strings.Contains(names, "projection.gateway.v1.QueryService") ||
		strings.Contains(names, "grpc.") {
		t.Errorf("%s, %v", names, err)
	}
}

func TestAudit_DenialsAndOperationsAreRecorded(t *testing.T) {
	e := start(t, nil)
	stream, err := e.js.Stream(t.Context(), streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	type record struct {
		Decision, Reason, Principal, Procedure, Right, Code string
		CorrelationID                                       string `json:"correlation_id"`
	}
	next := func() (record, jetstream.Msg) {
		t.Helper()
		msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		var r record
		if err := json.Unmarshal(msg.Data(), &r); err != nil {
			t.Fatal(err)
		}
		return r, msg
	}
	// An answered query leaves no record: the first record is that of the denial.
	e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", e.token(t, "acme", "query.read"))
	e.query(t, "connect+json", &projectionv1.QueryRequest{View: "wallets", TenantId: "globex"}, "Authorization",
		e.token(t, "acme", "query.read"), "X-Correlation-Id", "spoof")
	denied, msg := next()
	if denied.Decision != "denied" || !strings.HasPrefix(denied.Reason, "TENANT_MISMATCH: ") ||
		denied.Principal != "app" || denied.Code != "permission_denied" ||
		denied.CorrelationID != "spoof" || !strings.HasSuffix(
		denied.Procedure, "/Query",
	) || msg.Headers().Get("x-correlation-id") != "spoof" {
		t.Errorf("audit record %s with %v", msg.Data(), msg.Headers())
	}

	e.http(t, http.MethodPost, "/admin/runner/drain", "{}", "Authorization", e.token(t, "*", "runner.admin"))
	operation, msg := next()
	if operation.Decision != "allowed" || operation.Right != "runner.admin" ||
		!strings.HasSuffix(operation.Procedure, "/Drain") ||
		operation.Code != "unavailable" || msg.Subject() != "audit._platform.operator" {
		t.Errorf("audit record %s on %s", msg.Data(), msg.Subject())
	}

	// The record has the operator's reason, whether or not the node answers; a denial has the
	// gateway's reason.
	const path, body = "/admin/runner/tenants/acme/workflows/transfer/t-1:cancel", `{"reason":"the customer has left"}`
	for _, tc := range []struct{ right, decision, reason, code, subject string }{
		{"runner.admin", "allowed", "the customer has left", "unavailable", "audit.acme.tenant"},
		{"query.read", "denied", "MISSING_RIGHT: ", "permission_denied", "audit.acme.denied"},
	} {
		e.http(t, http.MethodPost, path, body, "Authorization", e.token(t, "acme", tc.right))
		r, msg := next()
		if r.Decision != tc.decision || !strings.HasPrefix(r.Reason, tc.reason) ||
			tc.decision == "allowed" && r.Reason != tc.reason ||
			r.Code != tc.code || !strings.HasSuffix(r.Procedure, "/CancelWorkflow") || msg.Subject() != tc.subject {
			t.Errorf("%s: audit record %s on %s", tc.right, msg.Data(), msg.Subject())
		}
	}
}
