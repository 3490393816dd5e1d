package traffic_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/internal/traffic"
)

// start is the beginning of a short and of a long window.
var start = time.Unix(1_800_000_000, 0)

// announced passes an announcement to a history, as over the wire.
func announced(t *testing.T, h *traffic.History, node string, r *traffic.Recorder, now time.Time) int {
	t.Helper()
	data, err := json.Marshal(r.Announce(now))
	if err != nil {
		t.Fatal(err)
	}
	var windows []traffic.Window
	if err := json.Unmarshal(data, &windows); err != nil {
		t.Fatal(err)
	}
	h.Add(node, windows, now)
	return len(data)
}

func TestHistory_HasEachCallOnceAndGapsWhereNothingWasReported(t *testing.T) {
	var (
		one, two traffic.Recorder
		h        traffic.History
	)
	for second := range 60 {
		now := start.Add(time.Duration(second) * time.Second)
		if second < 30 {
			one.Observe(traffic.Call{
				Tenant:  "acme",
				Ended:   now,
				Took:    4 * time.Millisecond,
				Command: true,
				Failed:  second == 3,
			})
		}
		two.Observe(traffic.Call{
			Tenant:  "globex",
			Ended:   now,
			Took:    40 * time.Millisecond,
			Query:   true,
			Limited: second%2 == 0,
		})
		announced(t, &h, "one", &one, now)
		announced(t, &h, "two", &two, now)
	}
	now := start.Add(time.Minute)
	announced(t, &h, "one", &one, now)
	announced(t, &h, "two", &two, now)
	points := h.Points(traffic.Selection{}, time.Time{}, now)
	if len(points) != traffic.Shorts {
		t.Fatalf("%d points", len(points))
	}
	var got []string
	for _, point := range points[len(points)-5:] {
		text := "none"
		if c := point.Counts; c != nil {
			text = fmt.Sprint(c.Calls, c.Errors, c.Limited, c.Commands, c.Queries)
		}
		got = append(got, text)
	}
	if want := "[none 30 1 8 15 15 30 0 7 15 15 15 0 8 0 15 15 0 7 0 15]"; fmt.Sprint(got) != want {
		t.Errorf("the last windows are %v, want %s", got, want)
	}
	second := points[len(points)-3].Counts
	for share, want := range map[float64]time.Duration{.5: 4 * time.Millisecond, .99: 40 * time.Millisecond} {
		if took, ok := second.Quantile(share); !ok || took < want || took > want*5/4 {
			t.Errorf("quantile %v is %v, want %v", share, took, want)
		}
	}
	for at, point := range points {
		if point.Partial {
			t.Errorf("window %d is partial, and both nodes have counted all of it", at)
		}
	}
	last := func(selected traffic.Selection) *traffic.Counts {
		all := h.Points(selected, time.Time{}, now)
		return all[len(all)-1].Counts
	}
	if c := last(traffic.Selection{Tenant: "acme"}); c == nil || c.Calls != 0 {
		t.Errorf("a tenant without calls has %v", c)
	}
	if c := last(traffic.Selection{Node: "two"}); c == nil || c.Calls != 15 {
		t.Errorf("a node has %v", c)
	}
	if c := last(traffic.Selection{Node: "three"}); c != nil {
		t.Errorf("an unknown node has %v", c)
	}
	if sums := h.Tenants(start); sums["acme"].Calls != 30 || sums["globex"].Limited != 30 {
		t.Errorf("the tenants have %v", sums)
	}
}

// A control node that starts receives the last hour and day from announcements alone.
func TestRecorder_AnnouncesItsHistoryInTurn(t *testing.T) {
	var r traffic.Recorder
	now := start
	for range int(25 * time.Hour / traffic.Short) {
		for tenant := range 20 {
			r.Observe(
				traffic.Call{
					Tenant: fmt.Sprint("tenant-", tenant),
					Ended:  now,
					Took:   time.Duration(tenant) * time.Millisecond,
				},
			)
		}
		now = now.Add(traffic.Short)
	}
	var h traffic.History
	const second = time.Second
	end := now.Add(5 * time.Minute)
	for ; now.Before(end); now = now.Add(second) {
		if size := announced(t, &h, "one", &r, now); size > 16<<10 {
			t.Fatalf("an announcement has %d bytes", size)
		}
	}
	for _, long := range []bool{false, true} {
		missing := 0
		points := h.Points(traffic.Selection{Long: long}, time.Time{}, now)
		for _, point := range points {
			if point.Counts == nil {
				missing++
			}
		}
		if missing > 2 {
			t.Errorf("long %v: %d of %d windows are missing", long, missing, len(points))
		}
	}
	if n := len(h.Tenants(start)); n > 20 || n < 16 {
		t.Errorf("%d tenants", n)
	}
}

func TestHistory_RejectsWindowsOfOtherTimesAndForms(t *testing.T) {
	var h traffic.History
	seconds := int64(traffic.Short / time.Second)
	for _, window := range []traffic.Window{
		{End: start.Unix() + 1, Seconds: seconds},
		{End: start.Unix() + 3600, Seconds: seconds},
		{End: start.Unix() - 4000, Seconds: seconds},
		{End: start.Unix(), Seconds: 7},
		{},
	} {
		window.Calls = 1
		h.Add("one", []traffic.Window{window}, start)
	}
	odd := traffic.Window{
		End:     start.Unix(),
		Seconds: seconds,
		Counts:  traffic.Counts{Calls: 1, Took: []int64{-1, 5, 900, 1, 3, -2, 4}},
	}
	h.Add("one", []traffic.Window{odd}, start)
	for _, point := range h.Points(traffic.Selection{}, time.Time{}, start)[:traffic.Shorts-1] {
		if point.Counts != nil {
			t.Errorf("%v has %v", point.End, point.Counts)
		}
	}
	if got := h.Points(traffic.Selection{}, start, start); len(got) != 1 || got[0].Counts.Calls != 1 {
		t.Errorf("the last window is %v", got)
	} else if _, ok := got[0].Counts.Quantile(.5); ok {
		t.Error("durations of an unknown form count")
	}
}

// A window in which a node began to count is marked, for the node and for all: its counts are lower bounds.
func TestHistory_MarksTheWindowInWhichANodeStarted(t *testing.T) {
	var (
		old, started traffic.Recorder
		h            traffic.History
	)
	for second := range 46 {
		now := start.Add(time.Duration(second) * time.Second)
		old.Observe(traffic.Call{Ended: now})
		announced(t, &h, "old", &old, now)
		if second >= 20 {
			started.Observe(traffic.Call{Ended: now})
			announced(t, &h, "started", &started, now)
		}
	}
	for node, want := range map[string]string{
		"": "[15 false 25 true 30 false]", "old": "[15 false 15 false 15 false]", "started": "[none 10 true 15 false]",
	} {
		points := h.Points(traffic.Selection{Node: node}, time.Time{}, start.Add(45*time.Second))
		var got []string
		for _, point := range points[len(points)-3:] {
			if point.Counts == nil {
				got = append(got, "none")
			} else {
				got = append(got, fmt.Sprint(point.Counts.Calls, point.Partial))
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%q: %v, want %s", node, got, want)
		}
	}
}
