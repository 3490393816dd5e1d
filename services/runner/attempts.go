package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// quickRetries is the number of retries that follow a failure within a second. They wait in the
	// tenant's window, of which at most [quickWindow] places may be used for it.
	quickRetries, quickWindow = 2, window / 4
	// maxPostponed bounds a tenant's instances whose next attempt is scheduled. While there are as
	// many, further ones that fail stay in the window, and the tenant's triggers wait.
	maxPostponed = 10_000
	// maxAttemptError bounds an error in a record, in bytes.
	maxAttemptError = 512
)

// attempts is what a record stores of attempts at a step that have failed, in a row. It is nil
// once the step has ended.
type attempts struct {
	// Step is the step's name.
	Step string `json:"step"`
	// Failed counts the attempts; Delayed counts the delays, some of which had no attempt before
	// them: the breaker of a webhook's receiver was open, or the receiver's places were taken.
	Failed  int `json:"failed,omitempty"`
	Delayed int `json:"delayed"`
	// Error is why the last one failed.
	Error string `json:"error"`
	// First and Last are the times of the first and of the last failure, and Next is that of the
	// next attempt.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Next  time.Time `json:"next,omitzero"`
	// Stuck says that no attempt follows by itself: the step's retries are exhausted, and an
	// operator decides.
	Stuck bool `json:"stuck,omitempty"`
}

// bounded returns the beginning of an error's text that a record has.
func bounded(text string) string { return excerpt.Text(text, maxAttemptError) }

// stepError says that an attempt at a step has failed, and that another may succeed.
type stepError struct {
	name  string // of the step
	retry model.Retry
	err   error
}

// Error implements error.
func (e *stepError) Error() string { return "step " + e.name + ": " + e.err.Error() }

// Unwrap returns the attempt's error.
func (e *stepError) Unwrap() error { return e.err }

// quick reports whether the step is tried again within the window: only at first, and if it may be.
// unstored is the number of attempts before it that are in no record.
func (e *stepError) quick(i *instance, t try, unstored int) bool {
	return t.quick && i.Attempts == nil && (e.retry.Attempts == 0 || unstored+1 < e.retry.Attempts)
}

// held reports whether no attempt was made: the breaker of a webhook's receiver was open, or the
// receiver's places were taken.
func (e *stepError) held() (*webhook.HeldError, bool) {
	return errors.AsType[*webhook.HeldError](e.err)
}

// unstored counts the attempts at steps of one piece that have failed and that no record has: those
// that are retried within the window. Other failures of the piece are none, and neither are those of
// another workflow or step of the same event. A nil *unstored counts nothing.
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

// stored forgets attempts that a record has now.
func (u *unstored) stored(workflow string, e *stepError) {
	if u != nil {
		delete(*u, unstoredKey{workflow, e.name})
	}
}

// errStuck says that an instance does not go on by itself: a step's retries are exhausted, or no
// attempt could succeed.
var errStuck = errors.New("the instance is stuck")

// after returns the attempts once another one has failed; before are those so far, nil: none, and
// unstored is the number of those that it does not have.
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
	if !isHeld || next.Failed == 0 || next.Error == "" { // else it says why the last attempt has failed
		next.Error = bounded(e.err.Error())
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
		delay = asked.After + delay/2 // so that not all come back in the same moment
	}
	next.Next = now.Add(delay)
	if next.Next.After(ends) {
		next.Next = ends
	}
	return &next
}

// postpone stores that an attempt at the instance has failed, and schedules the next one: the
// instance then needs no place in a window. unstored is the number of attempts before it that are
// in no record. Errors: [errStuck] if none follows, which is stored; any other leaves the instance
// to be tried again.
func (e *engine) postpone(ctx context.Context, i *instance, failure *stepError, unstored int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout) // the attempt may have used its time up
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

// pending reports whether a record says that the instance's next attempt is later; then its
// message is scheduled again, in case that it was lost.
func (e *engine) pending(ctx context.Context, i *instance) (bool, error) {
	if i.Attempts == nil || i.Attempts.Stuck || !i.now().Before(i.Attempts.Next) {
		return false, nil
	}
	return true, retryAt(ctx, e.js, i)
}

// retryAt schedules the instance's next attempt.
func retryAt(ctx context.Context, js jetstream.JetStream, i *instance) error {
	return schedule(ctx, js, backbone.RetrySubject(i.tenant, i.Workflow, i.ID), i, i.Attempts.Next)
}

// errManyPostponed says that a tenant has as many instances that wait for a retry as it may.
var errManyPostponed = fmt.Errorf("%d instances of the tenant wait for their next attempt already: this one stays in work", maxPostponed)

// postponedEvery is how old the count of a tenant's scheduled retries may be.
const postponedEvery = 5 * time.Second

// postponed counts a tenant's scheduled retries. Its methods may be called concurrently.
type postponed struct {
	mu    sync.Mutex
	at    time.Time // when they were counted
	count int64
	held  *atomic.Int64 // counts attempts that found no room
}

// admit returns [errManyPostponed] if the tenant has too many scheduled retries, or the error of
// counting them.
func (p *postponed) admit(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.at) >= postponedEvery {
		count, err := backbone.CountRetries(ctx, js, tenant)
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
