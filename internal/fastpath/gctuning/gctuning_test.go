package gctuning

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGrowth_IsLargerForSmallHeaps(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 8 << 20: 400, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 30: 100,
	} {
		if got := growth(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

func TestAfterCollections_RunsAfterEachCollection(t *testing.T) {
	collected := make(chan struct{}, 1)
	afterCollections(func() bool {
		select {
		case collected <- struct{}{}:
		default:
		}
		return t.Context().Err() == nil
	})
	for n := range 3 {
		for deadline, notified := time.Now().Add(20*time.Second), false; !notified; {
			runtime.GC()
			select {
			case <-collected:
				notified = true
			default:
				if time.Now().After(deadline) {
					t.Fatalf("notified of collections %d times, want once more", n)
				}
			}
		}
	}
}

func TestAdapt_FollowsLiveHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	stop := Adapt()
	percent := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	reaches := func(want uint64) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); percent() != want; runtime.GC() {
			if time.Now().After(deadline) {
				t.Fatalf("%d %%, want %d", percent(), want)
			}
		}
	}
	reaches(maxGrowth)
	much := make([]byte, 2*growthBytes) // never touched
	reaches(minGrowth)
	runtime.KeepAlive(much)
	reaches(maxGrowth)
	stop()
	stop()
	if got := percent(); got != 100 {
		t.Errorf("%d %% once it is stopped, want the former 100", got)
	}
}

// BenchmarkAllocate allocates short-lived messages in a heap with little live data.
func BenchmarkAllocate(b *testing.B) {
	for name, start := range map[string]func() func(){
		"fast": Adapt, "plain": func() func() { return func() {} },
	} {
		b.Run(name, func(b *testing.B) {
			stop := start()
			defer stop()
			live := make([][]byte, 1<<12)
			for n := 0; b.Loop(); n++ {
				live[n%len(live)] = make([]byte, 1<<10)
			}
			runtime.KeepAlive(live)
		})
	}
}
