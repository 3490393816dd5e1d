package probe_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/fanout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a node that answers every call with UNIMPLEMENTED, until stop.
func serve(t *testing.T, addr string) (at string, stop func()) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return listener.Addr().String(), func() {
		server.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}
}

// until polls a condition without delay.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for ticker := time.NewTicker(time.Millisecond); !condition(); <-ticker.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// uncut are channels of which none may be abandoned.
type uncut struct {
	*upstream.Pool

	t *testing.T
}

// Abandon implements [probe.Channels].
func (u uncut) Abandon(endpoint string) { u.t.Errorf("calls to %s are ended as silent", endpoint) }

func TestProbe_NodeWithoutHealthProtocolAnnouncesReadiness(t *testing.T) {
	addr, stop := serve(t, "127.0.0.1:0")
	table := route.NewTable()
	node := route.Node{ID: "own", Kind: "thing", Endpoint: addr}
	if err := table.SetNodes([]route.Node{node}); err != nil {
		t.Fatal(err)
	}
	pool := upstream.NewPool(upstream.PoolConfig{})
	defer pool.Close()
	config := probe.Config{
		Every:  10 * time.Millisecond,
		FanOut: fanout.Config{Timeout: 5 * time.Second, TTL: time.Millisecond},
	}
	prober := probe.New(config, table, contextkit.NewClient(upstream.NewTransport(pool)), pool, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- prober.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	}()
	ready := func() bool {
		node, _ := table.Node(node.ID)
		return node.Ready
	}
	// some probes further times; the first probe may have begun before.
	some := func() {
		t.Helper()
		asked := prober.Probes()
		until(t, "the node receives three more probes", func() bool { return prober.Probes() >= asked+3 })
	}

	some()
	if ready() {
		t.Error("a node that reports not serving receives calls")
	}
	table.SetReady(node.ID, true)
	some()
	if !ready() {
		t.Error("a node that reports serving receives no calls")
	}
	stop()
	until(t, "an unresponsive node receives no calls", func() bool { return !ready() })
	_, stop = serve(t, addr)
	defer stop()
	until(t, "a responsive node receives calls again", ready)
}

// serveHTTP serves a handler over clear-text HTTP/2.
func serveHTTP(t *testing.T, handler http.HandlerFunc) (endpoint string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: protocols, Handler: handler, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return listener.Addr().String()
}

func TestProbe_AnyAnswerCounts(t *testing.T) {
	says := func(code codes.Code) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer(
				grpc.UnknownServiceHandler(
					func(any, grpc.ServerStream) error { return status.Error(code, "as the test has it") },
				),
			)
			served := make(chan error, 1)
			go func() { served <- server.Serve(listener) }()
			t.Cleanup(func() {
				server.Stop()
				<-served
			})
			return listener.Addr().String()
		}
	}
	answers := func(code int) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			return serveHTTP(t,
				func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "as the test has it", code) })
		}
	}
	for name, tc := range map[string]struct {
		node  func(t *testing.T) (endpoint string)
		ready bool
	}{
		"UNIMPLEMENTED":      {says(codes.Unimplemented), true},
		"PERMISSION_DENIED":  {says(codes.PermissionDenied), true},
		"UNAUTHENTICATED":    {says(codes.Unauthenticated), true},
		"NOT_FOUND":          {says(codes.NotFound), true},
		"RESOURCE_EXHAUSTED": {says(codes.ResourceExhausted), true},
		"INTERNAL":           {says(codes.Internal), true},
		"UNAVAILABLE":        {says(codes.Unavailable), false},
		"HTTP status 403":    {answers(http.StatusForbidden), true},
		"HTTP status 404":    {answers(http.StatusNotFound), true},
		"HTTP status 500":    {answers(http.StatusInternalServerError), true},
		"HTTP status 503":    {answers(http.StatusServiceUnavailable), false},
		"HTML page":          {answers(http.StatusOK), true},
		"connection reset": {func(t *testing.T) string {
			t.Helper()
			return serveHTTP(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			table := route.NewTable()
			if err := table.SetNodes(
				[]route.Node{{ID: "own", Kind: "thing", Endpoint: tc.node(t), Ready: true}},
			); err != nil {
				t.Fatal(err)
			}
			pool := upstream.NewPool(upstream.PoolConfig{})
			defer pool.Close()
			config := probe.Config{
				Every:  10 * time.Millisecond,
				FanOut: fanout.Config{Timeout: 20 * time.Second, TTL: time.Millisecond},
			}
			prober := probe.New(config, table, contextkit.NewClient(upstream.NewTransport(pool)), uncut{pool, t},
				zerolog.Nop())
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error, 1)
			go func() { ran <- prober.Run(ctx) }()
			until(t, "the node receives five probes", func() bool { return prober.Probes() >= 5 })
			cancel()
			if err := <-ran; err != nil {
				t.Error(err)
			}
			if node, _ := table.Node("own"); node.Ready != tc.ready {
				t.Errorf("ready: %t", node.Ready)
			}
		})
	}
}
