package upstream

import (
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fastpath"
)

// ErrPoolClosed is the error of a call after the pool was closed.
var ErrPoolClosed = errors.New("upstream: the pool is closed")

// PoolConfig bounds a pool.
type PoolConfig struct {
	// MaxEndpoints bounds the open channels. 0: 256.
	MaxEndpoints int `yaml:"max_endpoints"`
	// IdleTTL is the time after which an unused channel is closed. 0: 5 minutes.
	IdleTTL time.Duration `yaml:"idle_ttl"`
	// MaxMessageBytes bounds an answer. 0: 16 MiB.
	MaxMessageBytes int `yaml:"max_message_bytes"`
	// PingAfter is the idle time after which a channel with calls in flight sends a PING (HTTP/2
	// keepalive), and PingTimeout the time to wait for the answer. 0: 20 s, at least 10 s, and 5 s.
	PingAfter   time.Duration `yaml:"ping_after"`
	PingTimeout time.Duration `yaml:"ping_timeout"`
	// TLS returns the configuration of the next connection. Its server name, if set, replaces the endpoint's host. nil:
	// clear text.
	TLS func() *tls.Config `yaml:"-"`
	// FastPaths selects the client and its sockets.
	FastPaths fastpath.Paths `yaml:"-"`
	// Local returns the opener of an endpoint that is a service of this process, which has no channel; nil for other
	// endpoints. A nil Local means that there are no such endpoints.
	Local func(endpoint string) Opener `yaml:"-"`
}

// Validate returns an error that names the invalid fields.
func (c PoolConfig) Validate() error {
	return errors.Join(
		config.AtLeast("max_endpoints", c.MaxEndpoints, 0),
		config.AtLeast("idle_ttl", c.IdleTTL, 0),
		config.AtLeast("max_message_bytes", c.MaxMessageBytes, 0),
		config.AtLeast("ping_timeout", c.PingTimeout, 0),
		config.AtLeast("ping_after", c.WithDefaults().PingAfter, minPingAfter),
	)
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c PoolConfig) WithDefaults() PoolConfig {
	if c.MaxEndpoints == 0 {
		c.MaxEndpoints = 256
	}
	if c.IdleTTL == 0 {
		c.IdleTTL = 5 * time.Minute
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 16 << 20
	}
	if c.PingAfter == 0 {
		c.PingAfter = 20 * time.Second
	}
	if c.PingTimeout == 0 {
		c.PingTimeout = 5 * time.Second
	}
	return c
}

const (
	// connectTimeout bounds an attempt to connect.
	connectTimeout = 3 * time.Second
	// streamWindow and channelWindow are the flow control windows of answers, in bytes. They are
	// fixed: measuring the bandwidth-delay product would send a PING with nearly every answer.
	streamWindow, channelWindow = 1 << 20, 16 << 20
	// firstBackoff and maxBackoff bound the delay between attempts to connect. They are short, so that a restarted node
	// is reached within a second.
	firstBackoff, maxBackoff = 50 * time.Millisecond, time.Second
	// minPingAfter is the shortest keepalive interval that grpc-go servers can be configured to accept.
	minPingAfter = 10 * time.Second
)

// Pool manages one channel per endpoint. It evicts idle channels, and the least recently used ones beyond the bound; an
// evicted channel is closed when its last call has ended. It is safe for concurrent use; acquiring an open channel does
// not lock.
type Pool struct {
	config   PoolConfig
	channels sync.Map // endpoint → *channel
	started  time.Time

	made, evicted atomic.Int64

	mu      sync.Mutex // held to add and to evict
	count   int
	closed  bool
	sweeper *time.Timer // closes idle channels; nil while there is no channel
}

// Stats are the statistics of a pool.
type Stats struct {
	// Channels counts the open channels, and Calls the calls in flight on them.
	Channels, Calls int
	// Made and Evicted count the channels opened and evicted since the start.
	Made, Evicted int64
}

// channel is a reference-counted channel. The pool holds one reference.
type channel struct {
	endpoint string
	conn     client
	calls    atomic.Int64
	lastUsed atomic.Int64 // since the pool's start, in nanoseconds
}

// NewPool returns an empty pool.
func NewPool(config PoolConfig) *Pool {
	return &Pool{config: config.WithDefaults(), started: time.Now()}
}

// acquire returns the endpoint's channel for one call, which must release it.
func (p *Pool) acquire(endpoint string) (*channel, error) {
	for {
		if found, ok := p.channels.Load(endpoint); ok {
			if c := found.(*channel); c.acquire() {
				c.lastUsed.Store(int64(time.Since(p.started)))
				return c, nil
			}
		}
		if err := p.add(endpoint); err != nil {
			return nil, err
		}
	}
}

// acquire adds a reference and returns true, or returns false if the channel was evicted.
func (c *channel) acquire() bool {
	for {
		calls := c.calls.Load()
		if calls == 0 {
			return false
		}
		if c.calls.CompareAndSwap(calls, calls+1) {
			return true
		}
	}
}

// release removes a reference. The last one closes the channel.
func (c *channel) release() {
	if c.calls.Add(-1) == 0 {
		c.conn.Close()
	}
}

// add opens the endpoint's channel, once for concurrent callers, and evicts the least recently used
// channels beyond the bound.
func (p *Pool) add(endpoint string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrPoolClosed
	}
	if found, ok := p.channels.Load(endpoint); ok && found.(*channel).calls.Load() > 0 {
		return nil
	}
	c := &channel{endpoint: endpoint, conn: newClient(endpoint, channels.Config{
		TLS:             p.config.TLS,
		StreamWindow:    streamWindow,
		ConnWindow:      channelWindow,
		MaxMessageBytes: p.config.MaxMessageBytes,
		ConnectTimeout:  connectTimeout,
		FirstBackoff:    firstBackoff,
		MaxBackoff:      maxBackoff,
		PingAfter:       p.config.PingAfter,
		PingTimeout:     p.config.PingTimeout,
		Memory:          frame.Buffers,
		UserAgent:       "headgate",
		FastPaths:       p.config.FastPaths,
	})}
	c.calls.Store(1)
	c.lastUsed.Store(int64(time.Since(p.started)))
	p.channels.Store(endpoint, c)
	p.count++
	p.made.Add(1)
	p.evict(c)
	if p.sweeper == nil {
		p.sweeper = time.AfterFunc(p.sweepEvery(), p.sweep)
	}
	return nil
}

// sweepEvery bounds the life of an idle channel to a quarter more than IdleTTL.
func (p *Pool) sweepEvery() time.Duration { return max(p.config.IdleTTL/4, time.Millisecond) }

// sweep evicts idle channels, and reschedules itself while there are channels.
func (p *Pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.evict(nil)
	if p.closed || p.count == 0 {
		p.sweeper = nil
		return
	}
	p.sweeper.Reset(p.sweepEvery())
}

// evict evicts idle channels without calls in flight, and the least recently used channels beyond the bound, but never
// keep. The caller holds p.mu. It inspects every channel; only additions and sweeps call it.
func (p *Pool) evict(keep *channel) {
	idleSince := int64(time.Since(p.started) - p.config.IdleTTL)
	var oldest *channel
	p.channels.Range(func(_, value any) bool {
		c := value.(*channel)
		switch {
		case c == keep:
		case c.lastUsed.Load() <= idleSince && c.calls.Load() == 1:
			p.remove(c)
		case oldest == nil || c.lastUsed.Load() < oldest.lastUsed.Load():
			oldest = c
		}
		return true
	})
	if oldest != nil && p.count > p.config.MaxEndpoints {
		p.remove(oldest) // one channel was added
	}
}

func (p *Pool) remove(c *channel) {
	p.channels.Delete(c.endpoint)
	p.count--
	p.evicted.Add(1)
	c.release()
}

// Abandon closes the endpoint's channel immediately. Its calls fail with UNAVAILABLE, and the next call reconnects. It
// is used for a node that no longer answers, whose calls would wait for their deadlines.
func (p *Pool) Abandon(endpoint string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found, ok := p.channels.Load(endpoint); ok {
		c := found.(*channel)
		p.remove(c)
		c.conn.Close()
	}
}

// Answered returns when the endpoint last sent a part of an answer; zero: unknown.
func (p *Pool) Answered(endpoint string) time.Time {
	found, ok := p.channels.Load(endpoint)
	if !ok {
		return time.Time{}
	}
	return found.(*channel).conn.Answered()
}

// Stats returns the pool's statistics.
func (p *Pool) Stats() Stats {
	stats := Stats{Made: p.made.Load(), Evicted: p.evicted.Load()}
	p.channels.Range(func(_, value any) bool {
		stats.Channels++
		stats.Calls += int(value.(*channel).calls.Load()) - 1 // without the pool's reference
		return true
	})
	return stats
}

// Close closes all channels; those with calls in flight are closed when their calls have ended.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	p.channels.Range(func(_, value any) bool {
		p.remove(value.(*channel))
		return true
	})
}
