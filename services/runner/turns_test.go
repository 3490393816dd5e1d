package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
)

func TestTurns_TenantsAreServedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := newTurns(1)
		var (
			mu    sync.Mutex
			order []string
		)
		hold, err := slots.acquire(t.Context(), natstest.Tenant(t, "noisy"))
		if err != nil {
			t.Fatal(err)
		}
		work := func(tenant contextkit.TenantID) {
			release, err := slots.acquire(t.Context(), tenant)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, tenant.String())
			mu.Unlock()
			release()
		}
		for range 100 {
			go work(natstest.Tenant(t, "noisy"))
		}
		synctest.Wait()
		for _, name := range []string{"quiet", "silent"} {
			go work(natstest.Tenant(t, name))
			synctest.Wait()
		}
		hold()
		synctest.Wait()
		if got := fmt.Sprint(order[:4]); len(order) != 102 || got != "[noisy quiet silent noisy]" {
			t.Errorf("%d work items, the first %v; want one of each tenant among the first three", len(order), got)
		}
	})
}

func TestTurns_SlotsAreBoundedAndNeverLost(t *testing.T) {
	slots := newTurns(4)
	var (
		now, most atomic.Int64
		group     sync.WaitGroup
	)
	for i := range 400 {
		tenant := natstest.Tenant(t, fmt.Sprintf("t%d", i%7))
		group.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%5 == 0 {
				ctx, cancel = context.WithTimeout(ctx, time.Microsecond) // usually times out
				defer cancel()
			}
			release, err := slots.acquire(ctx, tenant)
			if errors.Is(err, context.DeadlineExceeded) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			in := now.Add(1)
			for seen := most.Load(); in > seen && !most.CompareAndSwap(seen, in); seen = most.Load() {
			}
			now.Add(-1)
			release()
		})
	}
	group.Wait()
	if most.Load() > 4 {
		t.Errorf("%d concurrent work items, want at most 4", most.Load())
	}
	if slots.free != 4 || len(slots.ring) != 0 || len(slots.waiting) != 0 {
		t.Errorf("at the end: %d free slots, %d waiting tenants", slots.free, len(slots.ring))
	}
}

func TestWorker_RunningWorkFinishesInTimeOrIsHandedBack(t *testing.T) {
	for name, row := range map[string]struct {
		finish time.Duration
		work   func(ctx context.Context, stop func())
		ended  bool // the work's context has, when the work has
	}{
		"slow work": {time.Hour, func(_ context.Context, stop func()) { stop() }, false},
		"stuck work": {time.Millisecond, func(ctx context.Context, stop func()) {
			stop()
			<-ctx.Done()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &worker{turns: newTurns(1), finish: row.finish}
			accepting, stop := context.WithCancel(t.Context())
			defer stop()
			worked := false
			w.inTurn(accepting, nil, func(ctx context.Context, _ jetstream.Msg) {
				row.work(ctx, stop)
				if worked = true; (ctx.Err() != nil) != row.ended {
					t.Errorf("context of the work: %v", ctx.Err())
				}
			})
			if !worked || w.inFlight.Load() != 0 {
				t.Errorf("work done: %v, in flight: %d", worked, w.inFlight.Load())
			}
		})
	}
}
