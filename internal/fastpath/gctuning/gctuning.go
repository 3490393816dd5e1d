// Package gctuning adapts how far the heap grows before Go's garbage collector runs: a
// process with little live data collects less often than by Go's default, and a process with
// much live data uses no more memory than by the default.
package gctuning

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// Bounds of the growth of the heap before a collection, in percent of the live data. A process with small messages
// has little live data, and would spend a fifth of its time in collections with the minimum, which is Go's default;
// one with much live data, for example ten thousand connections, would use several times that memory with the
// maximum.
const (
	minGrowth = 100
	maxGrowth = 400
	// growthBytes bounds the growth of the heap beyond the minimum percentage.
	growthBytes = 128 << 20
)

// growth returns the percentage for an amount of live data, in bytes.
func growth(live uint64) int {
	return int(min(max(growthBytes*100/max(live, 1), minGrowth), maxGrowth))
}

// Adapt sets the percentage now and after each collection, until stop is called, which restores the former one. It does
// nothing if GOGC is set; GOMEMLIMIT is respected in either case. It applies to the whole process: two that overlap set
// the same percentage, and the last stop counts.
func Adapt() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	a := &adaption{percent: maxGrowth, live: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	a.former = debug.SetGCPercent(maxGrowth)
	afterCollections(a.adapt)
	return a.stop
}

// adaption adapts the percentage to the live data.
type adaption struct {
	live []metrics.Sample

	mu      sync.Mutex
	percent int
	former  int
	stopped bool
}

// adapt sets the percentage if it differs enough: to set it stops the world. It reports whether to continue.
func (a *adaption) adapt() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false
	}
	metrics.Read(a.live)
	if now := growth(a.live[0].Value.Uint64()); now > a.percent+a.percent/8 || now < a.percent-a.percent/8 {
		a.percent = now
		debug.SetGCPercent(now)
	}
	return true
}

func (a *adaption) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.stopped {
		a.stopped = true
		debug.SetGCPercent(a.former)
	}
}

// afterCollections calls do after every collection, on a goroutine of the runtime, until it returns false. Calls do not
// overlap: a collection that ends while do runs is skipped.
func afterCollections(do func() bool) {
	runtime.AddCleanup(new([64]byte), func(do func() bool) {
		if do() {
			afterCollections(do)
		}
	}, do)
}
