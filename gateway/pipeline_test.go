package gateway

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unsafe"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/route"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/compression"
	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// BenchmarkPipeline measures the cost of a call between the transports of the edge and of the
// upstream, both of which copy available bytes. The cost of the pipeline is the difference of the
// two. The garbage collector is tuned as in the product, with a small live heap.
func BenchmarkPipeline(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	for name, call := range map[string]func(context.Context) error{
		"gateway": pipeline(b), "transports only": transports(b),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := call(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// maxPipelineObjects bounds the allocations of a call in the pipeline, from the contract's ids to
// the access log: 3 were measured, and 2 are reserved for concurrent goroutines. Raise it only with
// a reason.
const maxPipelineObjects = 5

// whole skips a test of allocations under the race detector, whose pools drop objects at random.
func whole(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short runs with the race detector")
	}
}

func TestPipeline_Allocations(t *testing.T) {
	whole(t)
	count := func(call func(context.Context) error) float64 {
		return testing.AllocsPerRun(1000, func() {
			if err := call(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
	if got := count(pipeline(t)) - count(transports(t)); got > maxPipelineObjects {
		t.Errorf("%v allocations per call in the pipeline, want at most %d", got, maxPipelineObjects)
	}
}

// A call fits into the runtime's size class of 704 bytes, of which 8 are the header of an object
// with pointers. A larger one takes 768.
func TestCall_FitsItsSizeClass(t *testing.T) {
	if size := unsafe.Sizeof(Call{}); size > 704-8 {
		t.Errorf("%d bytes per call, want at most %d", size, 704-8)
	}
}

// maxRESTObjects bounds the allocations of a REST call except in net/http and the upstream's
// transport: the edge, the transcoding of both messages, the pipeline. 18 were measured, and 2 are
// reserved for concurrent goroutines.
const maxRESTObjects = 20

func TestREST_Allocations(t *testing.T) {
	whole(t)
	g, token := quietGateway(t)
	rest, err := edge.NewREST(g.server.RPC, g.table.Load(), 1<<20, edge.Options{}, compression.All()...)
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/query/wallets", nil)
	request.Header.Set(headerAuthorization, "Bearer "+token)
	request.Header.Set(contextkit.HeaderTenantID, "acme")
	request.Header.Set("Content-Type", "application/json")
	body := strings.NewReader("")
	answer := &discard{header: http.Header{}}
	got := testing.AllocsPerRun(1000, func() {
		body.Reset(`{"query":{"pageSize":10}}`)
		request.Body, request.ContentLength = io.NopCloser(body), body.Size()
		clear(answer.header)
		if rest.ServeHTTP(answer, request); answer.status != http.StatusOK || answer.bytes == 0 {
			t.Fatalf("%d with %d bytes", answer.status, answer.bytes)
		}
	})
	if got > maxRESTObjects {
		t.Errorf("%v allocations per call, want at most %d", got, maxRESTObjects)
	}
}

// Calls end outside of the pipeline.
func TestMetrics_EveryCallIsCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		arrange func(g *Gateway)
		code    connect.Code
		fault   bool // of the gateway's own
	}{
		"handler panics": {func(g *Gateway) { g.opener = panicking{} }, connect.CodeInternal, true},
		"gateway at its limit": {func(g *Gateway) {
			for range g.config.MaxConcurrent {
				g.shared.Calls().Acquire(1, limit.High)
			}
		}, connect.CodeResourceExhausted, false},
	} {
		t.Run(name, func(t *testing.T) {
			g, token := quietGateway(t)
			tc.arrange(g)
			var ended []error // as logged and audited
			g.config.OnEnd = func(_ contextkit.RequestContext, e Ended) { ended = append(ended, e.Err) }
			request, _ := messages(t)
			err := g.server.RPC.Call(t.Context(), queriesconnect.QueryServiceQueryProcedure, incoming(token),
				&stillStream{request: request})
			if connect.CodeOf(err) != tc.code {
				t.Fatalf("call ended with %v, want %v", err, tc.code)
			}
			if len(ended) != 1 || connect.CodeOf(ended[0]) != tc.code {
				t.Errorf("the call is concluded with %v", ended)
			}
			if load := g.Load(); load.InFlight != 0 || load.Calls == 0 || (load.Errors > 0) != tc.fault {
				t.Errorf("load %+v", load)
			}
		})
	}
}

// panicking is an [upstream.Opener] that panics.
type panicking struct{}

func (panicking) Open(context.Context, *connect.CallInfo, grpcmeta.Header) (connect.ClientStream, error) {
	panic("a fault")
}

// discard is an [http.ResponseWriter] that discards everything.
type discard struct {
	header        http.Header
	status, bytes int
}

func (d *discard) Header() http.Header    { return d.header }
func (d *discard) WriteHeader(status int) { d.status = status }
func (d *discard) Write(text []byte) (int, error) {
	if d.status == 0 {
		d.status = http.StatusOK
	}
	d.bytes = len(text)
	return len(text), nil
}

// incoming is a call as received from the edge's transport.
func incoming(token string) *connect.CallInfo {
	info := &connect.CallInfo{
		PeerAddr: "192.0.2.1:4711",
		Protocol: connect.ProtocolNameGRPC,
		Codec:    connect.CodecNameProto,
	}
	info.RequestHeader().Set(headerAuthorization, "Bearer "+token)
	info.RequestHeader().Set(contextkit.HeaderTenantID, "acme")
	return info
}

// messages are a request and its answer.
func messages(t testing.TB) (request, answer []byte) {
	t.Helper()
	request, err := proto.Marshal(&projectionv1.QueryRequest{TenantId: "acme", View: "wallets"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err = proto.Marshal(&projectionv1.QueryResponse{NextPageToken: "next"}); err != nil {
		t.Fatal(err)
	}
	return request, answer
}

// transports returns a call that is forwarded directly from one transport to the other.
func transports(t testing.TB) func(ctx context.Context) error {
	t.Helper()
	request, answer := messages(t)
	client := connect.NewClient(still{frame.Frame{Data: answer}})
	server := connect.NewServer()
	spec := connect.Spec{Procedure: queriesconnect.QueryServiceQueryProcedure}
	server.Register(
		connect.Method{
			Spec: spec,
			Handler: func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
				var request, answer frame.Frame
				if err := stream.Receive(&request); err != nil {
					return err
				}
				if err := client.CallUnary(ctx, spec, &request, &answer); err != nil {
					return err
				}
				return stream.Send(&answer)
			},
		},
	)
	return func(ctx context.Context) error {
		return server.Call(ctx, spec.Procedure, incoming("token"), &stillStream{request: request})
	}
}

// pipeline returns a call of a gateway with everything enabled, between transports without cost.
func pipeline(t testing.TB) func(ctx context.Context) error {
	t.Helper()
	g, token := quietGateway(t)
	request, _ := messages(t)
	return func(ctx context.Context) error {
		return g.server.RPC.Call(ctx, queriesconnect.QueryServiceQueryProcedure, incoming(token),
			&stillStream{request: request})
	}
}

// quietGateway returns a gateway whose node has already answered, and a token for it.
func quietGateway(t testing.TB) (g *Gateway, token string) {
	t.Helper()
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	routes := route.NewTable()
	if err := routes.Replace(
		[]route.Node{{ID: "p", Kind: contextkit.KindProjection, Endpoint: "127.0.0.1:1", Ready: true}}, nil,
	); err != nil {
		t.Fatal(err)
	}
	catalog, err := policy.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Listen: rpc.Config{Name: "gateway"}, Auth: accepted}
	config.Limits.Rate = 1e9
	g, err = New(config, catalog, routes, natstest.Start(t), zerolog.New(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, answer := messages(t)
	g.opener = still{frame.Frame{Data: answer}}
	principal, err := auth.NewPrincipal("caller", []string{"acme"}, []string{"query.read"})
	if err != nil {
		t.Fatal(err)
	}
	if token, err = issuer.Issue(principal, time.Hour); err != nil {
		t.Fatal(err)
	}
	return g, token
}

// still is an [upstream.Opener] and a [connect.Transport] whose peer has already answered.
type still struct{ answer frame.Frame }

func (s still) Open(ctx context.Context, _ *connect.CallInfo, header grpcmeta.Header) (connect.ClientStream, error) {
	fields, err := grpcmeta.Write(ctx, header)
	if err == nil {
		fields.Free()
	}
	return s, err
}

func (s still) NewClientStream(context.Context, connect.Spec) (connect.ClientStream, error) {
	return s, nil
}
func (still) SendHeaders() error { return nil }
func (still) Send(any) error     { return nil }
func (still) CloseSend() error   { return nil }
func (still) Close() error       { return nil }
func (s still) Receive(msg any) error {
	msg.(*frame.Frame).Data = s.answer.Data
	return nil
}

// stillStream is a [connect.ServerStream] whose client has already sent.
type stillStream struct{ request []byte }

func (*stillStream) SendHeaders() error { return nil }
func (*stillStream) Send(any) error     { return nil }
func (s *stillStream) Receive(msg any) error {
	msg.(*frame.Frame).Data = s.request
	return nil
}
