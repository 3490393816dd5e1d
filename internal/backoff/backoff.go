// Package backoff computes the waits between attempts, and retries what fails: the one implementation of
// exponential backoff with jitter. It decides how long to wait. Whether an operation may be repeated, and how
// often in all (retry budgets), is decided by its callers.
package backoff

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Delays are waits that double with each failure in a row.
type Delays struct {
	// First is the wait after the first failure, and Longest the bound of all waits.
	First, Longest time.Duration
}

// After returns the wait after a number of failures in a row, from 1, without jitter.
func (d Delays) After(failures int) time.Duration {
	wait := min(d.First, d.Longest)
	for ; failures > 1 && wait < d.Longest; failures-- {
		wait = d.Next(wait)
	}
	return wait
}

// Next returns the wait after one of the given length, without jitter: First after none (0).
func (d Delays) Next(wait time.Duration) time.Duration {
	if wait > d.Longest/2 {
		return d.Longest
	}
	return min(max(2*wait, d.First), d.Longest)
}

// Full returns a random duration above 0 and at most d ("full jitter"): it spreads callers most.
func Full(d time.Duration) time.Duration { return Less(d, 1) }

// Less returns d less a random part of it, below the given fraction: Less(d, 0.25) is above three quarters of d
// and at most d.
func Less(d time.Duration, fraction float64) time.Duration {
	return d - upTo(time.Duration(float64(d)*fraction))
}

// Around returns d, plus or minus a random part of it of at most the given fraction.
func Around(d time.Duration, fraction float64) time.Duration {
	part := time.Duration(float64(d) * fraction)
	return d - part + upTo(2*part)
}

// upTo returns a random duration from 0 to below d; 0 if d is not positive.
func upTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// Retry calls attempt until it succeeds, returns a [Permanent] error or ctx ends, with waits in between, the upper
// half of which is jitter. It returns the last error of attempt, or that of ctx if attempt was not called.
func Retry(ctx context.Context, delays Delays, attempt func(context.Context) error) error {
	err := ctx.Err()
	for failures := 1; ctx.Err() == nil; failures++ {
		if err = attempt(ctx); err == nil {
			return nil
		}
		if permanent, ok := errors.AsType[*permanentError](err); ok {
			return permanent.err
		}
		timer := time.NewTimer(Less(delays.After(failures), 0.5))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return err
}

// Permanent returns err as one that [Retry] returns without a further attempt.
func Permanent(err error) error { return &permanentError{err} }

type permanentError struct{ err error }

func (p *permanentError) Error() string { return p.err.Error() }
func (p *permanentError) Unwrap() error { return p.err }
