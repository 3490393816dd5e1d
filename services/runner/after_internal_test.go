package runner

import (
	"errors"
	"testing"
	"time"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// patience is the error of a receiver that asks for the next attempt after a time.
type patience time.Duration

// Error implements error.
func (patience) Error() string { return "503" }

// Unwrap returns the error of the receiver's answer.
func (p patience) Unwrap() error { return &webhook.RetryAfterError{After: time.Duration(p)} }

// A step is retried until its attempts are used up or its time has passed, each alone; without such bounds, for a
// day. The last attempt is at the end of its time.
func TestBounds_RetriesOfAStep(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failed := errors.New("500")
	for name, c := range map[string]struct {
		retry model.Retry
		err   error
		made  int           // attempts in the record
		since time.Duration // the first failure
		stuck bool
		least time.Duration // until the next attempt
		most  time.Duration
	}{
		"the first of two":  {model.Retry{Attempts: 2}, failed, 0, 0, false, 1, 250 * time.Millisecond},
		"the second of two": {model.Retry{Attempts: 2}, failed, 1, time.Second, true, 0, 0},
		"the third of two":  {model.Retry{Attempts: 2}, failed, 2, time.Second, true, 0, 0},
		"the only one":      {model.Retry{Attempts: 1}, failed, 0, 0, true, 0, 0},
		"many":              {model.Retry{}, failed, 1000, time.Hour, false, 5 * time.Minute, 10 * time.Minute},
		"a day, nearly": {
			model.Retry{}, failed, 1000, 24*time.Hour - time.Second, false, time.Second, time.Second,
		},
		"a day":    {model.Retry{}, failed, 1000, 24 * time.Hour, true, 0, 0},
		"its time": {model.Retry{For: time.Hour, Attempts: 1000}, failed, 9, time.Hour, true, 0, 0},
		"within its time": {
			model.Retry{For: 48 * time.Hour}, failed, 1, 24 * time.Hour, false, 1, 500 * time.Millisecond,
		},
		"the receiver asks for a minute": {
			model.Retry{}, patience(time.Minute), 0, 0, false, time.Minute,
			time.Minute + 125*time.Millisecond,
		},
		"the receiver asks for too long": {
			model.Retry{For: time.Hour}, patience(2 * time.Hour), 0, 0, false, time.Hour, time.Hour,
		},
		"no attempt was made": {
			model.Retry{Attempts: 2}, &webhook.HeldError{Until: began.Add(time.Minute)}, 1, 0, false, time.Minute,
			time.Minute + 500*time.Millisecond,
		},
		"no attempt could be made before": {
			model.Retry{}, &webhook.HeldError{Until: began.Add(-time.Minute)}, 1, 0, false, 1, 500 * time.Millisecond,
		},
	} {
		var before *attempts
		if c.made > 0 {
			before = &attempts{
				Step:    "a",
				Failed:  c.made,
				Delayed: c.made,
				Error:   "500",
				First:   began,
			}
		}
		now := began.Add(c.since)
		next := (&stepError{name: "a", retry: c.retry, err: c.err}).after(before, 0, now)
		wait := next.Next.Sub(now)
		if next.Stuck != c.stuck || next.Stuck != next.Next.IsZero() || !c.stuck && (wait < c.least || wait > c.most) {
			t.Errorf("%s: %+v, want stuck %v, or the next attempt in %v to %v", name, next, c.stuck, c.least, c.most)
		}
		if !next.First.Equal(began) || !next.Last.Equal(now) || next.Delayed != c.made+1 {
			t.Errorf("%s: %+v", name, next)
		}
	}
}

// The first two retries of a step without a record wait in the window, unless its attempts are used up by them.
func TestBounds_RetriesWithinTheWindow(t *testing.T) {
	for name, c := range map[string]struct {
		attempts, unstored int
		quick, recorded    bool
		want               bool
	}{
		"the first":               {0, 0, true, false, true},
		"without a bound":         {0, 9, true, false, true},
		"slow":                    {0, 0, false, false, false},
		"with a record":           {0, 0, true, true, false},
		"one attempt":             {1, 0, true, false, false},
		"the first of two":        {2, 0, true, false, true},
		"the second of two":       {2, 1, true, false, false},
		"the second of three":     {3, 1, true, false, true},
		"more than there may be":  {2, 2, true, false, false},
		"a record, and attempts":  {5, 0, true, true, false},
		"slow, with its attempts": {5, 0, false, false, false},
	} {
		i := &instance{}
		if c.recorded {
			i.Attempts = &attempts{}
		}
		e := &stepError{name: "a", retry: model.Retry{Attempts: c.attempts}}
		if got := e.quick(i, try{quick: c.quick}, c.unstored); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
