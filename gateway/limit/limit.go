// Package limit keeps one tenant's calls from taking the gateway from the
// others, and retries from multiplying a node's trouble.
//
// [Tenants] bounds each tenant's rate and the calls it has in flight; [Budget]
// bounds retries to a share of the calls. Both are bounded themselves and may be
// used concurrently.
package limit

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

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
)

// Config bounds each tenant.
type Config struct {
	// Rate is the calls a second, on average. 0: 5000.
	Rate float64
	// Burst is the calls at once above the rate. 0: twice the rate.
	Burst int
	// Concurrent is the calls in flight. 0: 1024.
	Concurrent int
}

func (c Config) withDefaults() Config {
	if c.Rate == 0 {
		c.Rate = 5000
	}
	if c.Burst == 0 {
		c.Burst = max(int(2*c.Rate), 1)
	}
	if c.Concurrent == 0 {
		c.Concurrent = 1024
	}
	return c
}

// trackedTenants bounds the tenants whose use is known. One that comes back
// after it was forgotten starts with a full burst.
const trackedTenants = 65_536

// Tenants bounds each tenant's use.
type Tenants struct {
	config Config
	known  *lru.Cache[contextkit.TenantID, *tenant]
}

type tenant struct {
	limiter  *rate.Limiter
	inFlight atomic.Int64
}

// NewTenants returns bounds for each tenant. A negative value is an error.
func NewTenants(config Config) (*Tenants, error) {
	if config.Rate < 0 || config.Burst < 0 || config.Concurrent < 0 {
		return nil, fmt.Errorf("limit: %+v: rate, burst and concurrency cannot be negative", config)
	}
	known, err := lru.New[contextkit.TenantID, *tenant](trackedTenants)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	return &Tenants{config: config.withDefaults(), known: known}, nil
}

// Enter counts a call of the tenant, which leave ends. An error ([ErrRate] or
// [ErrConcurrency]) says that there is no room; wait is how long until there
// probably is, 0 if that is not known.
func (t *Tenants) Enter(id contextkit.TenantID) (leave func(), wait time.Duration, err error) {
	use := t.use(id)
	if use.inFlight.Add(1) > int64(t.config.Concurrent) {
		use.inFlight.Add(-1)
		return nil, 0, ErrConcurrency
	}
	now := time.Now()
	if !use.limiter.AllowN(now, 1) {
		use.inFlight.Add(-1)
		missing := 1 - use.limiter.TokensAt(now)
		return nil, time.Duration(missing / t.config.Rate * float64(time.Second)), ErrRate
	}
	return func() { use.inFlight.Add(-1) }, 0, nil
}

func (t *Tenants) use(id contextkit.TenantID) *tenant {
	if use, ok := t.known.Get(id); ok {
		return use
	}
	fresh := &tenant{limiter: rate.NewLimiter(rate.Limit(t.config.Rate), t.config.Burst)}
	if use, ok, _ := t.known.PeekOrAdd(id, fresh); ok {
		return use
	}
	return fresh
}

// Retries per call, and how many may be saved up for a moment of trouble.
const (
	retryShare   = 0.1
	retrySavings = 10.0
)

// Budget allows retries as a share of the calls: a node in trouble gets at most
// a tenth more calls, not a multiple.
type Budget struct {
	mu     sync.Mutex
	tokens map[string]float64 // by endpoint
}

// trackedEndpoints bounds the endpoints whose budget is known.
const trackedEndpoints = 4096

// NewBudget returns a budget in which every endpoint has its full savings.
func NewBudget() *Budget { return &Budget{tokens: map[string]float64{}} }

// Call counts a call to the endpoint.
func (b *Budget) Call(endpoint string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens[endpoint] = min(b.have(endpoint)+retryShare, retrySavings)
}

// Retry reports whether the endpoint may be called once more for the same call.
func (b *Budget) Retry(endpoint string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	have := b.have(endpoint)
	if have < 1 {
		return false
	}
	b.tokens[endpoint] = have - 1
	return true
}

func (b *Budget) have(endpoint string) float64 {
	tokens, ok := b.tokens[endpoint]
	if !ok {
		if len(b.tokens) >= trackedEndpoints {
			clear(b.tokens) // nodes have come and gone; all start anew
		}
		return retrySavings
	}
	return tokens
}
