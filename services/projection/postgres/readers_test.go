package postgres

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/services/projection/query"
)

func TestReaders_AreBoundedPerTenantAndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReaders()
		acme := natstest.Tenant(t, "acme")
		var leave []func()
		enter := func(tenant string) {
			t.Helper()
			done, err := r.enter(t.Context(), natstest.Tenant(t, tenant))
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, done)
		}
		for range tenantReaders {
			enter("acme")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		wait := func(tenant string) {
			go func() {
				done, err := r.enter(ctx, natstest.Tenant(t, tenant))
				if err == nil {
					done()
				}
				ended <- err
			}()
			synctest.Wait()
		}
		if wait("acme"); len(ended) > 0 {
			t.Error("a further read of the tenant has begun")
		}
		leave[0]()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		enter("acme")
		for n := range allReaders - tenantReaders {
			enter("t" + strconv.Itoa(n/tenantReaders))
		}
		if wait("globex"); len(ended) > 0 {
			t.Error("a further read of all tenants has begun")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a read whose caller leaves: %v", err)
		}
		if _, err := r.enter(ctx, acme); !errors.Is(err, context.Canceled) {
			t.Errorf("a read of the tenant whose caller leaves: %v", err)
		}
		for _, done := range leave[1:] {
			done()
		}
		if len(r.tenants) > 0 || len(r.all) > 0 {
			t.Errorf("%d tenants and %d reads remain", len(r.tenants), len(r.all))
		}
	})
}

// More slow reads of a tenant than the node has connections delay neither another tenant's reads nor the application of
// events.
func TestQuery_SlowReadsOfATenantLeaveConnectionsToOthers(t *testing.T) {
	d, _, _ := database(t)
	acme, globex := open(t, d, "acme", "a"), open(t, d, "globex", "a")
	view := acme.views[0]
	for _, s := range []*Store{acme, globex} {
		if err := put(t.Context(), s, view, 1, "k", "a"); err != nil {
			t.Fatal(err)
		}
	}
	plan := query.Plan{OrderBy: `"` + query.KeyColumn + `"`, Limit: 100, Columns: view.Columns}
	began, release := make(chan struct{}, 2*connections), make(chan struct{})
	var running sync.WaitGroup
	var failed atomic.Int64
	for range 2 * connections {
		running.Go(func() {
			if _, err := acme.Query(t.Context(), view, plan, func([]any, []any) error {
				select {
				case began <- struct{}{}:
				case <-release:
				}
				<-release
				return nil
			}); err != nil {
				failed.Add(1)
			}
		})
	}
	for range tenantReaders {
		<-began
	}
	if _, err := globex.Query(t.Context(), view, plan, func([]any, []any) error { return nil }); err != nil {
		t.Errorf("a read of another tenant: %v", err)
	}
	if err := put(t.Context(), acme, view, 2, "l", "b"); err != nil {
		t.Errorf("the application of an event: %v", err)
	}
	if len(began) > 0 {
		t.Errorf("%d further reads of the tenant run", len(began))
	}
	close(release)
	running.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d reads have failed", failed.Load())
	}
}
