package kv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

func TestPut_ChangesAValueAtItsRevisionOnly(t *testing.T) {
	bucket, ctx := natstest.Tenants(t, natstest.Start(t)), contextkit.PlatformContext(t.Context())
	if _, err := bucket.Get(ctx, "acme"); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("key without a value: %v", err)
	}
	first, err := bucket.Put(ctx, "acme", fleet.Tenant{Reason: "one"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for what, revision := range map[string]uint64{"new key": 0, "other revision": first + 1} {
		if _, err := bucket.Put(ctx, "acme", fleet.Tenant{}, revision); !errors.Is(err, kv.ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	second, err := bucket.Put(ctx, "acme", fleet.Tenant{Reason: "two"}, first)
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(ctx, "acme", first); !errors.Is(err, kv.ErrChanged) {
		t.Errorf("deleted at an old revision: %v", err)
	}
	if err := bucket.Delete(ctx, "acme", second); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Get(ctx, "acme"); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	if _, err := bucket.Put(ctx, "acme", fleet.Tenant{Reason: "three"}, 0); err != nil {
		t.Errorf("a deleted key is created again: %v", err)
	}
	if kept, err := bucket.Get(ctx, "acme"); err != nil || kept.Value.Reason != "three" {
		t.Errorf("%+v, %v", kept, err)
	}
	for _, key := range []string{">", "*", "ac*e", "", ".acme", "acme.", "acme..x", "ac me", "acmé"} {
		if kept, err := bucket.Get(ctx, key); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("invalid key %q: %+v, %v", key, kept, err)
		}
	}
}

func TestFollow_BeginsWithAllValuesThenChanges(t *testing.T) {
	bucket := natstest.Tenants(t, natstest.Start(t))
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(t.Context()))
	defer cancel()
	for n := range 3 {
		if _, err := bucket.Put(ctx, fmt.Sprintf("t%d", n), fleet.Tenant{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	received, done := make(chan []string, 16), make(chan struct{})
	go func() {
		defer close(done)
		bucket.Follow(ctx, func(all map[string]kv.Entry[fleet.Tenant]) {
			var names []string
			for name := range all {
				names = append(names, name)
			}
			slices.Sort(names)
			received <- names
		}, func(err error) { t.Error(err) })
	}()
	expect := func(want ...string) {
		t.Helper()
		select {
		case got := <-received:
			if !slices.Equal(got, want) {
				t.Fatalf("received %v, want %v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("never received %v", want)
		}
	}
	expect("t0", "t1", "t2")
	kept, err := bucket.Get(ctx, "t1")
	if err != nil {
		t.Fatal(err)
	}
	if err := bucket.Delete(ctx, "t1", kept.Revision); err != nil {
		t.Fatal(err)
	}
	expect("t0", "t2")
	cancel()
	natstest.Await(t, done, "the follower ends")
}

func TestPut_CarriesTheContract(t *testing.T) {
	js := natstest.Start(t)
	bucket := natstest.Tenants(t, js)
	if _, err := bucket.Put(t.Context(), "acme", fleet.Tenant{}, 0); !errors.Is(err, contextkit.ErrNoContext) {
		t.Errorf("without a context: %v", err)
	}
	ctx := contextkit.PlatformContext(t.Context())
	sequence, err := bucket.Put(ctx, "acme", fleet.Tenant{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	natstest.SameContract(ctx, t, js, "KV_"+streams.BucketTenants, sequence)
}

func TestPage_LastChangedComesFirst(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("not concurrent, and takes a minute under the race detector")
	}
	bucket, ctx := natstest.Tenants(t, natstest.Start(t)), contextkit.PlatformContext(t.Context())
	put := func(key string, revision uint64) uint64 {
		t.Helper()
		at, err := bucket.Put(ctx, key, fleet.Tenant{Reason: key}, revision)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	// Few among many: first alone, then between 5,000 others, then in a crowd.
	var rare, busy []string
	add := func(keys *[]string, key string) uint64 {
		*keys = append(*keys, key)
		return put(key, 0)
	}
	changed, deleted := add(&rare, "rare.changed"), add(&rare, "rare.deleted")
	for n := range 5000 {
		add(&busy, fmt.Sprintf("busy.%d", n))
		if n%1000 == 999 {
			add(&rare, fmt.Sprintf("rare.%d", n))
		}
	}
	for n := range 1200 {
		add(&rare, fmt.Sprintf("rare.crowd-%d", n))
	}
	put("rare.changed", changed)
	if err := bucket.Delete(ctx, "rare.deleted", deleted); err != nil {
		t.Fatal(err)
	}
	rare = append(rare[2:], "rare.changed")
	slices.Reverse(rare)
	slices.Reverse(busy)
	for _, test := range []struct {
		pattern    string
		page, scan int
		want       []string
	}{
		{"rare.*", 10_000, 10_000, rare}, {"rare.*", 7, 10_000, rare}, {"rare.*", 300, 300, rare},
		{"rare.*", 10_000, 100, rare},
		{"busy.*", 10_000, 10_000, busy}, {"busy.*", 1000, 10_000, busy}, {"busy.*", 10_000, 1, busy},
		{"rare.changed", 1, 1, rare[:1]}, {"none.*", 5, 5, nil},
	} {
		var got []string
		pages := 0
		for before := uint64(0); pages == 0 || before > 0; pages++ {
			taken := 0
			var err error
			before, err = bucket.Newest(
				ctx, test.pattern, before, test.scan, func(key string, kept kv.Entry[fleet.Tenant]) bool {
					if taken == test.page {
						return false
					}
					if kept.Value.Reason != key {
						t.Fatalf("%s has the value of %s", key, kept.Value.Reason)
					}
					got, taken = append(got, key), taken+1
					return true
				},
			)
			if err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s, %d a page, %d read at most: %d keys in %d pages, want %d in order", test.pattern, test.page,
				test.scan, len(got), pages, len(test.want))
		}
		if least := len(test.want) / test.page; pages < least {
			t.Errorf("%s: %d pages of %d", test.pattern, pages, test.page)
		}
	}
}

func TestPut_UnacknowledgedOneEndsBeforeItsCall(t *testing.T) {
	t.Parallel()
	_, js := natstest.OpenJournal(t)
	bucket := natstest.Tenants(t, js)
	if err := js.DeleteStream(t.Context(), "KV_"+streams.BucketTenants); err != nil {
		t.Fatal(err)
	}
	silent, err := js.Conn().SubscribeSync(
		"$KV." + streams.BucketTenants + ".>",
	) // receives publications and sends no acknowledgement
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(t.Context()), time.Minute)
	defer cancel()
	if _, err := bucket.Put(ctx, "acme", fleet.Tenant{}, 0); err == nil || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, kv.ErrChanged) || ctx.Err() != nil {
		t.Errorf("got %v, want a missing acknowledgement within the call's deadline", err)
	}
	if n, _, err := silent.Pending(); err != nil || n == 0 {
		t.Errorf("%d messages are published, %v", n, err)
	}
}
