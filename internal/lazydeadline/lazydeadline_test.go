package lazydeadline

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/contextkit"
)

type testKey struct{}

func TestContext_EndsLikeOtherContexts(t *testing.T) {
	t.Run("lazy", func(t *testing.T) { endsLikeOtherContexts(t, false) })
	t.Run("plain", func(t *testing.T) { endsLikeOtherContexts(t, true) })
}

func endsLikeOtherContexts(t *testing.T, plain bool) {
	t.Helper()
	for name, row := range map[string]struct {
		within time.Duration
		end    func(parent context.CancelFunc, until *Context)
		want   error
	}{
		"its time passes": {
			time.Millisecond, func(_ context.CancelFunc, until *Context) { <-until.Done() }, context.DeadlineExceeded,
		},
		"it is cancelled": {
			time.Hour, func(_ context.CancelFunc, until *Context) { until.Cancel(); until.Cancel() }, context.Canceled,
		},
		"its parent is": {time.Hour, func(parent context.CancelFunc, _ *Context) { parent() }, context.Canceled},
	} {
		// However it is waited for, if at all.
		for way, wait := range map[string]func(ctx context.Context) error{
			"not": func(context.Context) error { return nil },
			"by Done": func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			},
			"by Await": func(ctx context.Context) error { return Await(ctx, nil) },
			"by Await, a value further": func(ctx context.Context) error {
				return Await(
					contextkit.Carry(ctx, "further"), nil,
				)
			},
			"by a context that derives from it": func(ctx context.Context) error {
				derived, cancel := context.WithCancel(contextkit.Carry(ctx, "further"))
				defer cancel()
				return Await(derived, nil)
			},
			"by two goroutines": func(ctx context.Context) error {
				other := make(chan error, 1)
				go func() { other <- Await(ctx, nil) }()
				return errors.Join(Await(ctx, nil), <-other)
			},
		} {
			t.Run(name+", waited for "+way, func(t *testing.T) {
				parent, cancel := context.WithCancel(context.WithValue(t.Context(), testKey{}, "carried"))
				defer cancel()
				until := &Context{Plain: plain}
				until.Begin(parent, time.Now().Add(row.within))
				defer until.Cancel()
				result := make(chan error, 1)
				go func() { result <- wait(until) }()
				row.end(cancel, until)
				if err := <-result; way != "not" && !errors.Is(err, row.want) {
					t.Errorf("the waiter gets %v, want %v", err, row.want)
				}
				if err := until.Err(); !errors.Is(err, row.want) || until.Value(testKey{}) != "carried" {
					t.Errorf("at last: %v, want %v; it carries %v", err, row.want, until.Value(testKey{}))
				}
			})
		}
	}
}

func TestAwait_EndsWithTheContextOrTheEvent(t *testing.T) {
	var until Context
	until.Begin(t.Context(), time.Now().Add(time.Hour))
	defer until.Cancel()
	ready := make(chan struct{}, 1)
	for range 3 {
		ready <- struct{}{}
		if err := Await(&until, ready); err != nil {
			t.Fatal(err)
		}
	}
	if allocated := testing.AllocsPerRun(100, func() {
		ready <- struct{}{}
		if err := Await(&until, ready); err != nil {
			t.Fatal(err)
		}
	}); allocated > 0 && !testing.Short() { // -short goes with the race detector, whose pools lose what they hold
		t.Errorf("to wait allocates %v objects", allocated)
	}
}

func TestContext_EarlierDeadlineOfTheParentCounts(t *testing.T) {
	soon := time.Now().Add(time.Minute)
	parent, cancel := context.WithDeadline(t.Context(), soon)
	defer cancel()
	var sooner Context
	sooner.Begin(parent, soon.Add(time.Minute))
	if deadline, ok := sooner.Deadline(); !ok || !deadline.Equal(soon) {
		t.Errorf("the deadline is %v, want %v", deadline, soon)
	}
	// A context that continues without its parent's end is not ended by it.
	var until Context
	until.Begin(t.Context(), time.Now())
	ready := make(chan struct{})
	close(ready)
	if err := Await(context.WithoutCancel(&until), ready); err != nil {
		t.Error(err)
	}
	var none Context
	none.Cancel()
}

// BenchmarkContext measures a call that ends without a wait for its context, and one that waits with Await.
func BenchmarkContext(b *testing.B) {
	ready := make(chan struct{})
	close(ready)
	for name, plain := range map[string]bool{"fast": false, "plain": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				until := &Context{Plain: plain}
				until.Begin(b.Context(), time.Now().Add(time.Minute))
				if err := Await(until, ready); err != nil {
					b.Fatal(err)
				}
				until.Cancel()
			}
		})
	}
}
