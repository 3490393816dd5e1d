package traffic

import (
	"slices"
	"sync"
	"time"
)

// maxNodes bounds the nodes of a window.
const maxNodes = 256

// History has the windows of all gateways. The zero value is ready for use. Its methods may be called concurrently.
type History struct {
	mu    sync.Mutex
	slots [2]map[int64]*slot // of short and of long windows, by their end
}

// slot is a window with the windows of each node that it was merged from.
type slot struct {
	all   Window
	nodes map[string]part
	// partial reports that a node did not report all of its tenants.
	partial bool
}

// part is what one node has reported of a window.
type part struct {
	Counts

	partial bool // counting began within the window
}

// lengths are the lengths of windows with their numbers.
var lengths = [2]struct {
	seconds int64
	count   int64
}{
	{int64(Short / time.Second), Shorts}, {int64(Long / time.Second), Longs},
}

// Add adds a node's windows, unless they are known, too old, or of an unknown length.
func (h *History) Add(node string, windows []Window, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n := range windows {
		window := &windows[n]
		for kind, length := range lengths {
			oldest := now.Unix() - length.count*length.seconds
			if window.Seconds != length.seconds || window.End%length.seconds != 0 || window.End <= oldest ||
				window.End > now.Unix()+length.seconds {
				continue
			}
			h.add(kind, node, window)
			for end := range h.slots[kind] {
				if end <= oldest {
					delete(h.slots[kind], end)
				}
			}
		}
	}
}

// add adds a node's window. h.mu is held.
func (h *History) add(kind int, node string, window *Window) {
	if h.slots[kind] == nil {
		h.slots[kind] = map[int64]*slot{}
	}
	at := h.slots[kind][window.End]
	if at == nil {
		at = &slot{all: Window{End: window.End, Seconds: window.Seconds}, nodes: map[string]part{}}
		h.slots[kind][window.End] = at
	}
	if _, known := at.nodes[node]; known || len(at.nodes) >= maxNodes {
		return
	}
	bounded := *window
	bounded.Tenants = most(bounded.Tenants, announcedTenants)
	at.partial = at.partial || len(window.Tenants) >= announcedTenants
	at.all.merge(&bounded)
	at.nodes[node] = part{window.Counts, window.Partial}
}

// Point is the counts of a window; nil: no node has reported it.
type Point struct {
	// End is when the window ended.
	End    time.Time
	Counts *Counts
	// Partial reports that a node began to count within the window: the counts are lower bounds.
	Partial bool
}

// Selection selects counts.
type Selection struct {
	// Tenant and Node select the counts of one; "": the counts of all.
	Tenant, Node string
	// Long selects long windows.
	Long bool
}

// Points returns the windows that ended up to now, the oldest first, from a time on. A tenant that is not among a
// window's tenants with the most calls has no counts in it, unless all tenants of the window are known.
func (h *History) Points(selected Selection, since, now time.Time) []Point {
	kind := 0
	if selected.Long {
		kind = 1
	}
	length := lengths[kind]
	h.mu.Lock()
	defer h.mu.Unlock()
	last := now.Unix() / length.seconds * length.seconds
	first := max(last-(length.count-1)*length.seconds, (since.Unix()+length.seconds-1)/length.seconds*length.seconds)
	var out []Point
	for end := first; end <= last; end += length.seconds {
		point := Point{End: time.Unix(end, 0)}
		point.Counts, point.Partial = h.slots[kind][end].counts(selected)
		out = append(out, point)
	}
	return out
}

// counts returns the selected counts, nil if they are not known, and whether they are lower bounds.
func (s *slot) counts(selected Selection) (_ *Counts, partial bool) {
	if s == nil {
		return nil, false
	}
	counts, known := s.all.Counts, true
	partial = s.all.Partial
	switch {
	case selected.Tenant != "":
		counts, known = s.all.Tenants[selected.Tenant]
		known = known || !s.partial
	case selected.Node != "":
		var own part
		own, known = s.nodes[selected.Node]
		counts, partial = own.Counts, own.partial
	}
	if !known {
		return nil, false
	}
	counts.Took = slices.Clone(counts.Took)
	return &counts, partial
}

// Tenants returns the sums of the tenants' counts in the short windows that ended after a time.
func (h *History) Tenants(since time.Time) map[string]Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]Counts{}
	for end, slot := range h.slots[0] {
		if end <= since.Unix() {
			continue
		}
		for name, counts := range slot.all.Tenants {
			sum := out[name]
			sum.add(&counts)
			out[name] = sum
		}
	}
	return out
}
