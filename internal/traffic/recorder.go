package traffic

import (
	"sync"
	"time"
)

// Call is a call that has ended.
type Call struct {
	// Tenant is the tenant that pays for the call; "": none does.
	Tenant string
	// Ended is when it ended, and Took how long it took.
	Ended time.Time
	Took  time.Duration
	// Stream reports that it was a stream, whose duration does not count.
	Stream bool
	// Failed, Limited, Command and Query are as in [Counts].
	Failed, Limited, Command, Query bool
}

// Recorder counts the calls of one gateway. The zero value is ready for use. Its methods may be called concurrently.
type Recorder struct {
	mu      sync.Mutex
	end     int64 // of the current window; 0: none has begun
	partial bool  // counting began within the current window
	current live
	tenants map[string]*live
	shorts  []Window // completed, the oldest first
	longs   []Window
	turn    int

	announced    time.Time // when announcement was made
	announcement []Window
}

// live are counts that grow.
type live struct {
	Counts

	took [steps]int64
}

func (l *live) add(call *Call) {
	l.Calls++
	for _, counted := range []struct {
		is    bool
		count *int64
	}{
		{call.Failed, &l.Errors}, {call.Limited, &l.Limited}, {call.Command, &l.Commands}, {call.Query, &l.Queries},
	} {
		if counted.is {
			*counted.count++
		}
	}
	if !call.Stream {
		l.took[stepOf(call.Took)]++
	}
}

// counts returns the counts at the end of a window.
func (l *live) counts() Counts {
	out := l.Counts
	out.Took = pairs(&l.took)
	return out
}

// Observe counts a call.
func (r *Recorder) Observe(call Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rotate(call.Ended)
	r.current.add(&call)
	if call.Tenant == "" {
		return
	}
	tenant := r.tenants[call.Tenant]
	if tenant == nil {
		if len(r.tenants) >= maxTenants {
			return
		}
		tenant = &live{}
		r.tenants[call.Tenant] = tenant
	}
	tenant.add(&call)
}

// endOf returns the end of the window of a length at a time.
func endOf(now time.Time, length time.Duration) int64 {
	seconds := int64(length / time.Second)
	return (now.Unix()/seconds + 1) * seconds
}

// rotate ends the windows that have passed. r.mu is held.
func (r *Recorder) rotate(now time.Time) {
	end := endOf(now, Short)
	switch {
	case r.end == 0:
		r.end, r.tenants = end, map[string]*live{}
		r.partial = now.Unix() > end-int64(Short/time.Second)
		return
	case end <= r.end:
		return
	}
	window := Window{
		Counts:  r.current.counts(),
		End:     r.end,
		Seconds: int64(Short / time.Second),
		Partial: r.partial,
	}
	r.partial = false
	tenants := make(map[string]Counts, len(r.tenants))
	for name, tenant := range r.tenants {
		tenants[name] = tenant.counts()
	}
	window.Tenants = most(tenants, announcedTenants)
	r.complete(window)
	for quiet := max(r.end, end-Shorts*int64(Short/time.Second)) +
		int64(Short/time.Second); quiet < end; quiet += int64(Short / time.Second) {
		r.complete(Window{End: quiet, Seconds: int64(Short / time.Second)})
	}
	r.end, r.current, r.tenants = end, live{}, map[string]*live{}
}

// complete adds a completed short window. r.mu is held.
func (r *Recorder) complete(window Window) {
	r.shorts = append(r.shorts, window)
	r.shorts = r.shorts[max(len(r.shorts)-Shorts, 0):]
	if window.End%int64(Long/time.Second) != 0 {
		return
	}
	long := Window{End: window.End, Seconds: int64(Long / time.Second)}
	covered := 0
	for n := range r.shorts {
		if short := &r.shorts[n]; short.End > long.End-long.Seconds {
			long.merge(short)
			covered++
		}
	}
	if covered < int(Long/Short) {
		return // the process started within it
	}
	long.Tenants = most(long.Tenants, announcedTenants)
	r.longs = append(r.longs, long)
	r.longs = r.longs[max(len(r.longs)-Longs, 0):]
}

// announceEvery is the least time between two announcements that differ.
const announceEvery = 900 * time.Millisecond

// Announce returns the last completed window, and in turn an earlier short and an earlier long one: others about once
// per second. The caller must not change them.
func (r *Recorder) Announce(now time.Time) []Window {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.announced) < announceEvery {
		return r.announcement
	}
	r.rotate(now)
	var out []Window
	// From the newest to the oldest: a new window shifts the others in the same direction, so that none is left out.
	if last := len(r.shorts) - 1; last >= 0 {
		out = append(out, r.shorts[last])
		if last > 0 {
			out = append(out, r.shorts[last-1-r.turn%last])
		}
	}
	if len(r.longs) > 0 {
		out = append(out, r.longs[len(r.longs)-1-r.turn%len(r.longs)])
	}
	r.turn++
	r.announced, r.announcement = now, out
	return out
}
