// Package limit keeps one tenant's calls from taking the gateway from the
// others, and retries from multiplying a node's trouble.
//
// [Tenants] bounds each tenant's rate, the calls it has in flight and its
// retries, all alike or some by bounds of their own, and slows down those who do not
// take a refusal for one; [Room] bounds all calls in flight, the more important ones last;
// [Budget] bounds retries to a share of a node's calls. All are bounded
// themselves and may be used concurrently.
package limit

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/chassis/config"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
)

// Errors of Enter.
var (
	// ErrRate: the tenant's calls come faster than its rate.
	ErrRate = errors.New("the tenant's calls come faster than its limit")
	// ErrConcurrency: the tenant has as many calls in flight as it may.
	ErrConcurrency = errors.New("the tenant has too many calls in flight")
	// ErrStreams: the tenant has as many streams of answers as it may.
	ErrStreams = errors.New("the tenant has too many streams in flight")
)

// Config bounds each tenant.
type Config struct {
	// Rate is the calls a second, on average. 0: 5000.
	Rate float64 `yaml:"rate"`
	// Burst is the calls at once above the rate. 0: twice the rate.
	Burst int `yaml:"burst"`
	// Concurrent is the calls in flight. 0: 1024.
	Concurrent int `yaml:"concurrent"`
	// Streams is the streams of answers in flight, beside the calls. 0: 4096.
	Streams int `yaml:"streams"`
}

// Validate names the fields that cannot be used.
func (c Config) Validate() error {
	return errors.Join(config.AtLeast("rate", c.Rate, 0), config.AtLeast("burst", c.Burst, 0), config.AtLeast("concurrent", c.Concurrent, 0), config.AtLeast("streams", c.Streams, 0))
}

// WithDefaults returns the configuration with what was left out.
func (c Config) WithDefaults() Config {
	if c.Rate == 0 {
		c.Rate = 5000
	}
	if c.Burst == 0 {
		c.Burst = max(int(2*c.Rate), 1)
	}
	if c.Concurrent == 0 {
		c.Concurrent = 1024
	}
	if c.Streams == 0 {
		c.Streams = 4096
	}
	return c
}

// trackedTenants bounds the tenants whose use is known. One that comes back
// after it was forgotten starts with a full burst.
const trackedTenants = 65_536

// Tenants bounds each tenant's use.
type Tenants struct {
	config  Config
	own     atomic.Pointer[map[contextkit.TenantID]Config] // tenants' own bounds
	known   *lru.Cache[contextkit.TenantID, *tenant]
	held    atomic.Int64 // refusals that are held back
	maxHeld int64
}

type tenant struct {
	mu       sync.Mutex // held to change the bounds
	bounds   atomic.Pointer[Config]
	limiter  *rate.Limiter
	refusals *rate.Limiter // that are told at once
	inFlight atomic.Int64
	streams  atomic.Int64
	retries  savings
}

// NewTenants returns bounds for each tenant. At most maxHeld refusals are held back at
// once, see [Tenants.HoldBack]. A negative value is an error.
func NewTenants(bounds Config, maxHeld int) (*Tenants, error) {
	if err := errors.Join(bounds.Validate(), config.AtLeast("refusals held back", maxHeld, 0)); err != nil {
		return nil, err
	}
	known, err := lru.New[contextkit.TenantID, *tenant](trackedTenants)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	return &Tenants{config: bounds.WithDefaults(), known: known, maxHeld: int64(maxHeld)}, nil
}

// SetBounds gives tenants bounds of their own; those that are not named have the
// same as all others, and so has what is 0. It counts at once, also for what is in
// flight.
func (t *Tenants) SetBounds(own map[contextkit.TenantID]Config) {
	t.own.Store(&own)
	for _, id := range t.known.Keys() {
		if use, ok := t.known.Peek(id); ok {
			t.bind(id, use)
		}
	}
}

// boundsOf returns the tenant's bounds.
func (t *Tenants) boundsOf(id contextkit.TenantID) Config {
	out := t.config
	own := t.own.Load()
	if own == nil {
		return out
	}
	c := (*own)[id]
	if c.Rate > 0 {
		out.Rate, out.Burst = c.Rate, max(int(2*c.Rate), 1)
	}
	if c.Burst > 0 {
		out.Burst = c.Burst
	}
	if c.Concurrent > 0 {
		out.Concurrent = c.Concurrent
	}
	if c.Streams > 0 {
		out.Streams = c.Streams
	}
	return out
}

// bind puts the tenant's bounds in force.
func (t *Tenants) bind(id contextkit.TenantID, use *tenant) {
	use.mu.Lock()
	defer use.mu.Unlock()
	bounds := t.boundsOf(id) // what is the last with the lock is the newest
	if *use.bounds.Load() == bounds {
		return
	}
	use.limiter.SetLimit(rate.Limit(bounds.Rate))
	use.limiter.SetBurst(bounds.Burst)
	use.refusals.SetLimit(rate.Limit(bounds.Rate * promptRefusals))
	use.refusals.SetBurst(promptBurst(bounds))
	use.bounds.Store(&bounds)
}

// Use is a call that was let in. The zero value is none.
type Use struct{ count *atomic.Int64 }

// Leave ends the call. It is called once.
func (u Use) Leave() {
	if u.count != nil {
		u.count.Add(-1)
	}
}

// Enter counts a call of the tenant, or a stream of answers, now, until its use ends. An
// error ([ErrRate], [ErrConcurrency] or [ErrStreams]) says that there is no room; wait is how long until there
// probably is, 0 if that is not known.
func (t *Tenants) Enter(id contextkit.TenantID, now time.Time, stream bool) (in Use, wait time.Duration, err error) {
	use := t.use(id)
	bounds := use.bounds.Load()
	count, bound, full := &use.inFlight, bounds.Concurrent, ErrConcurrency
	if stream {
		count, bound, full = &use.streams, bounds.Streams, ErrStreams
	}
	if count.Add(1) > int64(bound) {
		count.Add(-1)
		return Use{}, 0, full
	}
	if !use.limiter.AllowN(now, 1) {
		count.Add(-1)
		missing := 1 - use.limiter.TokensAt(now)
		return Use{}, time.Duration(missing / bounds.Rate * float64(time.Second)), ErrRate
	}
	use.retries.earn()
	return Use{count}, 0, nil
}

// Retry reports whether the tenant may have a call tried once more.
func (t *Tenants) Retry(id contextkit.TenantID) bool { return t.use(id).retries.spend() }

func (t *Tenants) use(id contextkit.TenantID) *tenant {
	if use, ok := t.known.Get(id); ok {
		return use
	}
	bounds := t.boundsOf(id)
	fresh := &tenant{
		limiter:  rate.NewLimiter(rate.Limit(bounds.Rate), bounds.Burst),
		refusals: rate.NewLimiter(rate.Limit(bounds.Rate*promptRefusals), promptBurst(bounds)),
	}
	fresh.bounds.Store(&bounds)
	if use, ok, _ := t.known.PeekOrAdd(id, fresh); ok {
		return use
	}
	t.bind(id, fresh) // those that were changed while it was not there to be told
	return fresh
}
