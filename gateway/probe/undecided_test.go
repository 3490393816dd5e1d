package probe_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/fanout"
)

// A node whose health check hangs while it answers other calls has not missed the probe.
func TestProbe_NodeThatAnswersOtherCallsIsNotMissed(t *testing.T) {
	endpoint := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == healthv1.Health_Check_FullMethodName {
			<-r.Context().Done()
			return
		}
		http.NotFound(w, r)
	})
	table := route.NewTable()
	if err := table.SetNodes([]route.Node{{ID: "busy", Kind: "thing", Endpoint: endpoint, Ready: true}}); err != nil {
		t.Fatal(err)
	}
	pool := upstream.NewPool(upstream.PoolConfig{})
	defer pool.Close()
	client := contextkit.NewClient(upstream.NewTransport(pool))
	config := probe.Config{
		Every:  time.Millisecond,
		FanOut: fanout.Config{Timeout: 200 * time.Millisecond, TTL: time.Millisecond},
	}
	prober := probe.New(config, table, client, uncut{pool, t}, zerolog.Nop())
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = prober.Run(ctx) }) // it returns no error
	running.Go(func() {
		to := upstream.WithEndpoint(contextkit.PlatformContext(ctx), endpoint)
		for ctx.Err() == nil {
			_ = client.CallUnary(to, connect.Spec{Procedure: "/any.Service/Call", StreamType: connect.StreamTypeUnary},
				&emptypb.Empty{}, &emptypb.Empty{})
		}
	})
	until(t, "the node receives five probes", func() bool { return prober.Probes() >= 5 })
	cancel()
	running.Wait()
	if node, _ := table.Node("busy"); !node.Ready {
		t.Error("the node is not ready")
	}
}

// stuck is a transport whose calls end long after their deadlines, like in a process without CPU
// time. It is also the channels, of which no endpoint has answered.
type stuck struct {
	took time.Duration
	cut  func()
}

// NewClientStream implements [connect.Transport].
func (s stuck) NewClientStream(ctx context.Context, _ connect.Spec) (connect.ClientStream, error) {
	time.Sleep(s.took) // of synctest's clock
	return nil, ctx.Err()
}

// Answered implements [probe.Channels].
func (stuck) Answered(string) time.Time { return time.Time{} }

// Abandon implements [probe.Channels].
func (s stuck) Abandon(string) { s.cut() }

func TestProbe_DeadlineNoticedLateDoesNotCount(t *testing.T) {
	for name, tc := range map[string]struct {
		took  time.Duration
		ready bool
	}{
		"in time": {time.Second + 10*time.Millisecond, false},
		"late":    {3 * time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := route.NewTable()
				if err := table.SetNodes(
					[]route.Node{{ID: "node", Kind: "thing", Endpoint: "a:1", Ready: true}},
				); err != nil {
					t.Fatal(err)
				}
				cuts := 0
				node := stuck{tc.took, func() { cuts++ }}
				prober := probe.New(probe.Config{}, table, contextkit.NewClient(node), node, zerolog.Nop())
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if err := prober.Run(ctx); err != nil {
					t.Fatal(err)
				}
				if node, _ := table.Node("node"); node.Ready != tc.ready || (cuts == 0) != tc.ready {
					t.Errorf("ready: %t, calls ended %d times", node.Ready, cuts)
				}
			})
		})
	}
}
