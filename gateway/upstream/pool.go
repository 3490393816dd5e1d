package upstream

import (
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/upstream/h2"
	"github.com/headgate/headgate/internal/config"
)

// ErrPoolClosed says that the pool is closed.
var ErrPoolClosed = errors.New("upstream: the pool is closed")

// PoolConfig bounds a pool.
type PoolConfig struct {
	// MaxEndpoints is how many channels are kept. 0: 256.
	MaxEndpoints int `yaml:"max_endpoints"`
	// IdleTTL is how long a channel is kept that nobody uses. 0: 5 minutes.
	IdleTTL time.Duration `yaml:"idle_ttl"`
	// MaxMessageBytes bounds an answer. 0: 16 MiB.
	MaxMessageBytes int `yaml:"max_message_bytes"`
	// PingAfter is how long a channel with calls on it may be silent before its
	// peer is asked for a sign of life (HTTP/2 PING), and PingTimeout how long
	// that may take. 0: 20 s, at least 10 s, and 5 s.
	PingAfter   time.Duration `yaml:"ping_after"`
	PingTimeout time.Duration `yaml:"ping_timeout"`
	// TLS returns the configuration of the next connection; a server name in it goes
	// before the endpoint's host. nil: clear text.
	TLS func() *tls.Config `yaml:"-"`
	// Local returns what opens calls of an endpoint that is a service of this process; nil:
	// it is none. What is local has no channel. A nil Local knows of none.
	Local func(endpoint string) Opener `yaml:"-"`
}

// Validate names the fields that cannot be used.
func (c PoolConfig) Validate() error {
	return errors.Join(
		config.AtLeast("max_endpoints", c.MaxEndpoints, 0),
		config.AtLeast("idle_ttl", c.IdleTTL, 0),
		config.AtLeast("max_message_bytes", c.MaxMessageBytes, 0),
		config.AtLeast("ping_timeout", c.PingTimeout, 0),
		config.AtLeast("ping_after", c.WithDefaults().PingAfter, leastPingAfter),
	)
}

// WithDefaults returns the configuration with what was left out.
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
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 3 * time.Second
	// streamWindow and channelWindow are the bytes of answers that may be under way:
	// fixed, since finding them out asks the node for a PING with nearly every answer.
	streamWindow, channelWindow = 1 << 20, 16 << 20
	// firstBackoff and maxBackoff are between attempts to connect: short, since a node that
	// restarts should be found again within a second.
	firstBackoff, maxBackoff = 50 * time.Millisecond, time.Second
	// leastPingAfter is what peers of grpc-go's put up with, if they are told to.
	leastPingAfter = 10 * time.Second
)

// Pool keeps one channel an endpoint. A channel that is evicted, because others
// are used more or because it is idle, is closed when its last call has ended.
// All methods may be called concurrently; taking a channel that is there does
// not lock.
type Pool struct {
	config   PoolConfig
	channels sync.Map // endpoint → *channel
	started  time.Time

	made, evicted atomic.Int64

	mu      sync.Mutex // held to add and to evict
	count   int
	closed  bool
	sweeper *time.Timer // gives up idle channels; nil until there is one
}

// Stats is what a pool has done, and what it keeps.
type Stats struct {
	// Channels is how many are kept, Calls how many calls are on them.
	Channels, Calls int
	// Made and Evicted count channels since the start.
	Made, Evicted int64
}

// channel is a connection with the calls on it. Its count starts at one, the
// pool's own.
type channel struct {
	endpoint string
	conn     *h2.Channel
	calls    atomic.Int64
	lastUsed atomic.Int64 // since the pool's start, in nanoseconds
}

// NewPool returns an empty pool.
func NewPool(config PoolConfig) *Pool {
	return &Pool{config: config.WithDefaults(), started: time.Now()}
}

// take returns the endpoint's channel for one call; release ends it.
func (p *Pool) take(endpoint string) (*channel, error) {
	for {
		if found, ok := p.channels.Load(endpoint); ok {
			if c := found.(*channel); c.join() {
				c.lastUsed.Store(int64(time.Since(p.started)))
				return c, nil
			}
		}
		if err := p.add(endpoint); err != nil {
			return nil, err
		}
	}
}

// join counts a call, unless the channel has been given up.
func (c *channel) join() bool {
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

// release ends a call, or the pool's own hold.
func (c *channel) release() {
	if c.calls.Add(-1) == 0 {
		c.conn.Close()
	}
}

// add makes the endpoint's channel, once however many ask, and evicts the least
// recently used ones beyond the bound.
func (p *Pool) add(endpoint string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrPoolClosed
	}
	if found, ok := p.channels.Load(endpoint); ok && found.(*channel).calls.Load() > 0 {
		return nil
	}
	c := &channel{endpoint: endpoint, conn: h2.NewChannel(endpoint, h2.Config{
		TLS: p.config.TLS, StreamWindow: streamWindow, ConnWindow: channelWindow, MaxMessageBytes: p.config.MaxMessageBytes,
		ConnectTimeout: connectTimeout, FirstBackoff: firstBackoff, MaxBackoff: maxBackoff,
		PingAfter: p.config.PingAfter, PingTimeout: p.config.PingTimeout, Memory: frame.Buffers, UserAgent: "headgate",
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

// sweepEvery makes an idle channel live at most a quarter longer than its TTL.
func (p *Pool) sweepEvery() time.Duration { return max(p.config.IdleTTL/4, time.Millisecond) }

// sweep gives up idle channels, and comes back as long as there are any.
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

// evict gives up idle channels, and the least recently used ones beyond the
// bound, but neither keep nor, for being idle, one with calls on it. p.mu is
// held. It looks at every channel, which happens when one is added and in sweeps.
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
		p.remove(oldest) // one was added, so one is too many
	}
}

func (p *Pool) remove(c *channel) {
	p.channels.Delete(c.endpoint)
	p.count--
	p.evicted.Add(1)
	c.release()
}

// Abandon gives up the endpoint's channel at once, calls on it included: they end as
// UNAVAILABLE. The next call connects anew. It is for a node that does not answer any
// more, whose calls would wait for their deadlines.
func (p *Pool) Abandon(endpoint string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found, ok := p.channels.Load(endpoint); ok {
		c := found.(*channel)
		p.remove(c)
		c.conn.Close()
	}
}

// Answered returns when the endpoint last sent a part of any call's answer, the zero time if
// that is not known.
func (p *Pool) Answered(endpoint string) time.Time {
	found, ok := p.channels.Load(endpoint)
	if !ok {
		return time.Time{}
	}
	return found.(*channel).conn.Answered()
}

// Stats returns what the pool has done, and what it keeps.
func (p *Pool) Stats() Stats {
	stats := Stats{Made: p.made.Load(), Evicted: p.evicted.Load()}
	p.channels.Range(func(_, value any) bool {
		stats.Channels++
		stats.Calls += int(value.(*channel).calls.Load()) - 1 // less the pool's own hold
		return true
	})
	return stats
}

// Close gives up all channels; those with calls on them end with their calls.
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
