package main

import (
	"runtime"
	"testing"
	"time"
)

func TestASmallHeapGrowsByMoreThanALargeOne(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 8 << 20: 400, 32 << 20: 400, 64 << 20: 200, 128 << 20: 100, 1 << 30: 100} {
		if got := growth(live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}

func TestEveryCollectionIsHeardOf(t *testing.T) {
	heard := make(chan struct{}, 8)
	afterCollections(func() {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	for n := range 3 {
		runtime.GC()
		select {
		case <-heard:
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing was heard of collection %d", n+1)
		}
	}
}
