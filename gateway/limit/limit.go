// Package limit keeps one tenant's calls from taking the gateway from the
// others, and retries from multiplying a node's trouble.
//
// [Tenants] bounds each tenant's rate, the calls it has in flight and its
// retries; [Room] bounds all calls in flight, the more important ones last;
// [Budget] bounds retries to a share of a node's calls. All are bounded
// themselves and may be used concurrently.
package limit

import (
	"errors"
	"fmt"
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
	config Config
	known  *lru.Cache[contextkit.TenantID, *tenant]
}

type tenant struct {
	limiter  *rate.Limiter
	inFlight atomic.Int64
	streams  atomic.Int64
	retries  savings
}

// NewTenants returns bounds for each tenant. A negative value is an error.
func NewTenants(bounds Config) (*Tenants, error) {
	if err := bounds.Validate(); err != nil {
		return nil, err
	}
	known, err := lru.New[contextkit.TenantID, *tenant](trackedTenants)
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	return &Tenants{config: bounds.WithDefaults(), known: known}, nil
}

// Enter counts a call of the tenant, or a stream of answers, which leave ends. An
// error ([ErrRate], [ErrConcurrency] or [ErrStreams]) says that there is no room; wait is how long until there
// probably is, 0 if that is not known.
func (t *Tenants) Enter(id contextkit.TenantID, stream bool) (leave func(), wait time.Duration, err error) {
	use := t.use(id)
	count, bound, full := &use.inFlight, t.config.Concurrent, ErrConcurrency
	if stream {
		count, bound, full = &use.streams, t.config.Streams, ErrStreams
	}
	if count.Add(1) > int64(bound) {
		count.Add(-1)
		return nil, 0, full
	}
	now := time.Now()
	if !use.limiter.AllowN(now, 1) {
		count.Add(-1)
		missing := 1 - use.limiter.TokensAt(now)
		return nil, time.Duration(missing / t.config.Rate * float64(time.Second)), ErrRate
	}
	use.retries.earn()
	return func() { count.Add(-1) }, 0, nil
}

// Retry reports whether the tenant may have a call tried once more.
func (t *Tenants) Retry(id contextkit.TenantID) bool { return t.use(id).retries.spend() }

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
