package breaker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
)

// breaker is the breaker of a node or of a method. The zero value is closed.
type breaker struct {
	// openUntil is the time at which a trial call is admitted, in Unix nanoseconds; 0 while closed.
	// It is written under mu.
	openUntil atomic.Int64

	mu         sync.Mutex
	opened     time.Time // the last time
	pause      time.Duration
	allTenants bool // while open: all tenants are rejected, not only onlyTenant
	onlyTenant contextkit.TenantID
	trial      trial
	failures   int // consecutive
	// tenant is the tenant whose call failed first; several reports that calls of another tenant
	// failed too, or that no tenant can be the cause.
	tenant   contextkit.TenantID
	several  bool
	answerAt time.Time // time of the last answer
	mean     float64   // moving average of response times
	answers  int       // number of answers in mean
}

// trial is the last trial call.
type trial struct {
	at     time.Time
	tenant contextkit.TenantID
	ended  bool
}

// enter admits a call unless the breaker rejects it. isTrial reports whether it is the trial call.
func (b *breaker) enter(
	config *Config, tenant contextkit.TenantID, now time.Time,
) (isTrial bool, wait time.Duration, ok bool) {
	if b.closed() {
		return false, 0, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.concerns(tenant) {
		return false, 0, true
	}
	if wait := b.wait(config, tenant, now); wait > 0 {
		return false, wait, false
	}
	b.trial = trial{at: now, tenant: tenant}
	return true, 0, true
}

// refuses reports whether a call would be rejected.
func (b *breaker) refuses(config *Config, tenant contextkit.TenantID, now time.Time) bool {
	if b.closed() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.concerns(tenant) && b.wait(config, tenant, now) > 0
}

// closed reports whether the breaker admits every call.
func (b *breaker) closed() bool { return b.openUntil.Load() == 0 }

// concerns reports whether the breaker is open for the tenant. b.mu is held.
func (b *breaker) concerns(tenant contextkit.TenantID) bool {
	return !b.closed() && (b.allTenants || b.onlyTenant == tenant)
}

// wait returns the time until the tenant may make the trial call. While a trial has no result, the
// next one follows after the first pause, and one of the same tenant after two, so that one
// tenant's slow calls cannot occupy all trials. b.mu is held.
func (b *breaker) wait(config *Config, tenant contextkit.TenantID, now time.Time) time.Duration {
	wait := time.Duration(b.openUntil.Load() - now.UnixNano())
	if b.trial.at.IsZero() || b.trial.ended {
		return wait
	}
	next := b.trial.at.Add(config.FirstPause)
	if b.trial.tenant == tenant {
		next = next.Add(config.FirstPause)
	}
	return max(wait, next.Sub(now))
}

// withdraw ends the trial that began at a time, without a result.
func (b *breaker) withdraw(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.endTrial(at)
}

func (b *breaker) endTrial(at time.Time) {
	if b.trial.at.Equal(at) {
		b.trial.ended = true
	}
}

// answered records an answer to a call that began at a time, and closes the breaker if it is open.
// took is the response time; 0: not measured. It reports false, and changes nothing, for an answer
// to a call that began before the breaker opened: such a slow answer must not close the breaker
// that it opened. b.mu is held.
func (b *breaker) answered(began time.Time, took time.Duration, now time.Time) bool {
	if began.Before(b.opened) {
		return false
	}
	if b.openUntil.Load() != 0 {
		b.openUntil.Store(0)
		b.pause, b.trial = 0, trial{}
	}
	b.failures, b.answerAt = 0, now
	if took > 0 {
		b.answers++
		b.mean = movingMean(b.mean, b.answers, took)
	}
	return true
}

// failed records the end of a call without an answer, and opens the breaker if the call reaches the
// threshold.
func (b *breaker) failed(config *Config, p *Pass, outcome Outcome, isTrial bool, now time.Time) {
	if outcome == Unknown && !isTrial {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if isTrial {
		b.endTrial(p.entered)
	}
	if outcome == Unknown || outcome == TimedOut && !b.answerAt.Before(p.entered) {
		return // the client disconnected, or other calls of the method were answered since the call began
	}
	if b.failures == 0 {
		b.tenant, b.several = p.tenant, false
	}
	b.failures++
	b.several = b.several || p.tenant != b.tenant || outcome == Unreached
	open := b.openUntil.Load() != 0
	switch {
	case !open && b.failures >= config.Failures, open && isTrial:
		b.open(config, b.several || open && b.allTenants, b.tenant, now)
	case open && (b.several || p.tenant != b.onlyTenant) && b.failures >= config.Failures:
		b.allTenants = true // before, only one tenant's calls had failed
	}
}

// open opens the breaker, for all tenants or for one, for a pause with a quarter of jitter, so that
// gateways do not retry together. b.mu is held.
func (b *breaker) open(config *Config, allTenants bool, only contextkit.TenantID, now time.Time) {
	b.allTenants, b.onlyTenant = allTenants, only
	b.opened, b.trial = now, trial{}
	b.pause = backoff.Delays{First: config.FirstPause, Longest: config.LongestPause}.Next(b.pause)
	b.openUntil.Store(now.Add(backoff.Less(b.pause, 0.25)).UnixNano())
}

// state returns the breaker's state.
func (b *breaker) state(kind contextkit.Kind, endpoint, procedure string) State {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := b.openUntil.Load() != 0
	state := State{
		Kind:      kind,
		Endpoint:  endpoint,
		Procedure: procedure,
		Open:      open,
		Single:    open && !b.allTenants,
		Failures:  b.failures,
		Latency:   time.Duration(b.mean),
	}
	if state.Single {
		state.Tenant = b.onlyTenant
	}
	return state
}
