package rpc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a service on loopback.
type process struct {
	server *rpc.Server
	ready  atomic.Pointer[error]
	views  *views
	stop   func() error
	plain  *http.Client
	h2c    *http.Client
}

type views struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
	list func(ctx context.Context) error
}

func (v *views) ListViews(
	ctx context.Context, _ *projectionv1.ListViewsRequest,
) (*projectionv1.ListViewsResponse, error) {
	if v.list != nil {
		if err := v.list(ctx); err != nil {
			return nil, err
		}
	}
	return &projectionv1.ListViewsResponse{Position: "p"}, nil
}

// Watch answers once, and sends metadata before, with and after the answer.
func (v *views) Watch(
	ctx context.Context, req *projectionv1.WatchRequest, stream gatewayv1connect.QueryServiceWatchServerStream,
) error {
	info, _ := connect.CallInfoForServerContext(ctx)
	info.ResponseHeader().Set("x-before", req.GetView())
	err := stream.Send(&projectionv1.WatchResponse{Position: "p"})
	info.ResponseTrailer().Set("x-after", "all")
	return err
}

func start(t *testing.T) *process {
	t.Helper()
	p := &process{views: &views{}, plain: &http.Client{Transport: &http.Transport{}}}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	p.h2c = &http.Client{Transport: &http.Transport{Protocols: protocols}}
	p.server = rpc.NewServer(rpc.Config{
		Name:            "views",
		Addr:            "127.0.0.1:0",
		GRPC:            "127.0.0.1:0",
		ShutdownTimeout: 5 * time.Second,
		BodyTimeout:     200 * time.Millisecond,
	}, func(_ context.Context, tenant contextkit.TenantID) error {
		if reason := p.ready.Load(); reason != nil {
			return *reason
		}
		if tenant.String() == "globex" {
			return errors.New("globex is elsewhere")
		}
		return nil
	}, zerolog.Nop())
	gatewayv1connect.RegisterQueryServiceHandler(p.server.RPC, p.views)
	ctx, cancel := context.WithCancel(context.Background())
	if err := p.server.Listen(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.server.Serve(ctx) }()
	p.stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() {
		p.plain.CloseIdleConnections()
		p.h2c.CloseIdleConnections()
		_ = p.stop()
	})
	return p
}

func (p *process) get(t *testing.T, path string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.server.URL()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	res, err := p.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// clients are the protocols that one port speaks, those of the port for gRPC alone, and
// the way within the process.
func (p *process) clients() map[string]*connect.Client {
	main, alone := p.server.URL(), "http://"+p.server.GRPCAddr()
	transport := func(client *http.Client, url string, options ...connecthttp.Option) *connect.Client {
		return contextkit.NewClient(connecthttp.NewTransport(client, url, options...))
	}
	return map[string]*connect.Client{
		"connect+json":    transport(p.plain, main, connecthttp.WithProtoJSON()),
		"connect+proto":   transport(p.plain, main),
		"grpcweb":         transport(p.plain, main, connecthttp.WithGRPCWeb()),
		"grpc":            transport(p.h2c, main, connecthttp.WithGRPC()),
		"grpc alone":      transport(p.h2c, alone, connecthttp.WithGRPC()),
		"grpc+json alone": transport(p.h2c, alone, connecthttp.WithGRPC(), connecthttp.WithProtoJSON()),
		"in process":      contextkit.NewClient(p.server.InProcess(encoding.GetCodecV2(connect.CodecNameProto))),
	}
}

// everyHop runs a test over the ways that gateways call a service by: gRPC at the main port
// and at the one for it alone, and within the process.
func everyHop(t *testing.T, test func(t *testing.T, p *process, client *connect.Client)) {
	t.Helper()
	for _, name := range []string{"grpc", "grpc alone", "in process"} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			test(t, p, p.clients()[name])
		})
	}
}

func acme(t *testing.T) context.Context {
	t.Helper()
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	return contextkit.TenantContext(t.Context(), tenant)
}

func TestServer_ServesEveryProtocol(t *testing.T) {
	p := start(t)
	for name, client := range p.clients() {
		res, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(acme(t), &projectionv1.ListViewsRequest{})
		if err != nil || res.GetPosition() != "p" {
			t.Errorf("%s: %v, %v", name, res, err)
		}
	}
}

func TestHealth_AndReadinessAreTrue(t *testing.T) {
	p := start(t)
	cases := []struct {
		path   string
		status int
		text   string
	}{
		{"/health", 200, `"status":"alive"`}, {"/ready", 200, `"status":"ready"`},
		{"/ready?tenant=acme", 200, `"tenant":"acme"`},
		{"/ready?tenant=globex", 503, "globex is elsewhere"}, {"/ready?tenant=A.B", 400, "invalid tenant id"},
	}
	for _, tc := range cases {
		if status, text := p.get(t, tc.path); status != tc.status || !strings.Contains(text, tc.text) {
			t.Errorf("%s: %d %s, want %d with %s", tc.path, status, text, tc.status, tc.text)
		}
	}
	check := func(service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
		var res healthv1.HealthCheckResponse
		spec := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
		err := p.clients()["grpc"].CallUnary(contextkit.PlatformContext(t.Context()), spec,
			&healthv1.HealthCheckRequest{Service: service}, &res)
		return res.GetStatus(), err
	}
	for _, service := range []string{"", "projection.gateway.v1.QueryService"} {
		if status, err := check(service); err != nil || status != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("service %q: %v, %v", service, status, err)
		}
	}
	if _, err := check("nothing"); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("an unknown service: %v", err)
	}
	drained := errors.New("drained")
	p.ready.Store(&drained)
	if status, err := check(""); err != nil || status != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("when not ready: %v, %v", status, err)
	}
	if status, _ := p.get(t, "/health"); status != 200 {
		t.Errorf("liveness of a process that is not ready: %d", status)
	}
}

func TestHealth_WatchReportsChanges(t *testing.T) { everyHop(t, aWatchedHealthTellsOfChanges) }

func aWatchedHealthTellsOfChanges(t *testing.T, p *process, client *connect.Client) {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), 20*time.Second)
	defer cancel()
	stream, err := client.CallServerStream(
		ctx, connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer},
		&healthv1.HealthCheckRequest{},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	drained := errors.New("drained")
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{
		healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING,
	} {
		var res healthv1.HealthCheckResponse
		if err := stream.Receive(&res); err != nil || res.GetStatus() != want {
			t.Fatalf("%v, %v; want %v", res.GetStatus(), err, want)
		}
		p.ready.Store(&drained)
	}
}

func TestServer_StreamsEndWithTheProcess(t *testing.T) { everyHop(t, streamsEndWhenTheProcessDoes) }

func streamsEndWhenTheProcessDoes(t *testing.T, p *process, client *connect.Client) {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), 20*time.Second)
	defer cancel()
	stream, err := client.CallServerStream(
		ctx, connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer},
		&healthv1.HealthCheckRequest{},
	)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var res healthv1.HealthCheckResponse
	if err := stream.Receive(&res); err != nil {
		t.Fatal(err)
	}
	if err := p.stop(); err != nil {
		t.Errorf("the process waits for an endless stream: %v", err)
	}
	if err := stream.Receive(&res); connect.CodeOf(err) != connect.CodeUnavailable ||
		!strings.Contains(fmt.Sprint(err), "call again") {
		t.Errorf("the stream ends with %v", err)
	}
}

func TestServer_CanStopBeforeItHasStarted(t *testing.T) {
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for range 100 { // who comes first is up to the scheduler
		server := rpc.NewServer(rpc.Config{Name: "node", Addr: "127.0.0.1:0", GRPC: "127.0.0.1:0"},
			func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
		if err := server.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := server.Serve(stopped); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReflection_DescribesTheServices(t *testing.T) { everyHop(t, reflectionDescribesTheServices) }

func reflectionDescribesTheServices(t *testing.T, _ *process, client *connect.Client) {
	stream := grpcreflect.NewClient(client).NewStream(contextkit.PlatformContext(t.Context()))
	names, err := stream.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, name := range names {
		text += string(name) + " "
	}
	if !strings.Contains(text, "projection.gateway.v1.QueryService") ||
		!strings.Contains(text, "grpc.health.v1.Health") {
		t.Errorf("services: %s", text)
	}
	if files, err := stream.FileContainingSymbol("projection.gateway.v1.QueryService"); err != nil || len(files) == 0 {
		t.Errorf("%d files, %v", len(files), err)
	}
	if err := stream.Close(); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestMetrics_CountCallsByOutcome(t *testing.T) {
	p := start(t)
	client := gatewayv1connect.NewQueryServiceClient(p.clients()["grpc"])
	if _, err := client.ListViews(acme(t), &projectionv1.ListViewsRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get(
		acme(t), &projectionv1.GetRequest{View: "V"},
	); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Fatalf("the proto's rules are not checked: %v", err)
	}
	_, text := p.get(t, "/metrics")
	for _, want := range []string{
		`headgate_rpc_duration_seconds_count{code="ok",procedure="/projection.gateway.v1.QueryService/ListViews",process="views",protocol="grpc"} 1`,
		`headgate_rpc_duration_seconds_count{code="invalid_argument",procedure="/projection.gateway.v1.QueryService/Get",process="views",protocol="grpc"} 1`,
		`go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestRecover_PanicFailsOneCall(t *testing.T) {
	p := start(t)
	p.views.list = func(context.Context) error { panic("secret state") }
	client := gatewayv1connect.NewQueryServiceClient(p.clients()["connect+json"])
	_, err := client.ListViews(acme(t), &projectionv1.ListViewsRequest{})
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "secret") {
		t.Fatalf("err = %v", err)
	}
	p.views.list = nil
	if _, err := client.ListViews(acme(t), &projectionv1.ListViewsRequest{}); err != nil {
		t.Fatalf("the next call: %v", err)
	}
	_, text := p.get(t, "/metrics")
	for _, want := range []string{
		`headgate_rpc_duration_seconds_count{code="internal",procedure="/projection.gateway.v1.QueryService/ListViews",process="views",protocol="connect"} 1`,
		`headgate_rpc_in_flight{procedure="/projection.gateway.v1.QueryService/ListViews",process="views"} 0`,
		`headgate_panics_total{process="views"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

func TestBody_TricklingOneHoldsNoCall(t *testing.T) {
	p := start(t)
	entered := make(chan struct{}, 1)
	p.views.list = func(context.Context) error {
		entered <- struct{}{}
		return nil
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = io.WriteString(
		conn,
		"POST /projection.gateway.v1.QueryService/ListViews HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: "+
			"acme\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode < 400 {
		t.Errorf("status %d: %s; want an error", res.StatusCode, body)
	}
	if len(entered) > 0 {
		t.Error("a truncated message is decoded as a whole")
	}
}

func TestStream_EndsWithoutARequest(t *testing.T) {
	p := start(t)
	conn, err := grpc.NewClient("passthrough:///"+p.server.GRPCAddr(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), contextkit.HeaderTenantID, "acme"),
		20*time.Second)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		"/projection.gateway.v1.QueryService/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&projectionv1.WatchResponse{}); status.Code(err) != codes.DeadlineExceeded ||
		ctx.Err() != nil {
		t.Errorf("the stream ends with %v, its own time with %v", err, ctx.Err())
	}
}

func TestBody_RestIsNeverTheNextRequest(t *testing.T) {
	p := start(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// More than a message may have; at its end stands what looks like a request.
	smuggled := "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
	body := strings.Repeat("x", 4<<20) + smuggled
	head := fmt.Sprintf(
		"POST /projection.gateway.v1.QueryService/ListViews HTTP/1.1\r\nHost: x\r\nX-Tenant-Id: "+
			"acme\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		len(body),
	)
	go func() { _, _ = io.WriteString(conn, head+body) }() // fails when the server closes the connection
	reader := bufio.NewReader(conn)
	res, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	// It is too large; on a machine that is busy it may be too late first.
	if _, err := io.Copy(io.Discard, res.Body); err != nil ||
		res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("status %d, %v; want the body to be refused", res.StatusCode, err)
	}
	if second, err := http.ReadResponse(reader, nil); err == nil {
		second.Body.Close()
		t.Errorf("the rest of the body was answered as a request: %s", second.Status)
	}
}

func TestCall_MayTakeLongerThanItsBody(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.views.list = func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond): // longer than the body's time
			return nil
		}
	}
	for name, client := range p.clients() {
		if _, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(
			acme(t), &projectionv1.ListViewsRequest{},
		); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDeadline_EveryUnaryCallHasOne(t *testing.T) { everyHop(t, everyUnaryCallHasADeadline) }

func everyUnaryCallHasADeadline(t *testing.T, p *process, client *connect.Client) {
	var left time.Duration
	p.views.list = func(ctx context.Context) error {
		if deadline, ok := ctx.Deadline(); ok {
			left = time.Until(deadline)
		}
		return nil
	}
	views := gatewayv1connect.NewQueryServiceClient(client)
	if _, err := views.ListViews(acme(t), &projectionv1.ListViewsRequest{}); err != nil || left <= 0 ||
		left > 30*time.Second {
		t.Errorf("no timeout: deadline %v, %v; want 30 s", left, err)
	}
	ctx, cancel := context.WithTimeout(acme(t), 2*time.Second)
	defer cancel()
	if _, err := views.ListViews(ctx, &projectionv1.ListViewsRequest{}); err != nil || left <= 0 ||
		left > 2*time.Second {
		t.Errorf("the caller's is %v, %v; want 2 s", left, err)
	}
}

func TestErrors_InternalOnesRevealNothing(t *testing.T) {
	everyHop(t, anErrorThatIsNotMeantForCallersSaysNothing)
}

func anErrorThatIsNotMeantForCallersSaysNothing(t *testing.T, p *process, client *connect.Client) {
	p.views.list = func(context.Context) error { return errors.New("password is hunter2") }
	_, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(acme(t), &projectionv1.ListViewsRequest{})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("err = %v", err)
	}
}

func TestStream_HeadersComeWithTheFirstMessage(t *testing.T) {
	everyHop(t, aStreamsHeadersComeWithItsFirstMessage)
}

func aStreamsHeadersComeWithItsFirstMessage(t *testing.T, _ *process, client *connect.Client) {
	ctx, info := connect.NewClientContext(acme(t))
	stream, err := gatewayv1connect.NewQueryServiceClient(client).Watch(ctx,
		&projectionv1.WatchRequest{View: "wallets"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if res, err := stream.Receive(); err != nil || res.GetPosition() != "p" ||
		info.ResponseHeader().Get("x-before") != "wallets" {
		t.Errorf("%v, %v with %q", res, err, info.ResponseHeader().Get("x-before"))
	}
	if _, err := stream.Receive(); !errors.Is(err, io.EOF) || info.ResponseTrailer().Get("x-after") != "all" {
		t.Errorf("ended with %v and %q", err, info.ResponseTrailer().Get("x-after"))
	}
}

func TestServer_StoppedOneAcceptsNoCalls(t *testing.T) {
	everyHop(t, aProcessThatHasEndedTakesNoCalls)
}

func aProcessThatHasEndedTakesNoCalls(t *testing.T, p *process, client *connect.Client) {
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	_, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(acme(t), &projectionv1.ListViewsRequest{})
	if connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("%v, want UNAVAILABLE", err)
	}
}

func TestJSON_UnknownFieldIsRejected(t *testing.T) {
	p := start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		p.server.URL()+"/projection.gateway.v1.QueryService/ListViews", strings.NewReader(`{"tenant":"acme"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Tenant-Id", "acme")
	res, err := p.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusBadRequest {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
}

func TestServer_StopWaitsForCallsInFlight(t *testing.T) { everyHop(t, theEndWaitsForCallsInFlight) }

func theEndWaitsForCallsInFlight(t *testing.T, p *process, client *connect.Client) {
	entered, release := make(chan struct{}), make(chan struct{})
	p.views.list = func(context.Context) error {
		close(entered)
		<-release
		return nil
	}
	answered := make(chan error, 1)
	go func() {
		_, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(acme(t), &projectionv1.ListViewsRequest{})
		answered <- err
	}()
	<-entered
	ended := make(chan error, 1)
	go func() { ended <- p.stop() }()
	select {
	case err := <-ended:
		t.Fatalf("Close returned with a call in flight: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := errors.Join(<-answered, <-ended); err != nil {
		t.Fatal(err)
	}
}

func TestRunLayers_EndInOrder(t *testing.T) {
	var order []string
	part := func(name string) func(context.Context) error {
		return func(ctx context.Context) error {
			<-ctx.Done()
			order = append(order, name) // layers end one at a time
			return nil
		}
	}
	failed := errors.New("failed")
	err := rpc.RunLayers(t.Context(), rpc.Layer{part("runner")},
		rpc.Layer{func(context.Context) error { return failed }}, rpc.Layer{part("store")})
	if !errors.Is(err, failed) || strings.Join(order, " ") != "runner store" {
		t.Fatalf("err = %v, order %v", err, order)
	}
}

func TestTenants_AreParsedAndChecked(t *testing.T) {
	tenants, err := rpc.ParseTenants([]string{"acme", "globex", "acme"})
	if err != nil || len(tenants.All()) != 2 {
		t.Fatalf("%v, %v", tenants, err)
	}
	for _, bad := range [][]string{nil, {"A.B"}} {
		if _, err := rpc.ParseTenants(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
	if _, err := tenants.Of(acme(t), "globex"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("contradicting field: %v", err)
	}
	if tenant, err := tenants.Of(acme(t), ""); err != nil || tenant.String() != "acme" {
		t.Errorf("no field: %v, %v", tenant, err)
	}
}

// A call whose client's deadline passes before its answer is sent is counted as that over
// every protocol, and not as a failure of the process.
func TestMetrics_AnAnswerAfterTheDeadlineIsNoUnknownFailure(t *testing.T) {
	p := start(t)
	gone := make(chan struct{}, 1)
	p.views.list = func(context.Context) error { <-gone; return nil }
	clients := p.clients()
	delete(clients, "in process") // its client waits for the handler
	for name, client := range clients {
		ctx, cancel := context.WithTimeout(acme(t), 100*time.Millisecond)
		if _, err := gatewayv1connect.NewQueryServiceClient(client).ListViews(
			ctx, &projectionv1.ListViewsRequest{},
		); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		gone <- struct{}{}
	}
	counted := regexp.MustCompile(
		`headgate_rpc_duration_seconds_count\{code="([a-z_]+)",procedure="/projection.gateway.v1.QueryService/ListViews",[^}]*\} (\d+)`,
	)
	for {
		_, text := p.get(t, "/metrics")
		calls := 0
		for _, series := range counted.FindAllStringSubmatch(text, -1) {
			count, err := strconv.Atoi(series[2])
			if err != nil {
				t.Fatal(err)
			}
			if calls += count; series[1] != "deadline_exceeded" && series[1] != "ok" && series[1] != "canceled" {
				t.Fatalf("a call is counted as %s:\n%s", series[1], series[0])
			}
		}
		if calls == len(clients) {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the calls are not counted")
		}
		runtime.Gosched()
	}
}
