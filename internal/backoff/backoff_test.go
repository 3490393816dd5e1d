package backoff

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestDelays_DoubleUpToTheLongest(t *testing.T) {
	d := Delays{First: 250 * time.Millisecond, Longest: 10 * time.Second}
	for failures, want := range map[int]time.Duration{
		0: 250 * time.Millisecond, 1: 250 * time.Millisecond, 2: 500 * time.Millisecond, 3: time.Second,
		6: 8 * time.Second,
		7: 10 * time.Second, 8: 10 * time.Second, 1000: 10 * time.Second, math.MaxInt: 10 * time.Second,
	} {
		if got := d.After(failures); got != want {
			t.Errorf("after %d failures: %v, want %v", failures, got, want)
		}
	}
	wait := time.Duration(0)
	for failures := 1; failures < 12; failures++ {
		if wait = d.Next(wait); wait != d.After(failures) {
			t.Errorf("the next wait after %d failures: %v, want %v", failures, wait, d.After(failures))
		}
	}
	if got := (Delays{First: 1, Longest: math.MaxInt64}).Next(math.MaxInt64 - 1); got != math.MaxInt64 {
		t.Errorf("the wait after the longest that there is: %v", got)
	}
	if got := (Delays{First: time.Minute, Longest: time.Second}).After(1); got != time.Second {
		t.Errorf("a first wait above the longest: %v", got)
	}
	if got := (Delays{First: time.Second, Longest: math.MaxInt64}).After(200); got != math.MaxInt64 {
		t.Errorf("the longest that there is: %v", got)
	}
}

// Waits with jitter stay within their range, use all of it and differ from each other.
func TestJitter_SpreadsOverItsWholeRange(t *testing.T) {
	const d, samples = time.Second, 2000
	for name, c := range map[string]struct {
		next        func() time.Duration
		least, most time.Duration // exclusive and inclusive
	}{
		"full":           {func() time.Duration { return Full(d) }, 0, d},
		"less a quarter": {func() time.Duration { return Less(d, 0.25) }, d * 3 / 4, d},
		"around a fifth": {func() time.Duration { return Around(d, 0.2) }, d*4/5 - 1, d * 6 / 5},
	} {
		lowest, highest := time.Duration(math.MaxInt64), time.Duration(0)
		for range samples {
			wait := c.next()
			lowest, highest = min(lowest, wait), max(highest, wait)
		}
		span := c.most - c.least
		if lowest <= c.least || highest > c.most {
			t.Errorf("%s: from %v to %v, want above %v and at most %v", name, lowest, highest, c.least, c.most)
		}
		if lowest > c.least+span/10 || highest < c.most-span/10 {
			t.Errorf("%s: from %v to %v, want waits near both %v and %v", name, lowest, highest, c.least, c.most)
		}
	}
	for _, d := range []time.Duration{0, 1, -time.Second} {
		if got := Less(d, 0.25); got != d {
			t.Errorf("less of %v: %v", d, got)
		}
	}
}

func TestRetry_WaitsLongerEachTimeUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delays := Delays{First: time.Second, Longest: 4 * time.Second}
		var calls []time.Time
		err := Retry(t.Context(), delays, func(context.Context) error {
			if calls = append(calls, time.Now()); len(calls) < 6 {
				return errors.New("not yet")
			}
			return nil
		})
		if err != nil || len(calls) != 6 {
			t.Fatalf("%v after %d calls", err, len(calls))
		}
		for i := 1; i < len(calls); i++ {
			wait, most := calls[i].Sub(calls[i-1]), delays.After(i)
			if wait <= most/2-1 || wait > most {
				t.Errorf("wait %d is %v, want above %v and at most %v", i, wait, most/2, most)
			}
		}
	})
}

func TestRetry_EndsWithAPermanentErrorOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("refused")
		calls := 0
		failing := func(context.Context) error { calls++; return cause }
		if err := Retry(
			t.Context(), Delays{time.Second, time.Second},
			func(context.Context) error { calls++; return Permanent(cause) },
		); err != cause || calls != 1 { //nolint:errorlint // it is returned unwrapped
			t.Errorf("a permanent error: %v after %d calls", err, calls)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		calls = 0
		if err := Retry(ctx, Delays{time.Minute, time.Minute}, failing); !errors.Is(err, cause) || calls != 1 ||
			ctx.Err() == nil {
			t.Errorf("while it waits: %v after %d calls", err, calls)
		}
		calls = 0
		if err := Retry(ctx, Delays{time.Minute, time.Minute}, failing); !errors.Is(err, context.DeadlineExceeded) ||
			calls != 0 {
			t.Errorf("a context that has ended: %v after %d calls", err, calls)
		}
	})
}
