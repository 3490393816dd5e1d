package projection

import (
	"errors"
	"fmt"
	"testing"
)

func TestHub_SlowWatcherIsEndedWithoutBlocking(t *testing.T) {
	h := &hub{}
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
	h := &hub{}
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
	h := &hub{}
	for range maxWatchers {
		if _, _, err := h.join("v"); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.join("v"); !errors.Is(err, errTooManyWatchers) {
		t.Errorf("watcher over the limit: %v", err)
	}
}

// noView leaves out no view's watchers.
func noView(string) bool { return false }
