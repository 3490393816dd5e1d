package rpc_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/encoding"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// floods write one frame without effect each, on a connection whose stream 1 is a call whose
// body has not ended.
var floods = map[string]struct {
	open  func(f *http2.Framer, header []byte) error
	write func(f *http2.Framer) error
}{
	"CONTINUATION": {
		func(f *http2.Framer, header []byte) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header})
		},
		func(f *http2.Framer) error { return f.WriteContinuation(1, false, nil) },
	},
	"DATA": {openStream, func(f *http2.Framer) error { return f.WriteData(1, false, nil) }},
	"PRIORITY": {
		openStream, func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{Weight: 1}) },
	},
	"SETTINGS":      {openStream, func(f *http2.Framer) error { return f.WriteSettings() }},
	"PING":          {openStream, func(f *http2.Framer) error { return f.WritePing(false, [8]byte{}) }},
	"WINDOW_UPDATE": {openStream, func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 1) }},
	"unknown":       {openStream, func(f *http2.Framer) error { return f.WriteRawFrame(0xfa, 0, 0, []byte("x")) }},
}

func openStream(f *http2.Framer, header []byte) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header, EndHeaders: true})
}

// flooded floods a connection, and reports whether its server ends it before the flood ends.
func flooded(t *testing.T, conn net.Conn, kind string) bool {
	t.Helper()
	defer conn.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn) // until the server has ended it
	}()
	defer func() { <-ended }()
	defer conn.Close()
	var header strings.Builder
	encoder := hpack.NewEncoder(&header)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", healthv1.Health_Check_FullMethodName},
		{":authority", "test"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	out := bufio.NewWriterSize(conn, 4096)
	_, _ = out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(out, nil)
	framer.AllowIllegalWrites = true
	err := framer.WriteSettings()
	if err == nil {
		err = floods[kind].open(framer, []byte(header.String()))
	}
	for range 400_000 {
		if err != nil {
			return true // the connection is closed
		}
		err = floods[kind].write(framer)
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return true
	}
	select {
	case <-ended:
		return true
	case <-time.After(20 * time.Second):
		return false
	}
}

// port is an address, and whether it speaks TLS.
type port struct {
	address string
	tls     *tls.Config
}

func (p port) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	if p.tls == nil {
		return conn
	}
	secured := tls.Client(conn, p.tls)
	if err := secured.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return secured
}

func TestFlood_EveryPortEndsItAndOthersLoseNoCall(t *testing.T) {
	p := start(t)
	ports := map[string]port{"main": {address: p.server.Addr()}, "grpc alone": {address: p.server.GRPCAddr()}}
	secured, trust := startSecured(t)
	ports["main with TLS"] = port{secured.Addr(), trust}
	ports["grpc alone with TLS"] = port{secured.GRPCAddr(), trust}
	edge := startEdge(t)
	ports["edge, main port"], ports["edge, gRPC-only port"] = port{address: edge.Addr()}, port{address: edge.GRPCAddr()}

	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(contextkit.TenantContext(t.Context(), acme))
	others := make(chan error, 2)
	for _, name := range []string{"connect+proto", "grpc alone"} {
		client := gatewayv1connect.NewQueryServiceClient(p.clients()[name])
		go func() {
			for ctx.Err() == nil {
				if _, err := client.ListViews(
					context.WithoutCancel(ctx), &projectionv1.ListViewsRequest{},
				); err != nil {
					others <- err
					return
				}
			}
			others <- nil
		}()
	}
	for name, port := range ports {
		for kind := range floods {
			t.Run(name+"/"+kind, func(t *testing.T) {
				if !flooded(t, port.dial(t), kind) {
					t.Error("the connection is still there")
				}
			})
		}
	}
	stop()
	for range 2 {
		if err := <-others; err != nil {
			t.Errorf("another client: %v", err)
		}
	}
	if _, text := p.get(t, "/metrics"); !strings.Contains(
		text, `headgate_flood_connections_total{frame="CONTINUATION",process="views"} 2`,
	) {
		t.Error("the closed connections are not counted")
	}
}

// startEdge returns an edge without methods.
func startEdge(t *testing.T) *rpc.Server {
	t.Helper()
	server := rpc.NewEdge(rpc.Config{Name: "edge", Addr: "127.0.0.1:0", GRPC: "127.0.0.1:0"},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop(),
		rpc.Edge{
			Codec:   encoding.GetCodecV2(connect.CodecNameProto),
			Timeout: func(string) time.Duration { return time.Minute },
		})
	run(t, server)
	return server
}

func run(t *testing.T, server *rpc.Server) {
	t.Helper()
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// startSecured returns a service with TLS, and what its clients need.
func startSecured(t *testing.T) (*rpc.Server, *tls.Config) {
	t.Helper()
	files := tlstest.NewAuthority(t).Issue(t, t.TempDir(), "server")
	trust, err := tlsfiles.Open(tlsfiles.Files{CA: files.CA}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files.CA = "" // it asks for no certificate
	material, err := tlsfiles.Open(files, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Config{
		Name: "secured",
		Addr: "127.0.0.1:0",
		GRPC: "127.0.0.1:0",
		TLS:  material,
	},
		func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	server.HTTP.HandleFunc("GET /seen", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s over TLS: %v", r.Proto, r.TLS != nil && r.TLS.HandshakeComplete)
	})
	run(t, server)
	config := trust.Client("server")
	config.NextProtos = []string{"h2"}
	return server, config
}

func TestTLS_BothVersionsOfHTTPAreServedAndRequestsKnowIt(t *testing.T) {
	server, trust := startSecured(t)
	for version, want := range map[string]string{
		"h2": "HTTP/2.0 over TLS: true", "http/1.1": "HTTP/1.1 over TLS: true",
	} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(version == "http/1.1")
		protocols.SetHTTP2(version == "h2")
		config := trust.Clone()
		config.NextProtos = nil
		transport := &http.Transport{TLSClientConfig: config, Protocols: protocols}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL()+"/seen", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		transport.CloseIdleConnections()
		if err != nil || string(body) != want {
			t.Errorf("%s: %q, %v", version, body, err)
		}
	}
}
