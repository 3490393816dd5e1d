// Package gctuning adapts how far the heap grows before Go's garbage collector runs: a
// process with little live data collects less often than by Go's default, and a process with
// much live data uses no more memory than by the default.
package gctuning

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
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

// Adapt sets the percentage now and after each collection, for the lifetime of the process. It does nothing if GOGC
// is set; GOMEMLIMIT is respected in either case.
func Adapt() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := maxGrowth
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterCollections(func() {
		metrics.Read(live)
		// Setting it stops the world, so avoid small changes.
		if now := growth(live[0].Value.Uint64()); now > percent+percent/8 || now < percent-percent/8 {
			percent = now
			debug.SetGCPercent(percent)
		}
	})
}

// afterCollections calls do after every collection, on a goroutine of the runtime. Calls do not overlap: a collection
// that ends while do runs is skipped.
func afterCollections(do func()) {
	runtime.AddCleanup(new([64]byte), func(do func()) {
		do()
		afterCollections(do)
	}, do)
}
