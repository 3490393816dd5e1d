package limit_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
)

func tenant(t testing.TB, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// budgets returns tenants' budgets of a large capacity.
func budgets(t testing.TB, quota limit.Config, held int) *limit.Tenants {
	t.Helper()
	shared, err := limit.NewShared(limit.Capacity{
		Calls:   4096,
		Streams: 16_384,
		Bytes:   1 << 30,
		Delayed: held,
	})
	if err != nil {
		t.Fatal(err)
	}
	tenants, err := limit.NewTenants(shared, quota, 1)
	if err != nil {
		t.Fatal(err)
	}
	return tenants
}

// enter makes a call, or a stream, acquire its slot and spend the rate.
func enter(
	t testing.TB, tenants *limit.Tenants, name string, stream bool,
) (use *limit.Use, wait time.Duration, err error) {
	t.Helper()
	use = &limit.Use{}
	if err := tenants.Acquire(tenant(t, name), use, stream, limit.Normal); err != nil {
		return use, 0, err
	}
	if wait, err = use.Budget().Spend(time.Now()); err != nil {
		use.ReleaseAll()
	}
	return use, wait, err
}

func TestTenants_RateIsPerTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenants := budgets(t, limit.Config{Rate: 10, Burst: 5}, 0)
		calls := func(name string, n int) (accepted int, wait time.Duration) {
			for range n {
				use, w, err := enter(t, tenants, name, false)
				switch {
				case err == nil:
					accepted++
					use.ReleaseAll()
				case !errors.Is(err, limit.ErrRate):
					t.Fatal(err)
				default:
					wait = w
				}
			}
			return accepted, wait
		}
		if n, wait := calls("noisy", 100); n != 5 || wait <= 0 || wait > 100*time.Millisecond {
			t.Errorf(
				"of 100 concurrent calls %d are accepted, wait %v; want the burst of 5, and to wait for a tenth of a "+
					"second",
				n, wait,
			)
		}
		if n, _ := calls("quiet", 5); n != 5 {
			t.Errorf("another tenant has %d of its 5 calls", n)
		}
		time.Sleep(300 * time.Millisecond)
		if n, _ := calls("noisy", 100); n != 3 {
			t.Errorf("after 0.3 s %d are accepted, want 3", n)
		}
	})
}

func TestTenants_CallsInFlightAreBounded(t *testing.T) {
	tenants := budgets(t, limit.Config{Concurrent: 8}, 0)
	var (
		group         sync.WaitGroup
		now, most     atomic.Int64
		refused       atomic.Int64
		begin, finish = make(chan struct{}), make(chan struct{})
		decided       sync.WaitGroup
	)
	decided.Add(100)
	for range 100 {
		group.Go(func() {
			<-begin
			use, _, err := enter(t, tenants, "acme", false)
			if err != nil {
				refused.Add(1)
				decided.Done()
				return
			}
			for in := now.Add(1); ; {
				seen := most.Load()
				if in <= seen || most.CompareAndSwap(seen, in) {
					break
				}
			}
			decided.Done()
			<-finish
			now.Add(-1)
			use.ReleaseAll()
		})
	}
	close(begin)
	decided.Wait()
	close(finish)
	group.Wait()
	if most.Load() > 8 || refused.Load() < 92 {
		t.Errorf("%d concurrent calls were in flight and %d rejected; want at most 8, and the rest rejected",
			most.Load(), refused.Load())
	}
	if use, _, err := enter(t, tenants, "acme", false); err != nil {
		t.Errorf("after all calls ended: %v", err)
	} else {
		use.ReleaseAll()
	}
}

func TestRetries_AreTenthOfCalls(t *testing.T) {
	budget := limit.NewRetries()
	const calls = 10_000
	retries := 0
	for range calls {
		budget.Call("node:1")
		for range 2 {
			if budget.Retry("node:1") {
				retries++
			}
		}
	}
	if retries > calls/10+10 || retries < calls/10-10 {
		t.Errorf("%d retries of %d calls, want a tenth and the initial balance", retries, calls)
	}
	if !budget.Retry("node:2") {
		t.Error("another endpoint pays for the first")
	}
}

func TestRetries_TokensAreBounded(t *testing.T) {
	budget := limit.NewRetries()
	for range 10_000 {
		budget.Call("node:1")
	}
	retries := 0
	for budget.Retry("node:1") {
		retries++
	}
	if retries != 100 {
		t.Errorf("%d consecutive retries after many calls, want 100", retries)
	}
}

func TestConfig_NegativeBoundIsRejected(t *testing.T) {
	shared, err := limit.NewShared(limit.Capacity{Calls: 1, Streams: 1, Bytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := limit.NewTenants(shared, limit.Config{Rate: -1}, 1); err == nil {
		t.Error("a negative rate is valid, want an error")
	}
}

func TestBudget_RetriesAreTenthOfCalls(t *testing.T) {
	tenants := budgets(t, limit.Config{}, 0)
	retries := 0
	for range 50 {
		if tenants.Of(tenant(t, "acme")).Retry() {
			retries++
		}
	}
	if retries != 10 {
		t.Errorf("%d retries without a call, want the initial balance of 10", retries)
	}
	for range 20 {
		use, _, err := enter(t, tenants, "acme", false)
		if err != nil {
			t.Fatal(err)
		}
		use.ReleaseAll()
	}
	earned := 0
	for tenants.Of(tenant(t, "acme")).Retry() {
		earned++
	}
	if earned != 2 {
		t.Error("20 calls do not earn 2 retries")
	}
	if !tenants.Of(tenant(t, "globex")).Retry() {
		t.Error("another tenant pays for the first")
	}
}

func TestBudget_HoldsUnderConcurrency(t *testing.T) {
	budget := limit.NewRetries()
	var (
		group   sync.WaitGroup
		retries atomic.Int64
	)
	for range 16 {
		group.Go(func() {
			for range 1000 {
				budget.Call("node:1")
				if budget.Retry("node:1") {
					retries.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := retries.Load(); n > 16_000/10+10 {
		t.Errorf("%d retries of 16000 calls, want at most a tenth and the initial balance", n)
	}
}

func TestLimiter_LowPriorityIsRejectedFirst(t *testing.T) {
	room, err := limit.NewLimiter(10)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(p limit.Priority) (n int) {
		for room.Acquire(1, p) {
			n++
		}
		return n
	}
	if low, normal, high := fill(limit.Low), fill(limit.Normal), fill(limit.High); low != 7 || normal != 2 ||
		high != 1 {
		t.Errorf("low fills %d, normal %d more, high %d more; want 7, 2 and 1 of 10", low, normal, high)
	}
	if room.Shed(limit.Low) != 1 || room.Shed(limit.High) != 1 || room.Used() != 10 {
		t.Errorf("%d low and %d high calls refused, %d in flight", room.Shed(limit.Low), room.Shed(limit.High),
			room.Used())
	}
	room.Release(1)
	if room.Acquire(1, limit.Normal) || !room.Acquire(1, limit.High) {
		t.Error("the place that is free goes to the less important")
	}
	if _, err := limit.NewLimiter(0); err == nil {
		t.Error("a capacity of 0 is valid, want an error")
	}
}

func TestLimiter_NeverExceedsCapacity(t *testing.T) {
	room, err := limit.NewLimiter(50)
	if err != nil {
		t.Fatal(err)
	}
	var (
		group    sync.WaitGroup
		now      atomic.Int64
		overfull atomic.Bool
	)
	for i := range 200 {
		group.Go(func() {
			for range 200 {
				if !room.Acquire(1, limit.Priority(i%3)) {
					continue
				}
				if now.Add(1) > 50 {
					overfull.Store(true)
				}
				now.Add(-1)
				room.Release(1)
			}
		})
	}
	group.Wait()
	if overfull.Load() || room.Used() != 0 {
		t.Errorf("overfull %v; %d in flight at the end", overfull.Load(), room.Used())
	}
}

func TestShared_StreamsAndCallsAreSeparate(t *testing.T) {
	tenants := budgets(t, limit.Config{Concurrent: 2, Streams: 3}, 0)
	count := func(stream bool) (n int, err error) {
		for ; err == nil; n++ {
			_, _, err = enter(t, tenants, "acme", stream)
		}
		return n - 1, err
	}
	if n, err := count(true); n != 3 || !errors.Is(err, limit.ErrStreams) {
		t.Errorf("%d streams, then %v", n, err)
	}
	if n, err := count(false); n != 2 || !errors.Is(err, limit.ErrConcurrency) {
		t.Errorf("%d calls, then %v", n, err)
	}
}
