package rpc

import (
	"math"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// loadSlot is the length of a slot of the window. A result covers the current slot and the full
	// one before it.
	loadSlot = 5 * time.Second
	// loadFirst is the least duration that is distinguished, loadStep the factor between two,
	// and loadBuckets how many there are: up to a minute and a half.
	loadFirst   = 50 * time.Microsecond
	loadStep    = 1.15
	loadBuckets = 104
)

// loadSteps is the number of steps per factor of e.
var loadSteps = 1 / math.Log(loadStep)

// Load is a process's load in the last seconds.
type Load struct {
	// Calls and Errors are completed calls per second; Errors failed by the process's own fault.
	Calls, Errors float64
	// P50, P95 and P99 are how long calls took; 0 without calls. Streams do not count.
	P50, P95, P99 time.Duration
	// InFlight is the calls being answered, streams included.
	InFlight int64
	// Memory is the bytes that the process has from the system.
	Memory uint64
	// Goroutines is the number of goroutines.
	Goroutines int
}

// window counts calls by their duration.
type window struct {
	mu       sync.Mutex
	current  slot
	before   slot
	inFlight atomic.Int64
}

type slot struct {
	began         time.Time
	calls, errors int64
	timed         int64
	took          [loadBuckets]int64
}

// counts reports whether a procedure's calls count as load: calls of probes do not.
func counts(procedure string) bool {
	return !strings.HasPrefix(procedure, "/grpc.health.") && !strings.HasPrefix(procedure, "/grpc.reflection.")
}

func (w *window) observe(now time.Time, took time.Duration, stream, failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn(now)
	w.current.calls++
	if failed {
		w.current.errors++
	}
	if stream {
		return
	}
	w.current.timed++
	n := 0
	if took > loadFirst {
		n = min(int(math.Log(float64(took)/float64(loadFirst))*loadSteps)+1, loadBuckets-1)
	}
	w.current.took[n]++
}

// turn begins a new slot when it is time. w.mu is held.
func (w *window) turn(now time.Time) {
	switch age := now.Sub(w.current.began); {
	case age < loadSlot:
	case age < 2*loadSlot:
		w.before, w.current = w.current, slot{began: w.current.began.Add(loadSlot)}
	default:
		w.before, w.current = slot{}, slot{began: now}
	}
}

func (w *window) load() Load {
	now := time.Now()
	w.mu.Lock()
	w.turn(now)
	began := w.current.began
	if !w.before.began.IsZero() {
		began = w.before.began
	}
	sum := slot{
		calls:  w.current.calls + w.before.calls,
		errors: w.current.errors + w.before.errors,
		timed:  w.current.timed + w.before.timed,
	}
	for i := range sum.took {
		sum.took[i] = w.current.took[i] + w.before.took[i]
	}
	w.mu.Unlock()
	seconds := max(now.Sub(began), time.Second).Seconds()
	memory := []metrics.Sample{{Name: "/memory/classes/total:bytes"}}
	metrics.Read(memory)
	return Load{
		Calls:      float64(sum.calls) / seconds,
		Errors:     float64(sum.errors) / seconds,
		P50:        sum.quantile(.5),
		P95:        sum.quantile(.95),
		P99:        sum.quantile(.99),
		InFlight:   w.inFlight.Load(),
		Memory:     memory[0].Value.Uint64(),
		Goroutines: runtime.NumGoroutine(),
	}
}

// quantile returns the upper end of the bucket that the share of calls reaches.
func (s *slot) quantile(share float64) time.Duration {
	if s.timed == 0 {
		return 0
	}
	rank, seen := int64(math.Ceil(share*float64(s.timed))), int64(0)
	for n, count := range s.took {
		if seen += count; seen >= rank {
			return time.Duration(float64(loadFirst) * math.Pow(loadStep, float64(n)))
		}
	}
	return 0 // not reached: the ranks are the counts' sum
}

// Load returns the process's load in the last seconds.
func (m *Metrics) Load() Load { return m.window.load() }
