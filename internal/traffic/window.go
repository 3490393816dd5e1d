package traffic

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// Short is the length of short windows.
	Short = 15 * time.Second
	// Shorts is the number of short windows that are retained: an hour.
	Shorts = 240
	// Long is the length of long windows.
	Long = 5 * time.Minute
	// Longs is the number of long windows that are retained: a day.
	Longs = 288
	// announcedTenants bounds the tenants of an announced window, and maxTenants the tenants that are counted in one.
	announcedTenants, maxTenants = 16, 512
	// firstStep is the least duration that is distinguished, step the factor between two, and steps their number: up to
	// two minutes.
	firstStep = 100 * time.Microsecond
	step      = 1.25
	steps     = 64
)

// Counts are calls of a window.
type Counts struct {
	// Calls are completed calls, Errors calls that failed by the platform's fault, and Limited calls that a limit of
	// their caller rejected.
	Calls   int64 `json:"calls"`
	Errors  int64 `json:"errors,omitempty"`
	Limited int64 `json:"limited,omitempty"`
	// Commands and Queries are calls of aggregate nodes that may change something, and of projection nodes.
	Commands int64 `json:"commands,omitempty"`
	Queries  int64 `json:"queries,omitempty"`
	// Took are the durations of unary calls: pairs of a step and the number of calls that took at most so long.
	Took []int64 `json:"took,omitempty"`
}

// Window is the calls of a gateway in a time.
type Window struct {
	Counts

	// End is when it ended, in seconds since 1970, a multiple of Seconds, its length.
	End     int64 `json:"end"`
	Seconds int64 `json:"seconds"`
	// Partial reports that counting began within the window: its counts are lower bounds.
	Partial bool `json:"partial,omitempty"`
	// Tenants are the tenants with the most calls, rejected calls or errors.
	Tenants map[string]Counts `json:"tenants,omitempty"`
}

// add adds other's calls.
func (c *Counts) add(other *Counts) {
	c.Calls += other.Calls
	c.Errors += other.Errors
	c.Limited += other.Limited
	c.Commands += other.Commands
	c.Queries += other.Queries
	if len(other.Took) == 0 {
		return
	}
	sums := c.durations()
	for at, count := range other.durations() {
		sums[at] += count
	}
	c.Took = pairs(&sums)
}

// durations returns the numbers of calls by step. Pairs of an unknown form are ignored.
func (c *Counts) durations() (sums [steps]int64) {
	for n := 0; n+1 < len(c.Took); n += 2 {
		if at := c.Took[n]; at >= 0 && at < steps && c.Took[n+1] > 0 {
			sums[at] += c.Took[n+1]
		}
	}
	return sums
}

func pairs(sums *[steps]int64) []int64 {
	var out []int64
	for at, count := range sums {
		if count > 0 {
			out = append(out, int64(at), count)
		}
	}
	return out
}

// stepOf returns the step of a duration.
func stepOf(took time.Duration) int {
	if took <= firstStep {
		return 0
	}
	return min(int(math.Log(float64(took)/float64(firstStep))/math.Log(step))+1, steps-1)
}

// Quantile returns the duration that a share of the unary calls did not exceed, within a quarter; false: there were
// none.
func (c *Counts) Quantile(share float64) (time.Duration, bool) {
	sums := c.durations()
	total := int64(0)
	for _, count := range sums {
		total += count
	}
	rank, seen := max(int64(math.Ceil(share*float64(total))), 1), int64(0)
	for at, count := range sums {
		if seen += count; seen >= rank {
			return time.Duration(float64(firstStep) * math.Pow(step, float64(at))), true
		}
	}
	return 0, false
}

// weight orders tenants: those whose calls fail or are rejected come before those with as many calls.
func (c *Counts) weight() int64 { return c.Calls + c.Errors + c.Limited }

// most returns the tenants with the greatest weight, n of them at most.
func most(tenants map[string]Counts, n int) map[string]Counts {
	if len(tenants) <= n {
		return tenants
	}
	names := slices.SortedFunc(maps.Keys(tenants), func(a, b string) int {
		x, y := tenants[a], tenants[b]
		return cmp.Or(cmp.Compare(y.weight(), x.weight()), cmp.Compare(a, b))
	})
	out := make(map[string]Counts, n)
	for _, name := range names[:n] {
		out[name] = tenants[name]
	}
	return out
}

// merge adds other's calls to the window. It holds maxTenants tenants at most.
func (w *Window) merge(other *Window) {
	w.add(&other.Counts)
	w.Partial = w.Partial || other.Partial
	for name, counts := range other.Tenants {
		sum, known := w.Tenants[name]
		if !known && len(w.Tenants) >= maxTenants {
			continue
		}
		if w.Tenants == nil {
			w.Tenants = map[string]Counts{}
		}
		sum.add(&counts)
		w.Tenants[name] = sum
	}
}
