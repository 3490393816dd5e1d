package rpc_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

// endless answers a watch with messages of a size until it fails, and a query with one of 8 MiB.
type endless struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
}

func (endless) Watch(
	_ context.Context, req *projectionv1.WatchRequest, stream gatewayv1connect.QueryServiceWatchServerStream,
) error {
	size := 128 << 10
	if req.GetView() == "small" {
		size = 8 << 10
	}
	message := &projectionv1.WatchResponse{Position: strings.Repeat("x", size)}
	for {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
}

func (endless) Query(context.Context, *projectionv1.QueryRequest) (*projectionv1.QueryResponse, error) {
	return &projectionv1.QueryResponse{Position: strings.Repeat("x", 8<<20)}, nil
}

// unreadServer is a service whose clients must read in 100 ms. It reports how its calls end.
func unreadServer(t *testing.T) (*rpc.Server, <-chan rpc.Ended) {
	t.Helper()
	ended := make(chan rpc.Ended, 16)
	server := rpc.NewServer(rpc.Config{
		Name:         "endless",
		Addr:         "127.0.0.1:0",
		GRPC:         "127.0.0.1:0",
		WriteTimeout: 100 * time.Millisecond,
		Ended:        func(_ contextkit.RequestContext, e rpc.Ended) { ended <- e },
	}, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	gatewayv1connect.RegisterQueryServiceHandler(server.RPC, endless{})
	serve(t, server)
	return server, ended
}

// serve runs a server until the test ends.
func serve(t *testing.T, server *rpc.Server) {
	t.Helper()
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// metricsOf returns the metrics of a server.
func metricsOf(t *testing.T, server *rpc.Server) string {
	t.Helper()
	res, err := http.Get(server.URL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// rawCall is a call on a raw connection of HTTP/2.
func rawCall(t *testing.T, addr, procedure, contentType string, body []byte, settings ...http2.Setting) (
	net.Conn, *http2.Framer,
) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var block bytes.Buffer
	encoder, framer := hpack.NewEncoder(&block), http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", procedure}, {":authority", "test"},
		{"content-type", contentType}, {"te", "trailers"}, {strings.ToLower(contextkit.HeaderTenantID), "acme"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteData(1, true, body); err != nil {
		t.Fatal(err)
	}
	return conn, framer
}

// TestUnread_StreamsOfClientsThatDoNotReadEnd: neither a client that opens no window, nor one that does not read its
// connection, holds a stream or an answer for longer than write_timeout.
func TestUnread_StreamsOfClientsThatDoNotReadEnd(t *testing.T) {
	server, ended := unreadServer(t)
	watch := gatewayv1connect.QueryServiceWatchProcedure
	grpcBody := []byte("\x00\x00\x00\x00\x09\x12\x07wallets")
	small := []byte("\x00\x00\x00\x00\x07\x12\x05small")
	expect := func(t *testing.T) {
		t.Helper()
		select {
		case e := <-ended:
			if rpc.CodeName(e.Err) != "resource_exhausted" {
				t.Errorf("it ends with %s: %v", rpc.CodeName(e.Err), e.Err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("it does not end")
		}
	}
	for name, addr := range map[string]string{"main": server.Addr(), "grpc": server.GRPCAddr()} {
		for kind, body := range map[string][]byte{"large messages": grpcBody, "small messages": small} {
			t.Run(name+", no window, "+kind, func(t *testing.T) {
				conn, framer := rawCall(t, addr, watch, "application/grpc", body)
				expect(t)
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				for {
					frame, err := framer.ReadFrame()
					if err != nil {
						t.Fatalf("the stream is not reset: %v", err)
					}
					if reset, ok := frame.(*http2.RSTStreamFrame); ok {
						if reset.ErrCode != http2.ErrCodeEnhanceYourCalm {
							t.Errorf("the stream is reset with %v", reset.ErrCode)
						}
						break
					}
				}
				// The connection's other calls continue.
				if err := framer.WritePing(false, [8]byte{1}); err != nil {
					t.Fatal(err)
				}
				for {
					frame, err := framer.ReadFrame()
					if err != nil {
						t.Fatalf("the connection has ended: %v", err)
					}
					if ping, ok := frame.(*http2.PingFrame); ok && ping.IsAck() {
						break
					}
				}
			})
		}
		t.Run(name+", connection not read", func(t *testing.T) {
			conn, framer := rawCall(t, addr, watch, "application/grpc", grpcBody,
				http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			if err := framer.WriteWindowUpdate(0, 1<<30); err != nil {
				t.Fatal(err)
			}
			expect(t)
			_ = conn.Close()
		})
	}
	for name, call := range map[string]struct{ procedure, contentType, body string }{
		"Connect":  {watch, "application/connect+json", "\x00\x00\x00\x00\x12" + `{"view":"wallets"}`},
		"gRPC-Web": {watch, "application/grpc-web+json", "\x00\x00\x00\x00\x12" + `{"view":"wallets"}`},
		"unary":    {gatewayv1connect.QueryServiceQueryProcedure, "application/json", `{"view":"wallets"}`},
	} {
		t.Run("HTTP/1.1, "+name, func(t *testing.T) {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\n%s: acme\r\n"+
				"Content-Length: %d\r\n\r\n%s", call.procedure, call.contentType, contextkit.HeaderTenantID,
				len(call.body), call.body); err != nil {
				t.Fatal(err)
			}
			expect(t)
		})
	}
	text := metricsOf(t, server)
	for _, want := range []string{
		`headgate_unread_answers_total{port="main",process="endless"} 6`,
		`headgate_unread_answers_total{port="grpc",process="endless"} 3`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
}
