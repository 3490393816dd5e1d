package breaker

import (
	"errors"
	"time"

	"github.com/headgate/headgate/internal/config"
)

// Config configures when breakers open. The zero value is the default.
type Config struct {
	// Failures is the number of consecutive failed calls that opens a breaker. 0: 5.
	Failures int `yaml:"failures"`
	// SlowFactor is how many times slower than the median of its peers a node must answer a method
	// for its breaker to open. 0: 5.
	SlowFactor float64 `yaml:"slow_factor"`
	// SlowFloor is the latency below which no node counts as slow. 0: 200 ms.
	SlowFloor time.Duration `yaml:"slow_floor"`
	// FirstPause is the time for which a breaker is open at first, and LongestPause its bound: the
	// pause doubles with each failed trial call. 0: 500 ms and 30 s.
	FirstPause   time.Duration `yaml:"first_pause"`
	LongestPause time.Duration `yaml:"longest_pause"`
	// PanicShare is the share of a kind's nodes that may be open: beyond it the fault is more
	// likely the gateway's or common to all nodes, and breakers are ignored. It applies to kinds
	// with three or more nodes. 0: one half.
	PanicShare float64 `yaml:"panic_share"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("failures", c.Failures, 0),
		config.AtLeast("slow_floor", c.SlowFloor, 0),
		config.AtLeast("first_pause", c.FirstPause, 0),
		config.AtLeast("longest_pause", c.LongestPause, 0),
		config.AtLeast("slow_factor", c.WithDefaults().SlowFactor, 1),
		config.Within("panic_share", c.PanicShare, 0, 1),
	)
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	if c.Failures == 0 {
		c.Failures = 5
	}
	if c.SlowFactor == 0 {
		c.SlowFactor = 5
	}
	if c.SlowFloor == 0 {
		c.SlowFloor = 200 * time.Millisecond
	}
	if c.FirstPause == 0 {
		c.FirstPause = 500 * time.Millisecond
	}
	if c.LongestPause == 0 {
		c.LongestPause = max(30*time.Second, c.FirstPause)
	}
	if c.PanicShare == 0 {
		c.PanicShare = 0.5
	}
	return c
}
