// Package limit is the rate limiting, concurrency limiting and load shedding of the gateway. It
// prevents one caller's calls from exhausting the gateway for other callers, and retries from
// overloading a failing node.
//
// [Shared] is the capacity that all callers share: calls, streams and bytes. A [Budget] bounds what
// one caller (a tenant, a principal, a client address) may use of it, and a [Use] is what one call
// holds of both. [Budgets] holds the budgets of callers by key, [Tenants] those of tenants with
// their quotas. [Retries] bounds retries to a share of a node's calls. All of them are bounded in
// memory and safe for concurrent use.
package limit

import (
	"errors"

	"github.com/headgate/headgate/internal/config"
)

// Errors of a budget.
var (
	// ErrRate: the caller exceeds its rate limit.
	ErrRate = errors.New("calls exceed the rate limit")
	// ErrConcurrency: the caller has the maximum number of calls in flight.
	ErrConcurrency = errors.New("too many calls in flight")
	// ErrStreams: the caller has the maximum number of streams in flight.
	ErrStreams = errors.New("too many streams in flight")
	// ErrBytes: the caller's calls hold the maximum number of bytes in memory.
	ErrBytes = errors.New("too many bytes in memory")
	// ErrFull: the shared capacity is used up for the call's priority.
	ErrFull = errors.New("the gateway is full")
	// ErrReleased: the call has ended and cannot reserve anything.
	ErrReleased = errors.New("the call has ended")
)

// Config is the quota of a tenant.
type Config struct {
	// Rate is the sustained rate in calls per second. 0: 5000.
	Rate float64 `yaml:"rate"`
	// Burst is the number of calls that may exceed the rate. 0: twice the rate.
	Burst int `yaml:"burst"`
	// Concurrent bounds the calls in flight, including those whose request is still arriving. 0:
	// 1024.
	Concurrent int `yaml:"concurrent"`
	// Streams bounds the server streams in flight, which Concurrent does not count. 0: 4096.
	Streams int `yaml:"streams"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	return errors.Join(config.AtLeast("rate", c.Rate, 0), config.AtLeast("burst", c.Burst, 0),
		config.AtLeast("concurrent", c.Concurrent, 0), config.AtLeast("streams", c.Streams, 0))
}

// WithDefaults returns the configuration with defaults in place of zero values.
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
