package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/workqueue"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

const (
	// quickRetries is the number of retries that follow a failure within a second. They occupy a slot of the tenant's
	// window, and at most [quickWindow] slots together.
	quickRetries, quickWindow = 2, window / 4
	// maxPostponed bounds a tenant's instances whose next attempt is scheduled. At the bound, further failing
	// instances stay in the window, and the tenant's triggers wait (backpressure).
	maxPostponed = 10_000
	// maxAttemptError bounds an error in a record, in bytes.
	maxAttemptError = 512
)

// attempts is the record of consecutive failed attempts at a step. It is nil once the step has ended.
type attempts struct {
	// Step is the step's name.
	Step string `json:"step"`
	// Failed counts the attempts. Delayed counts the delays, some of which had no attempt before them, because the
	// breaker of a webhook's receiver was open or the receiver's concurrency limit was reached.
	Failed  int `json:"failed,omitempty"`
	Delayed int `json:"delayed"`
	// Error is the error of the last failed attempt.
	Error string `json:"error"`
	// First and Last are the times of the first and of the last failure, and Next is the time of the next attempt.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Next  time.Time `json:"next,omitzero"`
	// Stuck is set if no attempt follows automatically: the step's retries are exhausted, and an operator decides.
	Stuck bool `json:"stuck,omitempty"`
	// Latest are the last attempts, at most maxLatest, the oldest first.
	Latest []failedAttempt `json:"latest,omitempty"`
}

// failedAttempt is a failed attempt at a step.
type failedAttempt struct {
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	Error string    `json:"error"`
}

// maxLatest bounds the attempts in a record, and maxLatestError the error of each in bytes.
const maxLatest, maxLatestError = 5, 128

// failedAt returns the last failed attempts at a step.
func (a *attempts) failedAt(name string) []failedAttempt {
	if a == nil || a.Step != name {
		return nil
	}
	return a.Latest
}

// bounded truncates an error's text to the length that a record stores.
func bounded(text string) string { return excerpt.Text(text, maxAttemptError) }

// stepError reports that an attempt at a step has failed and that another may succeed.
type stepError struct {
	name  string // of the step
	retry model.Retry
	err   error
	began time.Time // when the attempt began
}

// Error implements error.
func (e *stepError) Error() string { return "step " + e.name + ": " + e.err.Error() }

// Unwrap returns the attempt's error.
func (e *stepError) Unwrap() error { return e.err }

// quick reports whether the step is retried within the window, which only the first retries are. unstored is the
// number of attempts before it that are in no record.
func (e *stepError) quick(i *instance, t try, unstored int) bool {
	return t.quick && i.Attempts == nil && (e.retry.Attempts == 0 || unstored+1 < e.retry.Attempts)
}

// held reports whether no attempt was made, because the breaker of a webhook's receiver was open or the receiver's
// concurrency limit was reached.
func (e *stepError) held() (*webhook.HeldError, bool) {
	return errors.AsType[*webhook.HeldError](e.err)
}

// unstored counts the failed attempts at steps of one piece of work that are in no record, because they are retried
// within the window, by workflow and step. Other failures do not count. A nil *unstored counts nothing.
type unstored map[unstoredKey]int

type unstoredKey struct{ workflow, step string }

func (u *unstored) of(workflow string, e *stepError) int {
	if u == nil {
		return 0
	}
	return (*u)[unstoredKey{workflow, e.name}]
}

func (u *unstored) add(workflow string, e *stepError) {
	if _, held := e.held(); u == nil || held {
		return
	}
	if *u == nil {
		*u = unstored{}
	}
	(*u)[unstoredKey{workflow, e.name}]++
}

// stored resets the count once a record contains the attempts.
func (u *unstored) stored(workflow string, e *stepError) {
	if u != nil {
		delete(*u, unstoredKey{workflow, e.name})
	}
}

// errStuck reports that an instance does not continue automatically: a step's retries are exhausted, or no attempt
// could succeed.
var errStuck = errors.New("the instance is stuck")

// after returns the record after another failed attempt. before is the record so far, nil for none, and unstored is
// the number of attempts that it lacks.
func (e *stepError) after(before *attempts, unstored int, now time.Time) *attempts {
	next := attempts{First: now}
	if before != nil {
		next = *before
	}
	next.Step, next.Last, next.Next = e.name, now, time.Time{}
	next.Failed += unstored
	held, isHeld := e.held()
	if !isHeld {
		next.Failed++
	}
	if !isHeld || next.Failed == 0 || next.Error == "" { // otherwise it has the error of the last attempt
		next.Error = bounded(e.err.Error())
	}
	if !isHeld && !e.began.IsZero() {
		next.Latest = append(slices.Clone(next.Latest), failedAttempt{
			Began: e.began.UTC(),
			Ended: now,
			Error: excerpt.Text(e.err.Error(), maxLatestError),
		})
		next.Latest = next.Latest[max(len(next.Latest)-maxLatest, 0):]
	}
	next.Delayed += 1 + unstored
	ends := next.First.Add(e.retry.Within())
	if e.retry.Attempts > 0 && next.Failed >= e.retry.Attempts || !now.Before(ends) {
		next.Stuck = true
		return &next
	}
	delay := retryDelay(next.Delayed)
	if isHeld {
		delay += max(0, held.Until.Sub(now))
	}
	var asked *webhook.RetryAfterError
	if errors.As(e.err, &asked) {
		delay = asked.After + delay/2 // spread the retries of many instances
	}
	next.Next = now.Add(delay)
	if next.Next.After(ends) {
		next.Next = ends
	}
	return &next
}

// postpone stores that an attempt at the instance has failed, and schedules the next one, so that the instance uses
// no slot of a window. unstored is the number of attempts before it that are in no record. Errors: [errStuck] if no
// attempt follows, which is stored; on any other error the caller retries the instance.
func (e *engine) postpone(ctx context.Context, i *instance, failure *stepError, unstored int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx),
		commandTimeout) // the attempt may have exceeded its deadline
	defer cancel()
	i.Attempts = failure.after(i.Attempts, unstored, i.now().UTC())
	if !i.Attempts.Stuck {
		if err := e.postponed.admit(ctx, e.js, i.tenant); err != nil {
			return err
		}
	}
	if err := e.instances.save(ctx, i); err != nil {
		return err
	}
	if i.Attempts.Stuck {
		return fmt.Errorf("%w: step %s: %s", errStuck, i.Attempts.Step, i.Attempts.Error)
	}
	return retryAt(ctx, e.js, i)
}

// pending reports whether the instance's next attempt, by its record, is in the future. It then
// schedules the message again, in case it was lost.
func (e *engine) pending(ctx context.Context, i *instance) (bool, error) {
	if i.Attempts == nil || i.Attempts.Stuck || !i.now().Before(i.Attempts.Next) {
		return false, nil
	}
	return true, retryAt(ctx, e.js, i)
}

// retryAt schedules the instance's next attempt.
func retryAt(ctx context.Context, js jetstream.JetStream, i *instance) error {
	return schedule(ctx, js, streams.RetrySubject(i.tenant, i.Workflow, i.ID), i, i.Attempts.Next)
}

// errManyPostponed reports that a tenant has the maximum number of instances waiting for a retry.
var errManyPostponed = fmt.Errorf(
	"%d instances of the tenant already wait for their next attempt: this one stays in the window", maxPostponed,
)

// postponedEvery is the maximum age of the count of a tenant's scheduled retries.
const postponedEvery = 5 * time.Second

// postponed counts a tenant's scheduled retries. Its methods may be called concurrently.
type postponed struct {
	mu    sync.Mutex
	at    time.Time // time of the count
	count int64
	held  *atomic.Int64 // counts attempts that exceeded the bound
}

// admit returns [errManyPostponed] if the tenant has too many scheduled retries, or the error of counting them.
func (p *postponed) admit(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) >= postponedEvery {
		count, err := workqueue.CountRetries(ctx, js, tenant)
		if err != nil {
			return err
		}
		p.count, p.at = count, time.Now()
	}
	if p.count >= maxPostponed {
		p.held.Add(1)
		return errManyPostponed
	}
	p.count++
	return nil
}
