package upstream

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/headgate/headgate/gateway/frame"
)

// ErrPoolClosed says that the pool is closed.
var ErrPoolClosed = errors.New("upstream: the pool is closed")

// PoolConfig bounds a pool.
type PoolConfig struct {
	// MaxEndpoints is how many channels are kept. 0: 256.
	MaxEndpoints int
	// IdleTTL is how long a channel is kept that nobody uses. 0: 5 minutes.
	IdleTTL time.Duration
	// MaxMessageBytes bounds an answer. 0: 16 MiB.
	MaxMessageBytes int
}

func (c PoolConfig) withDefaults() PoolConfig {
	if c.MaxEndpoints == 0 {
		c.MaxEndpoints = 256
	}
	if c.IdleTTL == 0 {
		c.IdleTTL = 5 * time.Minute
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 16 << 20
	}
	return c
}

const (
	// pingAfter and pingTimeout find a dead peer while calls wait for it.
	pingAfter, pingTimeout = 20 * time.Second, 5 * time.Second
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 3 * time.Second
)

// Pool keeps one channel an endpoint. A channel that is evicted, because others
// are used more or because it is idle, is closed when its last call has ended.
// All methods may be called concurrently; taking a channel that is there does
// not lock.
type Pool struct {
	config   PoolConfig
	channels sync.Map // endpoint → *channel
	started  time.Time

	mu     sync.Mutex // held to add and to evict
	count  int
	closed bool
}

// channel is a connection with the calls on it. Its count starts at one, the
// pool's own.
type channel struct {
	endpoint string
	conn     *grpc.ClientConn
	calls    atomic.Int64
	lastUsed atomic.Int64 // since the pool's start, in nanoseconds
}

// NewPool returns an empty pool.
func NewPool(config PoolConfig) *Pool {
	return &Pool{config: config.withDefaults(), started: time.Now()}
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
		_ = c.conn.Close() // it only fails when closed already
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
	// The channel connects with its first call, in the background of others.
	conn, err := grpc.NewClient("passthrough:///"+endpoint,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(frame.GRPCCodec{}), grpc.MaxCallRecvMsgSize(p.config.MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), // the gateway retries, knowing what may be
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: connectBackoff, MinConnectTimeout: connectTimeout}),
		grpc.WithIdleTimeout(p.config.IdleTTL),
	)
	if err != nil {
		return fmt.Errorf("upstream: endpoint %q: %w", endpoint, err)
	}
	c := &channel{endpoint: endpoint, conn: conn}
	c.calls.Store(1)
	c.lastUsed.Store(int64(time.Since(p.started)))
	p.channels.Store(endpoint, c)
	p.count++
	p.evict(c)
	return nil
}

// evict gives up idle channels, and the least recently used ones beyond the
// bound, but not keep. p.mu is held. It looks at every channel, which happens
// only when one is added.
func (p *Pool) evict(keep *channel) {
	oldest := func() (victim *channel) {
		p.channels.Range(func(_, value any) bool {
			if c := value.(*channel); c != keep && (victim == nil || c.lastUsed.Load() < victim.lastUsed.Load()) {
				victim = c
			}
			return true
		})
		return victim
	}
	idleSince := int64(time.Since(p.started) - p.config.IdleTTL)
	for victim := oldest(); victim != nil && (p.count > p.config.MaxEndpoints || victim.lastUsed.Load() < idleSince); victim = oldest() {
		p.remove(victim)
	}
}

func (p *Pool) remove(c *channel) {
	p.channels.Delete(c.endpoint)
	p.count--
	c.release()
}

// Len returns how many channels are kept.
func (p *Pool) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Close gives up all channels; those with calls on them end with their calls.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.channels.Range(func(_, value any) bool {
		p.remove(value.(*channel))
		return true
	})
}
