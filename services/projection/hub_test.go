package projection

import (
	"errors"
	"fmt"
	"testing"
)

func TestHub_SlowWatcherIsEndedWithoutBlocking(t *testing.T) {
	h := &hub{node: &pendingKeys{}}
	slow, leaveSlow, err := h.join("v")
	if err != nil {
		t.Fatal(err)
	}
	defer leaveSlow()
	quick, leaveQuick, err := h.join("v")
	if err != nil {
		t.Fatal(err)
	}
	defer leaveQuick()
	for n := range uint64(maxBacklog + 1) {
		touched := touchedRows{}
		touched.add("v", fmt.Sprint(n))
		touched.add("other", "x")
		h.publish(touched, n, noView)
		<-quick.ready
		if keys, upTo, err := quick.take(); err != nil || len(keys) != 1 || keys[fmt.Sprint(n)] != n || upTo != n {
			t.Fatalf("%v up to %d, %v", keys, upTo, err)
		}
	}
	if _, _, err := slow.take(); !errors.Is(err, errSlow) {
		t.Errorf("watcher %d rows behind: %v", maxBacklog+1, err)
	}
}

func TestHub_PendingRowIsQueuedOnce(t *testing.T) {
	h := &hub{node: &pendingKeys{}}
	w, leave, err := h.join("v")
	if err != nil {
		t.Fatal(err)
	}
	touched := touchedRows{}
	touched.add("v", "k")
	for n := range uint64(5 * maxBacklog) {
		h.publish(touched, n, noView)
	}
	h.publish(touchedRows{}, 5*maxBacklog, noView)
	if keys, upTo, err := w.take(); err != nil || keys["k"] != 5*maxBacklog-1 || upTo != 5*maxBacklog {
		t.Errorf("%d rows queued, up to %d, %v", len(keys), upTo, err)
	}
	leave()
	h.publish(touched, 1, noView)
	if keys, _, _ := w.take(); len(keys) != 0 {
		t.Error("a canceled watcher is notified")
	}
}

func TestHub_BoundsWatchers(t *testing.T) {
	h := &hub{node: &pendingKeys{}}
	for range maxWatchers {
		if _, _, err := h.join("v"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.join("v"); !errors.Is(err, errTooManyWatchers) {
		t.Errorf("watcher over the limit: %v", err)
	}
}

// Beyond the node's bound, tenants with large backlogs lose their slowest watchers, and others lose none.
func TestHub_TenantsShareTheBoundOfTheNode(t *testing.T) {
	const tenants, watchers = 6, 25 // 25 watchers of almost 2 MiB are within the bound of a tenant
	node := &pendingKeys{}
	watching := func(h *hub, n int) (all []*watcher) {
		for range n {
			w, leave, err := h.join("v")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(leave)
			all = append(all, w)
		}
		return all
	}
	ended := func(all []*watcher) (n int) {
		for _, w := range all {
			if _, _, err := w.take(); errors.Is(err, errSlow) {
				n++
			}
		}
		return n
	}
	small := &hub{node: node}
	others := watching(small, 10)
	large := touchedRows{}
	for n := range 1800 {
		large.add("v", fmt.Sprintf("%1024d", n))
	}
	touched := touchedRows{}
	touched.add("v", "k")
	var (
		slow []*watcher
		hubs []*hub
	)
	for range tenants {
		h := &hub{node: node}
		hubs, slow = append(hubs, h), append(slow, watching(h, watchers)...)
		h.publish(large, 1, noView)
		small.publish(touched, 1, noView)
	}
	for _, h := range hubs { // the first ones have exceeded their shares since
		h.publish(large, 2, noView)
	}
	if bytes := node.bytes.Load(); bytes > maxNodeBytes {
		t.Errorf("%d bytes are pending, more than %d", bytes, maxNodeBytes)
	}
	if n := ended(slow); n == 0 || n == len(slow) {
		t.Errorf("%d of %d watchers of large tenants have ended", n, len(slow))
	}
	if n := ended(others); n != 0 {
		t.Errorf("%d watchers of another tenant have ended", n)
	}
	for _, w := range append(slow, others...) {
		w.sent()
	}
	if node.bytes.Load() != 0 || node.hubs.Load() != 0 {
		t.Errorf("%d bytes of %d tenants remain", node.bytes.Load(), node.hubs.Load())
	}
}

// noView leaves out no view's watchers.
func noView(string) bool { return false }
