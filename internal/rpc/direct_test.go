package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

// syncBuffer is a log.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements [io.Writer].
func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// faulty panics in every handler.
type faulty struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
}

func (faulty) ListViews(context.Context, *projectionv1.ListViewsRequest) (*projectionv1.ListViewsResponse, error) {
	panic("secret state")
}

func (faulty) Watch(
	context.Context, *projectionv1.WatchRequest, gatewayv1connect.QueryServiceWatchServerStream,
) error {
	panic("secret state")
}

// TestDirect_PanicsAreReportedAsFailed: direct calls, unary and streams, whose handlers panic are audited with their
// code, at both ports, and a panic outside of calls is an answer too. The log has a bounded number of lines of them.
func TestDirect_PanicsAreReportedAsFailed(t *testing.T) {
	reported := make(chan rpc.Direct, 64)
	lines := &syncBuffer{}
	server := rpc.NewServer(rpc.Config{
		Name:   "views",
		Addr:   "127.0.0.1:0",
		GRPC:   "127.0.0.1:0",
		Direct: func(_ contextkit.RequestContext, call rpc.Direct) { reported <- call },
	}, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.New(lines))
	gatewayv1connect.RegisterQueryServiceHandler(server.RPC, faulty{})
	server.HTTP.HandleFunc("GET /faulty", func(http.ResponseWriter, *http.Request) { panic("secret state") })
	serve(t, server)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	plain := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(plain.CloseIdleConnections)
	for _, url := range []string{server.URL(), "http://" + server.GRPCAddr()} {
		views := gatewayv1connect.NewQueryServiceClient(
			contextkit.NewClient(connecthttp.NewTransport(plain, url, connecthttp.WithGRPC())))
		internal := func(what string, err error) {
			t.Helper()
			if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", what, err)
			}
			if call := <-reported; !errors.Is(call.Err, rpc.ErrUnfinished) {
				t.Errorf("%s is reported with %v", what, call.Err)
			}
		}
		for range 10 {
			_, err := views.ListViews(acme(t), &projectionv1.ListViewsRequest{})
			internal("a unary call", err)
		}
		stream, err := views.Watch(acme(t), &projectionv1.WatchRequest{View: "wallets"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Receive()
		if call := <-reported; call.Err != nil {
			t.Errorf("the begin of a stream is reported with %v", call.Err)
		}
		internal("a stream", err)
	}
	res, err := plain.Get(server.URL() + "/faulty")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusInternalServerError ||
		!bytes.HasPrefix(text, []byte(`{"code":"internal",`)) || bytes.Contains(text, []byte("secret")) {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	if n := strings.Count(lines.String(), "handler panicked"); n < 1 || n >= 23 {
		t.Errorf("23 panics have %d lines in the log", n)
	}
}
