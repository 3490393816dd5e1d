package limit

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"
)

func newShared(t *testing.T, calls int, bytes int64) *Shared {
	t.Helper()
	shared, err := NewShared(Capacity{
		Calls:   calls,
		Streams: 10,
		Bytes:   bytes,
		Delayed: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	return shared
}

func newCallers(t *testing.T, shared *Shared, share, together float64) *Budgets[string] {
	t.Helper()
	callers, err := NewCallers[string](shared, share, together, 5)
	if err != nil {
		t.Fatal(err)
	}
	return callers
}

// A budget is pinned as long as a use is charged to it: a use that is refused or moved leaves no pin, which would keep
// the budget in its table indefinitely.
func TestUse_RefusedOrMovedLeavesNoPin(t *testing.T) {
	pins := func(b *Budgets[string], key string, want int64) {
		t.Helper()
		if got := b.Of(key).pins.Load(); got != want {
			t.Errorf("%s has %d pins, want %d", key, got, want)
		}
	}
	refused := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	callers := newCallers(t, newShared(t, 4, 100), 0.5, 1)
	var uses [5]Use
	for n := range 2 {
		refused(callers.Acquire("a", &uses[n], false, High), nil)
	}
	refused(callers.Acquire("a", &uses[2], false, High), ErrConcurrency)
	pins(callers, "a", 2)
	for n := range 2 {
		refused(callers.Acquire("b", &uses[2+n], false, High), nil)
	}
	refused(callers.Acquire("c", &uses[4], false, High), ErrFull)
	pins(callers, "c", 0)

	refused(callers.Move("c", &uses[4]), ErrReleased)
	pins(callers, "c", 0)
	refused(callers.Move("b", &uses[0]), ErrConcurrency)
	pins(callers, "b", 2)
	refused(uses[0].Reserve(50), nil)
	refused(uses[2].Reserve(10), nil)
	uses[3].ReleaseAll()
	refused(callers.Move("b", &uses[0]), ErrBytes)
	pins(callers, "b", 1)
	refused(callers.Move("c", &uses[0]), nil)
	pins(callers, "a", 1)
	pins(callers, "c", 1)
	for n := range uses {
		uses[n].ReleaseAll()
	}
	for _, key := range []string{"a", "b", "c"} {
		pins(callers, key, 0)
		if calls, streams, bytes := callers.Of(key).InFlight(); calls+streams+bytes != 0 {
			t.Errorf("%s holds %d calls, %d streams, %d bytes", key, calls, streams, bytes)
		}
	}
	if callers.shared.calls.Used()+callers.shared.bytes.Used() != 0 {
		t.Error("the shared capacity is used")
	}
}

// What a group of callers holds together is bounded and released with their own; its refusal is not the caller's fault.
func TestUse_GroupIsReleasedWithItsCallers(t *testing.T) {
	callers := newCallers(t, newShared(t, 10, 100), 0.2, 0.2)
	group := callers.Of("a").group
	var first, second Use
	if err := callers.Acquire("a", &first, false, High); err != nil {
		t.Fatal(err)
	}
	if err := callers.Acquire("b", &second, false, High); err != nil {
		t.Fatal(err)
	}
	if err := callers.Acquire("c", &Use{}, false, High); !errors.Is(err, ErrFull) || callers.Of("c").calls.Load() != 0 {
		t.Errorf("over the group's limit: %v, and the caller holds %d calls", err, callers.Of("c").calls.Load())
	}
	if err := first.Reserve(15); err != nil {
		t.Fatal(err)
	}
	if err := second.Reserve(10); !errors.Is(err, ErrFull) || !errors.Is(second.ReserveError(), ErrFull) {
		t.Errorf("bytes beyond the group's: %v, reported as %v", err, second.ReserveError())
	}
	first.Release(15)
	if group.bytes.Load() != 0 {
		t.Errorf("the group holds %d bytes", group.bytes.Load())
	}
	if err := second.Reserve(20); err != nil {
		t.Error(err)
	}
	first.ReleaseShared()
	if used := callers.shared.calls.Used(); used != 1 || callers.Of("a").calls.Load() != 1 {
		t.Errorf("%d calls of the shared capacity are used, %d of the caller's", used, callers.Of("a").calls.Load())
	}
	first.ReleaseAll()
	second.ReleaseAll()
	if group.calls.Load() != 0 || group.bytes.Load() != 0 {
		t.Errorf("the group holds %d calls and %d bytes", group.calls.Load(), group.bytes.Load())
	}
}

// Bytes beyond the shared capacity are not the caller's fault.
func TestUse_SharedBytesAreReportedAsFull(t *testing.T) {
	callers := newCallers(t, newShared(t, 10, 100), 0.8, 1)
	var first, second Use
	for key, use := range map[string]*Use{"a": &first, "b": &second} {
		if err := callers.Acquire(key, use, false, High); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(first.ReserveError(), first.Reserve(80), first.ReserveError()); err != nil {
		t.Fatal(err)
	}
	if err := second.Reserve(30); !errors.Is(err, ErrFull) || !errors.Is(second.ReserveError(), ErrFull) {
		t.Errorf("%v, reported as %v", err, second.ReserveError())
	}
	if err := first.Reserve(1); !errors.Is(err, ErrBytes) || !errors.Is(first.ReserveError(), ErrBytes) {
		t.Errorf("%v, reported as %v", err, first.ReserveError())
	}
}

// A budget is forgotten only if a new one is equal: with a spent retry token, a call in flight or a spent rate it is
// not, so that a caller cannot get a full retry budget by being forgotten.
func TestBudget_IsForgottenOnlyWhenUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		callers := newCallers(t, newShared(t, 10, 100), 1, 1)
		for name, use := range map[string]func(*Budget){
			"retry": func(b *Budget) { b.Retry() }, "pinned": func(b *Budget) { b.pin() },
			"rate": func(b *Budget) { b.Denied(time.Now()) },
		} {
			used := callers.Of(name)
			if use(used); used.remove() {
				t.Errorf("%s: the budget is forgotten", name)
			}
		}
		if unused := callers.Of("unused"); !unused.remove() || unused.pin() {
			t.Error("an unused budget is retained, or used after its removal")
		}
	})
}

// Concurrent calls of one caller get one budget.
func TestBudgets_ConcurrentCallsOfACallerShareItsBudget(t *testing.T) {
	callers := newCallers(t, newShared(t, 10, 100), 1, 1)
	const keys, calls = 200, 4
	var got [calls][keys]*Budget
	var running sync.WaitGroup
	begin := make(chan struct{})
	for n := range got {
		running.Go(func() {
			<-begin
			for key := range keys {
				got[n][key] = callers.Of(string(rune('a' + key)))
			}
		})
	}
	close(begin)
	running.Wait()
	for n := range got {
		if got[n] != got[0] {
			t.Fatalf("goroutine %d got other budgets", n)
		}
	}
	if tracked := callers.Tracked(); tracked != keys {
		t.Errorf("%d budgets are tracked, want %d", tracked, keys)
	}
}

// Callers may use a share above 0 and at most 1, and have a rate with a burst of two seconds, a tenth of which is
// rejected without delay.
func TestNewCallers_BoundsFollowFromShares(t *testing.T) {
	shared := newShared(t, 10, 100)
	for _, bad := range [][2]float64{{0, 1}, {1, 0}, {-1, 1}, {1.1, 1}, {1, 1.1}} {
		if _, err := NewCallers[string](shared, bad[0], bad[1], 5); err == nil {
			t.Errorf("shares of %v are accepted", bad)
		}
	}
	b := newCallers(t, shared, 0.5, 1).Of("a")
	if got := *b.bounds.Load(); got.rate != 5 || got.burst != 10 || got.calls != 5 || got.bytes != 50 {
		t.Errorf("the bounds are %+v", got)
	}
	for range 2 {
		bounds := *b.bounds.Load()
		if limit := b.promptRejections.Limit(); limit != rate.Limit(bounds.rate)/10 {
			t.Errorf("%v prompt rejections per second at a rate of %v", limit, bounds.rate)
		}
		if burst := b.promptRejections.Burst(); burst != bounds.burst/10 {
			t.Errorf("%d prompt rejections in a burst of %d calls", burst, bounds.burst)
		}
		bounds.rate, bounds.burst = 50, 70
		b.setBounds(bounds)
		if *b.bounds.Load() != bounds || b.limiter.Limit() != 50 || b.limiter.Burst() != 70 {
			t.Errorf("%v calls per second with a burst of %d, want 50 and 70", b.limiter.Limit(), b.limiter.Burst())
		}
	}
	for _, bad := range []Capacity{
		{Calls: 0, Streams: 1, Bytes: 1}, {Calls: 1, Streams: 0, Bytes: 1}, {Calls: 1, Streams: 1, Bytes: 0},
		{Calls: 1, Streams: 1, Bytes: 1, Delayed: -1},
	} {
		if _, err := NewShared(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// The wait of a rejected call ends when the next call is admitted, also if a part of a call has been earned before.
func TestSpend_WaitEndsWhenACallIsAdmitted(t *testing.T) {
	b := newCallers(t, newShared(t, 10, 100), 1, 1).Of("a") // 5 calls per second
	now := time.Now()
	for range 10 {
		if _, err := b.Spend(now); err != nil {
			t.Fatalf("within the burst: %v", err)
		}
	}
	for _, passed := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond} {
		wait, err := b.Spend(now.Add(passed))
		if left := wait - (200*time.Millisecond - passed); !errors.Is(err, ErrRate) || left.Abs() > time.Microsecond {
			t.Errorf("%v after the burst: %v, wait %v", passed, err, wait)
		}
	}
	if _, err := b.Spend(now.Add(200*time.Millisecond + time.Microsecond)); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

// Delays have jitter, so that clients that were rejected together do not retry together; and a delay that has ended
// makes room for the next.
func TestBounds_DelaysOfRejectionsHaveJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const samples = 60
		lowest, highest := time.Hour, time.Duration(0)
		seen := map[time.Duration]bool{}
		b, prompt := newCallers(t, newShared(t, 10, 100), 1, 1).Of("a"), 0
		for len(seen) < samples {
			began := time.Now()
			if !b.DelayRejection(t.Context()) {
				if prompt++; prompt > samples/5 { // half a rejection per second, of ten
					t.Fatalf("%d rejections are not delayed, %d are", prompt, len(seen))
				}
				continue
			}
			took := time.Since(began)
			if seen[took] {
				t.Fatalf("two delays of %v", took)
			}
			seen[took] = true
			lowest, highest = min(lowest, took), max(highest, took)
		}
		if lowest < 50*time.Millisecond || lowest > 70*time.Millisecond || highest > 150*time.Millisecond ||
			highest < 130*time.Millisecond {
			t.Errorf("delays from %v to %v, want 50 to 150 ms", lowest, highest)
		}
		if pins := b.pins.Load(); pins != 0 {
			t.Errorf("the budget has %d pins after the delays", pins)
		}
	})
}

// The nodes' buckets restart when there are too many, all together and not again with the next node.
func TestRetries_BucketsRestartOnce(t *testing.T) {
	retries := NewRetries()
	for n := range trackedEndpoints + 1 {
		retries.Call(fmt.Sprint("node-", n))
	}
	for retries.Retry("failing") {
	}
	retries.Call("new")
	if retries.Retry("failing") {
		t.Error("a new node renews the budget of another")
	}
}

// A use that no budget has admitted releases nothing, as when a call ends before its budget is known.
func TestUse_WithoutBudgetReleasesNothing(t *testing.T) {
	var u Use
	u.Release(5)
	u.ReleaseAll()
	if u.bytes != 0 {
		t.Errorf("%d bytes", u.bytes)
	}
}
