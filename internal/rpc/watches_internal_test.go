package rpc

import (
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// A process has at most 1024 streams of Health/Watch, an address 64 of them, each for half an hour. At the port for
// gRPC a stream's request may take 10 s to arrive, and other calls have the bound of their procedure.
func TestBounds_HealthWatches(t *testing.T) {
	w := newWatches(prometheus.NewRegistry())
	if w.total != 1024 || w.perAddress != 64 || w.life != 30*time.Minute {
		t.Errorf("%d streams, %d per address, %v", w.total, w.perAddress, w.life)
	}
	w.total, w.perAddress = 3, 2
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	var leave func()
	for i, address := range []netip.Addr{a, a, a, b, b} {
		left, err := w.enter(address)
		if (err == nil) != (i != 2 && i != 4) {
			t.Errorf("stream %d: %v; want at most two of an address, and three in all", i, err)
		}
		if err == nil {
			leave = left
		}
	}
	leave()
	if _, err := w.enter(b); err != nil {
		t.Errorf("after a stream has ended: %v", err)
	}
	for range 100 {
		if life := w.lasts(); life <= 27*time.Minute || life > 30*time.Minute {
			t.Errorf("a stream lasts %v, want above 27 and at most 30 minutes", life)
		}
	}
	for procedure, want := range map[string]time.Duration{
		healthv1.Health_Watch_FullMethodName: 30*time.Minute + 10*time.Second,
		healthv1.Health_Check_FullMethodName: time.Second,
	} {
		if got := w.grpcTime(procedure, time.Second); got != want {
			t.Errorf("%s: %v, want %v", procedure, got, want)
		}
	}
}
