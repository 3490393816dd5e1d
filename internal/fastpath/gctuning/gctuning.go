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

// The heap grows by so many percent of what is live before it is collected. A process of
// small messages has little that is live, and would spend a fifth of its time collecting
// with the least, Go's default; one with much, such as ten thousand connections, would
// take several times that memory with the most.
const (
	leastGrowth = 100
	mostGrowth  = 400
	// growthBytes is what the heap may grow by at more than the least.
	growthBytes = 128 << 20
)

// growth returns the percentage for what is live, in bytes.
func growth(live uint64) int {
	return int(min(max(growthBytes*100/max(live, 1), leastGrowth), mostGrowth))
}

// Adapt sets the percentage now and after each collection, while the process runs. It does
// nothing if GOGC is set; GOMEMLIMIT is respected in either case.
func Adapt() {
	if os.Getenv("GOGC") != "" {
		return
	}
	percent := mostGrowth
	debug.SetGCPercent(percent)
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	afterCollections(func() {
		metrics.Read(live)
		// To set it stops the world for a moment: not for little.
		if now := growth(live[0].Value.Uint64()); now > percent+percent/8 || now < percent-percent/8 {
			percent = now
			debug.SetGCPercent(percent)
		}
	})
}

// afterCollections calls do, on a goroutine of the runtime's, after a collection, again
// and again: never twice at a time, so a collection that ends while do runs is not told.
func afterCollections(do func()) {
	runtime.AddCleanup(new([64]byte), func(do func()) {
		do()
		afterCollections(do)
	}, do)
}
