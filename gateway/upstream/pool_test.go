package upstream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/chassis"
	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// use takes an endpoint's channel and gives it back.
func use(t *testing.T, pool *Pool, endpoint string) *channel {
	t.Helper()
	c, err := pool.take(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	c.release()
	return c
}

func TestThePoolKeepsTheEndpointsUsedLast(t *testing.T) {
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
		if pool.Len() != 2 {
			t.Errorf("%d channels are kept, want 2", pool.Len())
		}
		if use(t, pool, "a:1") != a {
			t.Error("a was used after b and was evicted before it")
		}
	})
}

func TestAnIdleChannelIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := NewPool(PoolConfig{IdleTTL: time.Minute})
		defer pool.Close()
		use(t, pool, "a:1")
		use(t, pool, "b:1")
		time.Sleep(59 * time.Second)
		use(t, pool, "b:1")
		time.Sleep(2 * time.Second)
		use(t, pool, "c:1") // making a channel looks for idle ones
		if pool.Len() != 2 {
			t.Errorf("%d channels are kept, want b and c", pool.Len())
		}
	})
}

func TestAnEvictedChannelServesItsCallsToTheEnd(t *testing.T) {
	pool := NewPool(PoolConfig{MaxEndpoints: 1})
	defer pool.Close()
	busy, err := pool.take("a:1")
	if err != nil {
		t.Fatal(err)
	}
	use(t, pool, "b:1")
	if busy.calls.Load() != 1 {
		t.Fatalf("the evicted channel counts %d calls, want the one on it", busy.calls.Load())
	}
	again, err := pool.take("a:1")
	if err != nil || again == busy {
		t.Fatalf("a new call is put on the evicted channel, %v", err)
	}
	again.release()
	busy.release()
	if busy.join() {
		t.Fatal("a closed channel takes a call")
	}
}

func TestThousandsOfEndpointsLeakNothing(t *testing.T) {
	pool := NewPool(PoolConfig{MaxEndpoints: 64})
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 10_000 / 8 {
				c, err := pool.take(fmt.Sprintf("127.0.0.1:%d", 1+(worker*1250+i)%10_000))
				if err != nil {
					t.Error(err)
					return
				}
				c.release()
			}
		})
	}
	group.Wait()
	if pool.Len() > 64 {
		t.Errorf("%d channels are kept, want at most 64", pool.Len())
	}
	pool.Close()
	if _, err := pool.take("a:1"); err == nil {
		t.Error("a closed pool makes a channel")
	}
}

func TestManyCallersMakeOneChannel(t *testing.T) {
	pool := NewPool(PoolConfig{})
	defer pool.Close()
	var (
		group sync.WaitGroup
		first atomic.Pointer[channel]
	)
	for range 64 {
		group.Go(func() {
			c, err := pool.take("a:1")
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

func TestTheTransportCallsARealNode(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	server := chassis.NewServer(chassis.Config{Name: "node", Addr: "127.0.0.1:0"}, func(context.Context, contextkit.TenantID) error { return nil }, zerolog.Nop())
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
	pool := NewPool(PoolConfig{})
	defer pool.Close()
	acme, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	client := gatewayv1connect.NewQueryServiceClient(contextkit.NewClient(NewTransport(pool)))
	callCtx := contextkit.TenantContext(t.Context(), acme)
	if _, err := client.ListViews(callCtx, &projectionv1.ListViewsRequest{}); connect.CodeOf(err) != connect.CodeInternal {
		t.Errorf("without an endpoint: %v", err)
	}
	res, err := client.ListViews(WithEndpoint(callCtx, server.Addr()), &projectionv1.ListViewsRequest{})
	if err != nil || res.GetPosition() != "p" {
		t.Fatalf("%v, %v", res, err)
	}
	if _, err := client.Get(WithEndpoint(callCtx, server.Addr()), &projectionv1.GetRequest{View: "v", Key: "k"}); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("a node's error: %v", err)
	}
	if _, err := client.ListViews(WithEndpoint(callCtx, "127.0.0.1:1"), &projectionv1.ListViewsRequest{}); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("no node: %v", err)
	}
	pool.channels.Range(func(_, value any) bool {
		if c := value.(*channel); c.calls.Load() != 1 {
			t.Errorf("the channel to %s still counts %d calls", c.endpoint, c.calls.Load()-1)
		}
		return true
	})
}
