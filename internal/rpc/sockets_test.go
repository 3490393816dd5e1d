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
	addr, err := sockets.Bind(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := rpc.Config{Name: "views", Addr: "127.0.0.1:0", Sockets: &sockets}
	waiting := rpc.NewWaiting(config, false,
		func(context.Context, contextkit.TenantID) error { return errors.New("NATS is unreachable") }, zerolog.Nop())
	if err := sockets.Lend(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	if status, text := ask(t, nil, waiting.URL()+"/v1/anything"); status != http.StatusServiceUnavailable ||
		text != `{"code":"unavailable","message":"the views takes no calls yet: NATS is unreachable"}` {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := ask(t, nil, waiting.URL()+"/metrics"); status != http.StatusServiceUnavailable {
		t.Errorf("/metrics is %d at an address of clients", status)
	}
	if got := strings.TrimPrefix(waiting.URL(), "http://"); got != addr {
		t.Errorf("the waiting server listens at %s, want %s", got, addr)
	}

	server := rpc.NewServer(config, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
	if err := server.Listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The waiting server has ended, and this one does not accept connections yet.
	between, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal("the address is closed in between: ", err)
	}
	if server.Addr() != addr || !sockets.Taken() {
		t.Errorf("listening on %s, want %s", server.Addr(), addr)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx) }()
	if status, text := ask(t, between, server.URL()+"/ready"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
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
