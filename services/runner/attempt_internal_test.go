package runner

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
)

// An attempt at an event may take two minutes. When its worker stops, it has 20 s more to finish, and none if another
// runner owns the tenant.
func TestBounds_AttemptsEndInTime(t *testing.T) {
	service := &Service{workers: map[contextkit.TenantID]*worker{}}
	finish := service.worker(natstest.Tenant(t, "acme")).finish
	for name, c := range map[string]struct {
		begin func(context.Context) (context.Context, context.CancelFunc)
		stop  error // 10 s after the beginning; nil: it is not stopped
		want  time.Duration
	}{
		"earlier event":   {newAttempt, nil, 2 * time.Minute},
		"undisturbed":     {graceful(finish), nil, 2 * time.Minute},
		"worker stops":    {graceful(finish), errLeaving, 30 * time.Second},
		"node stops":      {graceful(finish), context.Canceled, 30 * time.Second},
		"tenant released": {graceful(finish), errLost, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				accepting, stop := context.WithCancelCause(t.Context())
				defer stop(nil)
				began := time.Now()
				if c.stop != nil {
					time.AfterFunc(10*time.Second, func() { stop(c.stop) })
				}
				ctx, end := c.begin(accepting)
				defer end()
				<-ctx.Done()
				if took := time.Since(began); took != c.want {
					t.Errorf("attempt ended after %v, want %v", took, c.want)
				}
			})
		})
	}
}

// An attempt that has ended leaves nothing behind: synctest reports goroutines that do not end.
func TestBounds_EndedAttemptHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accepting, stop := context.WithCancelCause(t.Context())
		ctx, end := gracefulAttempt(accepting, time.Hour)
		stop(errLeaving)
		synctest.Wait()
		began := time.Now()
		if ctx.Err() != nil {
			t.Error("the attempt ends with its worker")
		}
		end()
		synctest.Wait()
		if !errors.Is(ctx.Err(), context.Canceled) || time.Since(began) != 0 {
			t.Errorf("%v after %v", ctx.Err(), time.Since(began))
		}
	})
}

func graceful(finish time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return gracefulAttempt(ctx, finish) }
}
