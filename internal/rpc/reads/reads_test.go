package reads_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
)

func newLimiter() *reads.Limiter {
	return reads.NewLimiter(reads.Config{Metric: "test_reads", What: "reads", Reason: rpc.ReasonTooManyReads})
}

func tenant(t *testing.T, name string) contextkit.TenantID {
	t.Helper()
	id, err := contextkit.ParseTenantID(name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A tenant's reads wait for its own, and are rejected after a time or if too many wait; those of others do not wait.
func TestLimiter_ReadsOfATenantDelayNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, acme, globex := newLimiter(), tenant(t, "acme"), tenant(t, "globex")
		var leave []func()
		for range 2 {
			done, err := l.Enter(t.Context(), acme)
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, done)
		}
		ended := make(chan error, 8)
		for range 8 {
			go func() {
				done, err := l.Enter(t.Context(), acme)
				if err == nil {
					done()
				}
				ended <- err
			}()
		}
		synctest.Wait()
		if len(ended) > 0 {
			t.Fatal("a third read runs beside two")
		}
		if _, err := l.Enter(t.Context(), acme); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("the eleventh read: %v", err)
		}
		other, err := l.Enter(t.Context(), globex)
		if err != nil {
			t.Fatalf("another tenant's read: %v", err)
		}
		other()
		leave[0]()
		for range 8 {
			if err := <-ended; err != nil {
				t.Errorf("a read that waited: %v", err)
			}
		}
		again, err := l.Enter(t.Context(), acme)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Enter(t.Context(), acme); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("a read that has waited for its time: %v", err) // the time of the bubble
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Enter(ctx, acme); !errors.Is(err, context.Canceled) {
			t.Errorf("a read whose caller has left: %v", err)
		}
		again()
		leave[1]()
		if got := testutil.CollectAndCount(l); got != 3 {
			t.Errorf("%d series", got)
		}
	})
}

// However many tenants read, the node runs sixteen reads, and the next one of a tenant waits for one of them to end.
func TestLimiter_ReadsOfTheNodeAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter()
		var leave []func()
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			for range 2 {
				done, err := l.Enter(t.Context(), tenant(t, name))
				if err != nil {
					t.Fatal(err)
				}
				leave = append(leave, done)
			}
		}
		if _, err := l.Enter(t.Context(), tenant(t, "i")); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("the seventeenth read: %v", err)
		}
		entered := make(chan error, 1)
		go func() {
			done, err := l.Enter(t.Context(), tenant(t, "i"))
			if err == nil {
				done()
			}
			entered <- err
		}()
		synctest.Wait()
		leave[0]()
		if err := <-entered; err != nil {
			t.Errorf("a read that waited for the node: %v", err)
		}
		for _, done := range leave[1:] {
			done()
		}
	})
}
