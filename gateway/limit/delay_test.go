package limit_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/gateway/limit"
)

func TestDelayRejection_ImpatientTenantIsDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenants := budgets(t, limit.Config{Rate: 100, Burst: 50}, 10)
		refuse := func(name string) time.Duration {
			began := time.Now()
			held := tenants.Of(tenant(t, name)).DelayRejection(t.Context())
			took := time.Since(began)
			if held != (took > 0) {
				t.Fatalf("delay %v after %v", held, took)
			}
			return took
		}
		for range 5 {
			if took := refuse("noisy"); took != 0 {
				t.Fatalf("one of the first rejections came after %v", took)
			}
		}
		if took := refuse("noisy"); took < 50*time.Millisecond || took > 150*time.Millisecond {
			t.Errorf("the sixth immediate rejection took %v, want 50 to 150 ms", took)
		}
		if took := refuse("quiet"); took != 0 {
			t.Errorf("rejection of another tenant came after %v", took)
		}
		time.Sleep(100 * time.Millisecond) // a tenth of the rate: one each
		if took := refuse("noisy"); took != 0 {
			t.Errorf("waiting caller is delayed by %v", took)
		}
	})
}

func TestDelayRejection_IsBoundedPerCallerAndInTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 4
		shared, err := limit.NewShared(limit.Capacity{
			Calls:   10,
			Streams: 10,
			Bytes:   10,
			Delayed: most,
		})
		if err != nil {
			t.Fatal(err)
		}
		tenants, err := limit.NewTenants(shared, limit.Config{Rate: 1, Burst: 1}, 1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var waiting sync.WaitGroup
		hold := func(name string, n int) {
			budget := tenants.Of(tenant(t, name))
			if budget.DelayRejection(ctx) {
				t.Errorf("%s: the first refusal is held back", name)
			}
			for range n {
				waiting.Go(func() {
					if !budget.DelayRejection(ctx) {
						t.Errorf("%s: the rejection is not delayed", name)
					}
				})
			}
			synctest.Wait()
		}
		hold("noisy", most/2)
		if tenants.Of(tenant(t, "noisy")).DelayRejection(ctx) {
			t.Error("one caller holds more than half of the delay slots")
		}
		hold("loud", most/2)
		if held := shared.Delayed(); held != most {
			t.Errorf("%d are held back, want %d", held, most)
		}
		third := tenants.Of(tenant(t, "third"))
		for range 2 {
			if third.DelayRejection(ctx) {
				t.Error("more are held back than may be")
			}
		}
		began := time.Now()
		cancel() // the clients leave
		waiting.Wait()
		if took := time.Since(began); took != 0 || shared.Delayed() != 0 {
			t.Errorf("%d rejections still delayed %v after their clients left", shared.Delayed(), took)
		}
	})
}
