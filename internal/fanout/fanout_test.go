package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/internal/fanout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func nodes(n int) func() []route.Node {
	list := make([]route.Node, n)
	for i := range list {
		list[i] = route.Node{
			ID:       fmt.Sprintf("n%d", i),
			Kind:     "node",
			Endpoint: "x:1",
			Ready:    true,
		}
	}
	return func() []route.Node { return list }
}

func TestRound_ConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		group := fanout.NewGroup(
			fanout.Config{Concurrent: 4}, nodes(50), func(context.Context, route.Node) (int, error) {
				in := now.Add(1)
				defer now.Add(-1)
				for seen := most.Load(); in > seen && !most.CompareAndSwap(seen, in); seen = most.Load() {
				}
				time.Sleep(10 * time.Millisecond)
				return 1, nil
			},
		)
		snapshot, err := group.Snapshot(t.Context())
		if err != nil || len(snapshot.Answers) != 50 {
			t.Fatalf("%v, %v", snapshot, err)
		}
		if most.Load() != 4 {
			t.Errorf("%d are queried concurrently, want 4", most.Load())
		}
	})
}

func TestRound_IsSharedAndCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := fanout.NewGroup(
			fanout.Config{TTL: time.Second}, nodes(3), func(context.Context, route.Node) (int, error) {
				time.Sleep(100 * time.Millisecond)
				return 1, nil
			},
		)
		for _, rounds := range []int64{1, 2} {
			var callers sync.WaitGroup
			for range 100 {
				callers.Go(func() {
					if _, err := group.Snapshot(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			callers.Wait()
			time.Sleep(500 * time.Millisecond)
			snapshot, err := group.Snapshot(t.Context())
			if err != nil || snapshot.Age() != 600*time.Millisecond {
				t.Errorf("the snapshot is %v old, want 600ms", snapshot.Age())
			}
			if group.Rounds() != rounds || group.Calls() != 3*rounds {
				t.Errorf("%d rounds and %d calls, want %d and %d", group.Rounds(), group.Calls(), rounds, 3*rounds)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestRound_NamesNodesWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := fanout.NewGroup(
			fanout.Config{Timeout: time.Second}, nodes(3), func(ctx context.Context, node route.Node) (string, error) {
				switch node.ID {
				case "n1":
					<-ctx.Done()
					return "", ctx.Err()
				case "n2":
					return "", errors.New("broken")
				}
				return "well", nil
			},
		)
		snapshot, err := group.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		a := snapshot.Answers
		if a[0].Value != "well" || !errors.Is(a[1].Err, context.DeadlineExceeded) || a[1].Node.ID != "n1" ||
			a[1].Took != time.Second || a[2].Err == nil {
			t.Errorf("%+v", a)
		}
	})
}

func TestRound_CancelledCallerEndsNoSharedRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		group := fanout.NewGroup(fanout.Config{}, nodes(1), func(ctx context.Context, _ route.Node) (int, error) {
			select {
			case <-time.After(100 * time.Millisecond):
				return 7, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := group.Snapshot(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the caller that leaves: %v", err)
		}
		if snapshot, err := group.Snapshot(t.Context()); err != nil || snapshot.Answers[0].Value != 7 ||
			group.Rounds() != 1 {
			t.Errorf("%+v, %v, %d rounds", snapshot, err, group.Rounds())
		}
	})
}
