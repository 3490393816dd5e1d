package rpc_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
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

// talker answers a watch without end.
type talker struct {
	gatewayv1connect.UnimplementedQueryServiceHandler

	sent atomic.Int64
}

func (h *talker) Watch(
	_ context.Context, _ *projectionv1.WatchRequest, stream gatewayv1connect.QueryServiceWatchServerStream,
) error {
	for {
		if err := stream.Send(&projectionv1.WatchResponse{Position: strings.Repeat("x", 16<<10)}); err != nil {
			return err
		}
		h.sent.Add(1)
	}
}

// TestGRPC_ClientsThatLeaveAreNoFault: a stream whose client leaves while it waits for a
// window ends as canceled, and not as a fault of the process.
func TestGRPC_ClientsThatLeaveAreNoFault(t *testing.T) {
	const streams = 20
	ended := make(chan error, streams)
	server := rpc.NewServer(rpc.Config{
		Name:  "talker",
		Addr:  "127.0.0.1:0",
		GRPC:  "127.0.0.1:0",
		Ended: func(_ contextkit.RequestContext, e rpc.Ended) { ended <- e.Err },
	}, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	handler := &talker{}
	gatewayv1connect.RegisterQueryServiceHandler(server.RPC, handler)
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.GRPCAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	var block bytes.Buffer
	encoder, framer := hpack.NewEncoder(&block), http2.NewFramer(conn, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		t.Fatal(err)
	}
	for n := range streams {
		block.Reset()
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", gatewayv1connect.QueryServiceWatchProcedure},
			{":authority", "test"},
			{"content-type", "application/grpc"}, {"te", "trailers"}, {contextkit.HeaderTenantID, "acme"},
		} {
			if err := encoder.WriteField(
				hpack.HeaderField{Name: strings.ToLower(field[0]), Value: field[1]},
			); err != nil {
				t.Fatal(err)
			}
		}
		id := uint32(2*n + 1)
		if err := framer.WriteHeaders(
			http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true},
		); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteData(id, true, []byte("\x00\x00\x00\x00\x09\x12\x07wallets")); err != nil {
			t.Fatal(err)
		}
	}
	for limit := time.Now().Add(20 * time.Second); handler.sent.Load() < 3*streams; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d messages have been sent", handler.sent.Load())
		}
	}
	conn.Close()
	for range streams {
		if err := <-ended; rpc.CodeName(err) != "canceled" {
			t.Errorf("stream ended with %s after its client left: %v", rpc.CodeName(err), err)
		}
	}
}
