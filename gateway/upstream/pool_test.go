package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// use acquires an endpoint's channel and releases it.
func use(t *testing.T, pool *Pool, endpoint string) *channel {
	t.Helper()
	c, err := pool.acquire(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c.release()
	return c
}

func TestPool_RetainsRecentlyUsedEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{MaxEndpoints: 2})
		defer pool.Close()
		a := use(t, pool, "a:1")
		time.Sleep(time.Second)
		use(t, pool, "b:1")
		time.Sleep(time.Second)
		if use(t, pool, "a:1") != a {
			t.Error("the channel to a was made twice")
		}
		time.Sleep(time.Second)
		use(t, pool, "c:1")
		if pool.Stats().Channels != 2 {
			t.Errorf("%d channels are open, want 2", pool.Stats().Channels)
		}
		if use(t, pool, "a:1") != a {
			t.Error("a was used after b and was evicted before it")
		}
	})
}

func TestPool_IdleChannelIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{IdleTTL: time.Minute})
		defer pool.Close()
		use(t, pool, "a:1")
		busy, err := pool.acquire("b:1")
		if err != nil {
			t.Fatal(err)
		}
		use(t, pool, "c:1")
		time.Sleep(59 * time.Second)
		use(t, pool, "c:1")
		if n := pool.Stats().Channels; n != 3 {
			t.Errorf("before the TTL %d channels are open, want 3", n)
		}
		time.Sleep(16 * time.Second) // the TTL and a quarter
		if n := pool.Stats().Channels; n != 2 {
			t.Errorf("%d channels are open, want c, which is used, and b, which has a call on it", n)
		}
		busy.release()
		time.Sleep(2 * time.Minute)
		if stats := pool.Stats(); stats.Channels != 0 || stats.Made != 3 || stats.Evicted != 3 {
			t.Errorf("at last: %+v", stats)
		}
	})
}

func TestPool_EvictedChannelCompletesItsCalls(t *testing.T) {
	pool := NewPool(PoolConfig{MaxEndpoints: 1})
	defer pool.Close()
	busy, err := pool.acquire("a:1")
	if err != nil {
		t.Fatal(err)
	}
	use(t, pool, "b:1")
	if busy.calls.Load() != 1 {
		t.Fatalf("the evicted channel counts %d calls, want the one on it", busy.calls.Load())
	}
	again, err := pool.acquire("a:1")
	if err != nil || again == busy {
		t.Fatalf("a new call is put on the evicted channel, %v", err)
	}
	again.release()
	busy.release()
	if busy.acquire() {
		t.Fatal("a closed channel takes a call")
	}
}

// serve runs a gRPC node that answers any unary call with an empty message.
func serve(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var in, out emptypb.Empty
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		return stream.SendMsg(&out)
	}))
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener
}

// openFiles counts the process's file descriptors.
func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("this system does not list a process's descriptors")
	}
	return len(files)
}

func TestPool_ManyEndpointsLeakNoSocketsOrGoroutines(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		if runtime.GOOS != "linux" {
			t.Skip("only Linux has all of 127/8 on its loopback")
		}
		const kept, callers = 64, 8
		endpoints := 10_000
		switch {
		case config.FastPaths.Upstream.IsPlain():
			endpoints = 300
		case testing.Short():
			endpoints = 1000
		}
		_, port, _ := net.SplitHostPort(serve(t, "0.0.0.0:0").Addr().String())
		filesBefore, goroutinesBefore := openFiles(t), runtime.NumGoroutine()
		config.MaxEndpoints = kept
		pool := NewPool(config)
		client := contextkit.NewClient(NewTransport(pool))
		spec := connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary}
		var group sync.WaitGroup
		for caller := range callers {
			group.Go(func() {
				for i := caller; i < endpoints; i += callers {
					ctx := WithEndpoint(contextkit.PlatformContext(t.Context()),
						fmt.Sprintf("127.%d.%d.1:%s", 1+i/250, 1+i%250, port))
					if err := client.CallUnary(ctx, spec, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
						t.Errorf("endpoint %d: %v", i, err)
						return
					}
				}
			})
		}
		group.Wait()
		if stats := pool.Stats(); stats.Channels != kept || stats.Calls != 0 || stats.Made != int64(endpoints) ||
			stats.Evicted != int64(endpoints-kept) {
			t.Errorf("%+v, want %d of %d channels open and no call on them", stats, kept, endpoints)
		}
		// Each channel has a socket here and one at the node; the last ones evicted
		// may still be closing.
		if files := openFiles(t) - filesBefore; files > 2*(kept+callers)+32 {
			t.Errorf("%d descriptors more than before, for %d channels", files, kept)
		}
		pool.Close()
		if _, err := pool.acquire("a:1"); !errors.Is(err, ErrPoolClosed) {
			t.Errorf("a closed pool makes a channel: %v", err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for runtime.NumGoroutine() > goroutinesBefore+4 || openFiles(t) > filesBefore+4 {
			if time.Now().After(deadline) {
				t.Fatalf(
					"%d goroutines and %d descriptors stay, of %d and %d before", runtime.NumGoroutine(), openFiles(t),
					goroutinesBefore, filesBefore,
				)
			}
			runtime.Gosched()
		}
	})
}

// mute is a proxy in front of a node that can become silent without closing anything, like a host
// without power.
type mute struct {
	net.Listener
	silent atomic.Bool
}

func (m *mute) run(t *testing.T, node string) {
	for {
		client, err := m.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", node)
		if err != nil {
			_ = client.Close()
			return
		}
		pipe := func(to, from net.Conn) {
			buffer := make([]byte, 32<<10)
			for {
				n, err := from.Read(buffer)
				if err != nil {
					_, _ = client.Close(), server.Close()
					return
				}
				if !m.silent.Load() {
					_, _ = to.Write(buffer[:n])
				}
			}
		}
		go pipe(client, server)
		go pipe(server, client)
	}
}

func TestPool_PingDetectsDeadPeerDuringCall(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		t.Parallel() // it takes the ten seconds that grpc-go demands
		node := serve(t, "127.0.0.1:0")
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		proxy := &mute{Listener: listener}
		var running sync.WaitGroup
		running.Go(func() { proxy.run(t, node.Addr().String()) })
		t.Cleanup(func() { _ = listener.Close(); running.Wait() })
		config.PingAfter, config.PingTimeout = 10*time.Second, time.Second
		pool := NewPool(config)
		defer pool.Close()
		client := contextkit.NewClient(NewTransport(pool))
		spec := connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary}
		ctx, cancel := context.WithTimeout(
			WithEndpoint(contextkit.PlatformContext(t.Context()), listener.Addr().String()),
			time.Minute,
		)
		defer cancel()
		if err := client.CallUnary(ctx, spec, &emptypb.Empty{}, &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
		proxy.silent.Store(true)
		if err := client.CallUnary(
			ctx, spec, &emptypb.Empty{}, &emptypb.Empty{},
		); connect.CodeOf(err) != connect.CodeUnavailable || ctx.Err() != nil {
			t.Errorf("a call on a dead peer ends with %v, want UNAVAILABLE long before its deadline", err)
		}
	})
}

func TestPoolConfig_InvalidBoundsAreRejected(t *testing.T) {
	for _, config := range []PoolConfig{{MaxEndpoints: -1}, {IdleTTL: -1}, {PingAfter: time.Second}} {
		if config.Validate() == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
}

func TestPool_ConcurrentCallersShareOneChannel(t *testing.T) {
	pool := NewPool(PoolConfig{})
	defer pool.Close()
	var (
		group sync.WaitGroup
		first atomic.Pointer[channel]
	)
	for range 64 {
		group.Go(func() {
			c, err := pool.acquire("a:1")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.release()
			if !first.CompareAndSwap(nil, c) && first.Load() != c {
				t.Error("two channels to one endpoint")
			}
		})
	}
	group.Wait()
}

type views struct {
	gatewayv1connect.UnimplementedQueryServiceHandler
}

func (views) ListViews(context.Context, *projectionv1.ListViewsRequest) (*projectionv1.ListViewsResponse, error) {
	return &projectionv1.ListViewsResponse{Position: "p"}, nil
}

func TestTransport_CallsGRPCNode(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		ctx, cancel := context.WithCancel(context.Background())
		server := rpc.NewServer(rpc.Config{Name: "node", Addr: "127.0.0.1:0"},
			func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
		gatewayv1connect.RegisterQueryServiceHandler(server.RPC, views{})
		if err := server.Listen(ctx); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		pool := NewPool(config)
		defer pool.Close()
		acme, err := contextkit.ParseTenantID("acme")
		if err != nil {
			t.Fatal(err)
		}
		client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(NewTransport(pool)))
		callCtx := contextkit.TenantContext(t.Context(), acme)
		if _, err := client.ListViews(
			callCtx, &projectionv1.ListViewsRequest{},
		); connect.CodeOf(err) != connect.CodeInternal {
			t.Errorf("without an endpoint: %v", err)
		}
		res, err := client.ListViews(WithEndpoint(callCtx, server.Addr()), &projectionv1.ListViewsRequest{})
		if err != nil || res.GetPosition() != "p" {
			t.Fatalf("%v, %v", res, err)
		}
		if _, err := client.Get(
			WithEndpoint(callCtx, server.Addr()), &projectionv1.GetRequest{View: "v", Key: "k"},
		); connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("a node's error: %v", err)
		}
		if _, err := client.ListViews(
			WithEndpoint(callCtx, "127.0.0.1:1"), &projectionv1.ListViewsRequest{},
		); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("no node: %v", err)
		}
		pool.channels.Range(func(_, value any) bool {
			if c := value.(*channel); c.calls.Load() != 1 {
				t.Errorf("the channel to %s still counts %d calls", c.endpoint, c.calls.Load()-1)
			}
			return true
		})
	})
}

func TestTransport_UnknownMethodIsUnimplemented(t *testing.T) {
	eachClient(t, func(t *testing.T, config PoolConfig) {
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		done := make(chan error, 1)
		go func() { done <- server.Serve(listener) }()
		defer func() { server.Stop(); <-done }()
		pool := NewPool(config)
		defer pool.Close()
		client := contextkit.NewClient(NewTransport(pool))
		ctx := WithEndpoint(contextkit.PlatformContext(t.Context()), listener.Addr().String())
		err = client.CallUnary(ctx, connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary},
			&emptypb.Empty{}, &emptypb.Empty{})
		if connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("%v, want UNIMPLEMENTED", err)
		}
	})
}
