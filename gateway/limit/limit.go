// Package limit prevents one caller's calls from exhausting the gateway for the others, and
// retries from overloading a node that fails.
//
// [Shared] is the capacity that all callers share: calls, streams and bytes. A [Budget]
// is what one caller (a tenant, a principal, a client address) may take of it, and a [Use]
// is what one call holds of both. [Budgets] has the budgets of callers by key, [Tenants]
// those of tenants, with their quotas. [Retries] bounds retries to a share of a node's
// calls. All are bounded themselves and safe for concurrent use.
package limit

import (
	"errors"

	"github.com/headgate/headgate/internal/config"
)

// Errors of a budget.
var (
	// ErrRate: the caller's calls come faster than its rate.
	ErrRate = errors.New("calls come faster than the limit")
	// ErrConcurrency: the caller has as many calls in flight as it may.
	ErrConcurrency = errors.New("too many calls in flight")
	// ErrStreams: the caller has as many streams in flight as it may.
	ErrStreams = errors.New("too many streams in flight")
	// ErrBytes: the caller's calls hold as many bytes in memory as they may.
	ErrBytes = errors.New("too many bytes in memory")
	// ErrFull: the shared capacity is used up for the call's priority.
	ErrFull = errors.New("the gateway is full")
	// ErrLeft: the call has ended and reserves nothing more.
	ErrLeft = errors.New("the call has ended")
)

// Config is the quota of each tenant.
type Config struct {
	// Rate is the calls a second, on average. 0: 5000.
	Rate float64 `yaml:"rate"`
	// Burst is the calls at once above the rate. 0: twice the rate.
	Burst int `yaml:"burst"`
	// Concurrent is the calls in flight, those included whose request is still
	// arriving. 0: 1024.
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
