package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

// A client that connects while a process passes from waiting to serving is answered.
func TestSockets_StayBoundFromWaitingToServing(t *testing.T) {
	var sockets rpc.Sockets
	if err := sockets.Bind(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	config := rpc.Config{Name: "views", Addr: "127.0.0.1:0", Sockets: &sockets}
	waiting := rpc.NewWaiting(config, false, func(context.Context, contextkit.TenantID) error { return errors.New("NATS is away") }, zerolog.Nop())
	serve := func(s *rpc.Server) (stop func()) {
		t.Helper()
		if err := s.Listen(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(ctx) }()
		return func() {
			t.Helper()
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	stop := serve(waiting)
	if status, text := ask(t, nil, waiting.URL()+"/v1/anything"); status != http.StatusServiceUnavailable || text != `{"code":"unavailable","message":"the views takes no calls yet: NATS is away"}` {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := ask(t, nil, waiting.URL()+"/metrics"); status != http.StatusServiceUnavailable {
		t.Errorf("/metrics is %d at an address of clients", status)
	}
	stop()

	addr := strings.TrimPrefix(waiting.URL(), "http://")
	between, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal("the address is closed in between: ", err)
	}
	server := rpc.NewServer(config, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	stop = serve(server)
	if server.Addr() != addr || !sockets.Taken() {
		t.Errorf("it listens at %s, want %s", server.Addr(), addr)
	}
	if status, text := ask(t, between, server.URL()+"/ready"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	stop()
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr); err == nil {
		t.Error("the address is bound after the server has ended", conn.Close())
	}
	if err := sockets.Close(); err != nil {
		t.Error(err)
	}
}

// ask sends a GET by a connection, or a new one for nil.
func ask(t *testing.T, conn net.Conn, url string) (int, string) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	if conn != nil {
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(text))
}
