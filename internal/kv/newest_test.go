package kv_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
)

// Forty values of 0.9 MB exceed the bound of bytes in memory: each is still read once,
// the last changed first, among small ones and page by page.
func TestNewest_LargeValuesAreReadAFewAtATime(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not concurrent, and takes a minute under the race detector")
	}
	_, js := natstest.OpenJournal(t)
	bucket := natstest.Tenants(t, js)
	ctx := contextkit.PlatformContext(t.Context())
	var want []string
	for n := range 40 {
		key, length := fmt.Sprintf("large.%d", n), 900_000
		if n%4 == 3 {
			length = 1
		}
		if _, err := bucket.Put(ctx, key, fleet.Tenant{Reason: strings.Repeat("r", length)}, 0); err != nil {
			t.Fatal(err)
		}
		want = append(want, key)
	}
	slices.Reverse(want)
	for _, page := range []int{1000, 3} {
		var got []string
		pages := 0
		for before := uint64(0); pages == 0 || before > 0; pages++ {
			taken := 0
			var err error
			before, err = bucket.Newest(
				ctx,
				"large.*",
				before,
				10_000,
				func(key string, _ kv.Entry[fleet.Tenant]) bool {
					if taken == page {
						return false
					}
					got, taken = append(got, key), taken+1
					return true
				},
			)
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v, want each once, the newest first", page, got)
		}
	}
}
