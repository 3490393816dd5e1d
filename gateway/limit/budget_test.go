package limit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/limit"
)

// capacity returns a shared capacity.
func capacity(t testing.TB, calls, streams int, bytes int64) *limit.Shared {
	t.Helper()
	shared, err := limit.NewShared(limit.Capacity{
		Calls:   calls,
		Streams: streams,
		Bytes:   bytes,
		Delayed: 4,
	})
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func TestBudget_OneTenantUsesAtMostItsShare(t *testing.T) {
	shared := capacity(t, 100, 40, 1000)
	tenants, err := limit.NewTenants(shared, limit.Config{Concurrent: 1000, Streams: 1000}, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(name string, stream bool) (n int, err error) {
		for {
			if err = tenants.Acquire(tenant(t, name), &limit.Use{}, stream, limit.High); err != nil {
				return n, err
			}
			n++
		}
	}
	if n, err := fill("acme", false); n != 50 || !errors.Is(err, limit.ErrConcurrency) {
		t.Errorf("%d calls, then %v; want 50", n, err)
	}
	if n, err := fill("acme", true); n != 20 || !errors.Is(err, limit.ErrStreams) {
		t.Errorf("%d streams, then %v; want 20", n, err)
	}
	if n, err := fill("globex", false); n != 50 || !errors.Is(err, limit.ErrConcurrency) {
		t.Errorf("another tenant: %d calls, then %v; want 50", n, err)
	}
	if n, err := fill("initech", false); n != 0 || !errors.Is(err, limit.ErrFull) {
		t.Errorf("beyond the shared capacity: %d calls, then %v", n, err)
	}
	var use limit.Use
	if err := tenants.Acquire(tenant(t, "initech"), &use, true, limit.Normal); err != nil {
		t.Fatal(err)
	}
	defer use.ReleaseAll()
	if err := use.Reserve(500); err != nil {
		t.Errorf("half of the bytes: %v", err)
	}
	if err := use.Reserve(1); !errors.Is(err, limit.ErrBytes) || !errors.Is(use.ReserveError(), limit.ErrBytes) {
		t.Errorf("one more byte: %v", err)
	}
}

// Callers that can be invented without cost, such as client addresses, leave capacity for other
// callers, regardless of their number.
func TestCallers_TotalIsBoundedByShare(t *testing.T) {
	shared := capacity(t, 100, 40, 1000)
	callers, err := limit.NewCallers[int](shared, 0.1, 0.5, 1)
	if err != nil {
		t.Fatal(err)
	}
	entered := func(stream bool) (uses []*limit.Use, err error) {
		for caller := range 100 {
			use := &limit.Use{}
			if err = callers.Acquire(caller, use, stream, limit.Normal); err != nil {
				return uses, err
			}
			uses = append(uses, use)
		}
		return uses, nil
	}
	calls, err := entered(false)
	if len(calls) != 50 || !errors.Is(err, limit.ErrFull) {
		t.Errorf("%d calls, then %v; want 50", len(calls), err)
	}
	streams, err := entered(true)
	if len(streams) != 20 || !errors.Is(err, limit.ErrFull) {
		t.Errorf("%d streams, then %v; want 20", len(streams), err)
	}
	for n, use := range calls[:6] {
		if err := use.Reserve(100); (err == nil) != (n < 5) || err != nil && !errors.Is(err, limit.ErrFull) {
			t.Errorf("%d bytes, then %v; want 500", 100*n, err)
		}
	}
	for _, use := range append(calls, streams...) {
		use.ReleaseAll()
	}
	if again, err := entered(false); len(again) != 50 || !errors.Is(err, limit.ErrFull) {
		t.Errorf("after all calls ended: %d calls, then %v; want 50", len(again), err)
	}
}

func TestBudget_OperatorsHaveAReserveOfBytes(t *testing.T) {
	shared := capacity(t, 10, 10, 1000)
	callers, err := limit.NewCallers[string](shared, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	var normal, high limit.Use
	if err := callers.Acquire("app", &normal, false, limit.Normal); err != nil {
		t.Fatal(err)
	}
	if err := callers.Acquire("operator", &high, false, limit.High); err != nil {
		t.Fatal(err)
	}
	if err := normal.Reserve(901); !errors.Is(err, limit.ErrFull) {
		t.Errorf("the reserve is given away: %v", err)
	}
	if err := normal.Reserve(900); err != nil {
		t.Error(err)
	}
	if err := high.Reserve(100); err != nil {
		t.Errorf("operator: %v", err)
	}
	normal.ReleaseAll()
	high.ReleaseAll()
}

// The property: after any mix of calls that completed, were rejected, moved or ended during a
// reservation, nothing is held.
func TestUse_ReleaseAllReleasesEverything(t *testing.T) {
	shared := capacity(t, 24, 24, 10_000)
	tenants, err := limit.NewTenants(shared, limit.Config{Rate: 1e9, Concurrent: 4, Streams: 4}, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	callers, err := limit.NewCallers[string](shared, 0.25, 0.5, 1e9)
	if err != nil {
		t.Fatal(err)
	}
	names := []contextkit.TenantID{tenant(t, "acme"), tenant(t, "globex"), tenant(t, "initech")}
	var group sync.WaitGroup
	refusals := make([]map[error]int, 16)
	for worker := range refusals {
		refusals[worker] = map[error]int{}
		group.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			refused := func(err error) bool {
				if err != nil {
					refusals[worker][err]++
				}
				return err != nil
			}
			var held []*limit.Use
			for range 3000 {
				if len(held) > 8 || len(held) > 0 && random.IntN(3) == 0 {
					use := held[0]
					held = held[1:]
					switch random.IntN(4) {
					case 0: // the goroutine that forwards its messages continues for a moment
						group.Go(func() {
							for use.Reserve(7) == nil {
								use.Release(3)
							}
						})
					case 1:
						use.ReleaseShared() // its refusal is held back
					}
					use.ReleaseAll()
					use.ReleaseAll() // once more changes nothing
					continue
				}
				use, priority, stream := &limit.Use{}, limit.Priority(random.IntN(3)), random.IntN(2) == 0
				if random.IntN(2) == 0 {
					if refused(callers.Acquire(fmt.Sprint(random.IntN(4)), use, stream, priority)) {
						continue
					}
					_ = use.Reserve(random.Int64N(400))
					refused(tenants.Move(names[random.IntN(3)], use))
				} else if refused(tenants.Acquire(names[random.IntN(3)], use, stream, priority)) {
					continue
				}
				refused(use.Reserve(random.Int64N(400)))
				use.Release(random.Int64N(400))
				refused(use.Reserve(random.Int64N(400)))
				held = append(held, use)
			}
			for _, use := range held {
				use.ReleaseAll()
			}
		})
	}
	group.Wait()
	seen := map[error]bool{}
	for _, counts := range refusals {
		for err := range counts {
			seen[err] = true
		}
	}
	if len(seen) == 0 { // which ones there are, the scheduler decides
		t.Error("the mix produced no rejections")
	}
	if calls, streams, bytes := shared.Calls().Used(), shared.Streams().Used(), shared.Bytes().Used(); calls != 0 ||
		streams != 0 || bytes != 0 {
		t.Errorf("of the shared capacity %d calls, %d streams and %d bytes are held", calls, streams, bytes)
	}
	for _, name := range names {
		if calls, streams, bytes := tenants.Of(name).InFlight(); calls != 0 || streams != 0 || bytes != 0 {
			t.Errorf("%s holds %d calls, %d streams and %d bytes", name, calls, streams, bytes)
		}
	}
	for n := range 4 {
		if calls, streams, bytes := callers.Of(fmt.Sprint(n)).InFlight(); calls != 0 || streams != 0 || bytes != 0 {
			t.Errorf("caller %d holds %d calls, %d streams and %d bytes", n, calls, streams, bytes)
		}
	}
}

func TestUse_MoveChargesTenantOrFails(t *testing.T) {
	shared := capacity(t, 100, 100, 1000)
	tenants, err := limit.NewTenants(shared, limit.Config{Concurrent: 1}, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	callers, err := limit.NewCallers[string](shared, 1, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	use := func(bytes int64) *limit.Use {
		use := &limit.Use{}
		if err := callers.Acquire("runner", use, false, limit.Normal); err != nil {
			t.Fatal(err)
		}
		if err := use.Reserve(bytes); err != nil {
			t.Fatal(err)
		}
		return use
	}
	acme := tenant(t, "acme")
	large := use(501)
	if err := tenants.Move(acme, large); !errors.Is(err, limit.ErrBytes) {
		t.Errorf("over the tenant's byte limit: %v", err)
	}
	first, second := use(10), use(10)
	if err := tenants.Move(acme, first); err != nil {
		t.Error(err)
	}
	if err := tenants.Move(acme, second); !errors.Is(err, limit.ErrConcurrency) {
		t.Errorf("second call: %v", err)
	}
	if calls, _, bytes := tenants.Of(acme).InFlight(); calls != 1 || bytes != 10 {
		t.Errorf("the tenant is charged %d calls and %d bytes", calls, bytes)
	}
	if calls, _, bytes := callers.Of("runner").InFlight(); calls != 2 || bytes != 511 {
		t.Errorf("the caller is charged %d calls and %d bytes", calls, bytes)
	}
	for _, use := range []*limit.Use{large, first, second} {
		use.ReleaseAll()
		if err := tenants.Move(acme, use); !errors.Is(err, limit.ErrReleased) {
			t.Errorf("moving a released use: %v", err)
		}
	}
}

// A hostile caller uses more keys than are tracked.
func TestBudgets_ManyKeysCannotResetLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenants := budgets(t, limit.Config{Rate: 0.01, Burst: 1}, 0)
		spend := func(name string) error {
			use, _, err := enter(t, tenants, name, false)
			use.ReleaseAll()
			return err
		}
		if err := spend("acme"); err != nil {
			t.Fatal(err)
		}
		var stream limit.Use
		if err := tenants.Acquire(tenant(t, "globex"), &stream, true, limit.Normal); err != nil {
			t.Fatal(err)
		}
		for n := range 100_000 { // each uses its rate up, so that none is forgotten
			_ = spend(fmt.Sprintf("hostile-%d", n))
		}
		if err := spend("acme"); !errors.Is(err, limit.ErrRate) {
			t.Errorf("the rate of a tenant was lost: %v", err)
		}
		if _, streams, _ := tenants.Of(tenant(t, "globex")).InFlight(); streams != 1 {
			t.Errorf("the streams of a tenant were lost: %d", streams)
		}
		if n := tenants.Tracked(); n > 65_536 || tenants.Overflowed() == 0 {
			t.Errorf("%d callers are tracked, %d calls used the shared budget", n, tenants.Overflowed())
		}
		time.Sleep(200 * time.Second) // all of their limits are whole again
		if err := spend("newcomer"); err != nil {
			t.Errorf("once others are idle: %v", err)
		}
		if _, streams, _ := tenants.Of(tenant(t, "globex")).InFlight(); streams != 1 {
			t.Errorf("streams in flight were lost: %d", streams)
		}
		before := tenants.Overflowed()
		for n := range 10_000 {
			_ = spend(fmt.Sprintf("newcomer-%d", n))
		}
		if grown := tenants.Overflowed() - before; grown != 0 {
			t.Errorf("idle callers keep %d newcomers out", grown)
		}
		stream.ReleaseAll()
	})
}
