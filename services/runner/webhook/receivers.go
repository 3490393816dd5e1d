package webhook

import (
	"context"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/excerpt"
)

const (
	// receiverSlots bounds a tenant's concurrent calls to one receiver, and tenantSlots those to all of its
	// receivers: fewer than the pieces of work that a runner processes concurrently for a tenant, so that
	// unresponsive receivers leave slots for other steps.
	receiverSlots, tenantSlots = 8, 12
	// slotWait bounds the wait of a call for a slot. After one call has waited in vain, others do not wait until a
	// call to the receiver has ended.
	slotWait = 250 * time.Millisecond
	// openAfter is the number of consecutive failures that open a breaker. openFirst and openLongest bound the time
	// for which it stays open, which doubles with every failed trial call.
	openAfter              = 5
	openFirst, openLongest = time.Second, time.Minute
	// tenantReceivers bounds the receivers per tenant whose failures are tracked.
	tenantReceivers = 256
	// maxCause bounds the error of a receiver's last failure, in bytes.
	maxCause = 256
)

// openDelays are the times for which a breaker stays open.
var openDelays = backoff.Delays{First: openFirst, Longest: openLongest}

// HeldError reports that a call was not made, because the breaker of its receiver is open or its concurrency limit is
// reached. The call can be retried after Until.
type HeldError struct {
	Until  time.Time
	Reason string
}

// Error implements error.
func (e *HeldError) Error() string { return e.Reason }

// receiverKey identifies a receiver: a host as called by one step of one workflow, so that a failing path of a host
// does not hold the calls of other steps.
type receiverKey struct{ source, host string }

// receivers contains the circuit breakers and limits of all tenants. Its methods may be called concurrently.
type receivers struct {
	mu      sync.Mutex
	tenants map[contextkit.TenantID]*tenantCalls
	held    int64 // calls that were not made
}

type tenantCalls struct {
	inFlight int
	known    map[receiverKey]*receiver
	freed    chan struct{} // closed and replaced when a call ends
}

// receiver is a circuit breaker: closed while until is zero, open before until, and half-open after it, when one
// trial call is admitted. Calls that an operator requests are trials at any time.
type receiver struct {
	inFlight int
	failures int // consecutive
	until    time.Time
	opened   int // consecutive openings
	trial    bool
	epoch    int  // incremented when the breaker opens, so that earlier calls decide nothing
	slow     bool // a call waited for a slot in vain
	used     time.Time
	cause    string // error of the last failed call
}

// outcome is the result of a call.
type outcome int

const (
	succeeded outcome = iota // the receiver responded, possibly with a refusal
	failed
	abandoned // the caller canceled it
)

// acquire waits for a slot for a call, which end frees; cause is the error of a failed call. With trial, an open
// breaker admits the call. Error: a [*HeldError], or that of ctx.
func (r *receivers) acquire(
	ctx context.Context, tenant contextkit.TenantID, key receiverKey, trial bool,
) (end func(o outcome, cause error), err error) {
	var timer <-chan time.Time
	waited := false
	for {
		r.mu.Lock()
		t, one := r.find(tenant, key)
		now := time.Now()
		one.used = now
		switch {
		case !trial && !one.until.IsZero() && (one.trial || now.Before(one.until)):
			until, cause := one.until, one.cause
			if one.trial && now.After(until) {
				until = now.Add(openFirst)
			}
			r.forget(tenant, t, key, one)
			r.held++
			r.mu.Unlock()
			return nil, &HeldError{until, "the circuit breaker of the receiver " + key.host + " is open: " + cause}
		case one.inFlight < receiverSlots && t.inFlight < tenantSlots:
			one.inFlight++
			t.inFlight++
			one.trial = !one.until.IsZero()
			epoch := one.epoch
			r.mu.Unlock()
			return func(o outcome, cause error) { r.release(tenant, t, key, one, epoch, o, cause) }, nil
		case one.slow || waited:
			one.slow = true
			r.forget(tenant, t, key, one)
			r.held++
			r.mu.Unlock()
			return nil, &HeldError{
				now.Add(openFirst), "the concurrency limit of the receiver " + key.host + " is reached",
			}
		}
		freed := t.freed
		r.mu.Unlock()
		if timer == nil {
			timer = time.After(slotWait)
		}
		select {
		case <-freed:
		case <-timer:
			waited = true
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// find returns a tenant's calls and receiver, which it creates if needed. The caller holds r.mu.
func (r *receivers) find(tenant contextkit.TenantID, key receiverKey) (*tenantCalls, *receiver) {
	t := r.tenants[tenant]
	if t == nil {
		t = &tenantCalls{known: map[receiverKey]*receiver{}, freed: make(chan struct{})}
		if r.tenants == nil {
			r.tenants = map[contextkit.TenantID]*tenantCalls{}
		}
		r.tenants[tenant] = t
	}
	one := t.known[key]
	if one == nil {
		if len(t.known) >= tenantReceivers {
			t.evict()
		}
		one = &receiver{}
		t.known[key] = one
	}
	return t, one
}

// evict removes the least recently called receiver without a call in flight.
func (t *tenantCalls) evict() {
	var oldest receiverKey
	var found *receiver
	for key, one := range t.known {
		if one.inFlight == 0 && (found == nil || one.used.Before(found.used)) {
			oldest, found = key, one
		}
	}
	delete(t.known, oldest)
}

// forget removes state that equals that of a new receiver. The caller holds r.mu.
func (r *receivers) forget(tenant contextkit.TenantID, t *tenantCalls, key receiverKey, one *receiver) {
	if one.inFlight == 0 && one.failures == 0 && one.until.IsZero() && t.known[key] == one {
		delete(t.known, key)
	}
	if len(t.known) == 0 && t.inFlight == 0 && r.tenants[tenant] == t {
		delete(r.tenants, tenant)
	}
}

func (r *receivers) release(
	tenant contextkit.TenantID, t *tenantCalls, key receiverKey, one *receiver, epoch int, o outcome, cause error,
) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one.inFlight--
	t.inFlight--
	one.slow = false
	close(t.freed)
	t.freed = make(chan struct{})
	if one.epoch == epoch {
		one.trial = false
		switch o {
		case succeeded:
			one.failures, one.opened, one.until, one.cause = 0, 0, time.Time{}, ""
		case failed:
			if cause != nil { // nil: the call has panicked
				one.cause = excerpt.Text(cause.Error(), maxCause)
			}
			if one.failures++; one.failures >= openAfter {
				one.open(time.Now())
			}
		case abandoned:
		}
	}
	r.forget(tenant, t, key, one)
}

// open opens the breaker for a time, a quarter of which is jitter.
func (one *receiver) open(now time.Time) {
	one.until = now.Add(backoff.Less(openDelays.After(one.opened+1), 0.25))
	one.opened++
	one.epoch++
}

// counts returns the number of receivers whose breaker is open or half-open, and the number of calls that were not
// made since the start.
func (r *receivers) counts() (open int, held int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.tenants {
		for _, one := range t.known {
			if !one.until.IsZero() {
				open++
			}
		}
	}
	return open, r.held
}
