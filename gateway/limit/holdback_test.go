package limit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/limit"
)

func TestRefusalsAreHeldBackWhileATenantDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenants, err := limit.NewTenants(limit.Config{Rate: 100, Burst: 50}, 10)
		if err != nil {
			t.Fatal(err)
		}
		refuse := func(name string) time.Duration {
			began := time.Now()
			held := tenants.HoldBack(t.Context(), tenant(t, name))
			took := time.Since(began)
			if held != (took > 0) {
				t.Fatalf("it says %v after %v", held, took)
			}
			return took
		}
		for range 5 {
			if took := refuse("noisy"); took != 0 {
				t.Fatalf("one of the first refusals comes after %v", took)
			}
		}
		if took := refuse("noisy"); took < 50*time.Millisecond || took > 150*time.Millisecond {
			t.Errorf("the sixth at once comes after %v, want 50 to 150 ms", took)
		}
		if took := refuse("quiet"); took != 0 {
			t.Errorf("another tenant's comes after %v", took)
		}
		time.Sleep(100 * time.Millisecond) // a tenth of the rate: one each
		if took := refuse("noisy"); took != 0 {
			t.Errorf("whoever waits is told after %v", took)
		}
	})
}

func TestFewRefusalsAreHeldBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 3
		tenants, err := limit.NewTenants(limit.Config{Rate: 1, Burst: 1}, most)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		noisy := tenant(t, "noisy")
		tenants.HoldBack(ctx, noisy) // the one that is told at once
		var waiting sync.WaitGroup
		for range most {
			waiting.Go(func() {
				if !tenants.HoldBack(ctx, noisy) {
					t.Error("a refusal is told at once")
				}
			})
		}
		synctest.Wait()
		if held := tenants.Held(); held != most {
			t.Errorf("%d are held back, want %d", held, most)
		}
		if tenants.HoldBack(ctx, noisy) {
			t.Error("more are held back than may be")
		}
		began := time.Now()
		cancel() // the clients leave
		waiting.Wait()
		if took := time.Since(began); took != 0 || tenants.Held() != 0 {
			t.Errorf("%d are held back %v after their clients have left", tenants.Held(), took)
		}
	})
}
