// Package fanout queries many nodes without a thundering herd: with bounded concurrency, in one
// round for all concurrent callers, and with a result that is cached for [Config.TTL] and reports
// its age. The result names the nodes that did not respond.
package fanout

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/internal/config"
)

// Config bounds a group. The zero value is the default.
type Config struct {
	// Concurrent is the number of nodes that are queried concurrently. 0: 16.
	Concurrent int `yaml:"concurrent"`
	// Timeout bounds each node's answer. 0: 1 s.
	Timeout time.Duration `yaml:"timeout"`
	// TTL is how long a result is reused. 0: 1 s.
	TTL time.Duration `yaml:"ttl"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("concurrent", c.Concurrent, 0),
		config.AtLeast("timeout", c.Timeout, 0),
		config.AtLeast("ttl", c.TTL, 0),
	)
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	if c.Concurrent == 0 {
		c.Concurrent = 16
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.TTL == 0 {
		c.TTL = time.Second
	}
	return c
}

// Answer is a node's answer.
type Answer[N, T any] struct {
	Node  N
	Value T
	// Err is the reason that there is no value; nil: there is one.
	Err  error
	Took time.Duration
}

// Snapshot is the answers of one round, in the nodes' order. It is shared and
// must not be changed.
type Snapshot[N, T any] struct {
	// Taken is when the round began: no answer is older.
	Taken   time.Time
	Answers []Answer[N, T]
}

// Age is how old the oldest answer may be.
func (s *Snapshot[N, T]) Age() time.Duration { return time.Since(s.Taken) }

// Group sends one kind of query. It may be used concurrently.
type Group[N, T any] struct {
	config Config
	nodes  func() []N
	ask    func(ctx context.Context, node N) (T, error)

	rounds atomic.Int64
	calls  atomic.Int64

	mu      sync.Mutex
	current *round[N, T]
}

// round is one query of all nodes.
type round[N, T any] struct {
	done     chan struct{}
	snapshot *Snapshot[N, T] // once done
}

// NewGroup returns a group that queries nodes by ask.
func NewGroup[N, T any](
	config Config, nodes func() []N, ask func(ctx context.Context, node N) (T, error),
) *Group[N, T] {
	return &Group[N, T]{config: config.WithDefaults(), nodes: nodes, ask: ask}
}

// Snapshot returns the answers of all nodes: the last ones if they are younger than the TTL, else
// the answers of the round in flight or of a new one. A round ends by its own timeouts and not with
// the caller that began it; a caller whose ctx ends gets the error of ctx.
func (g *Group[N, T]) Snapshot(ctx context.Context) (*Snapshot[N, T], error) {
	g.mu.Lock()
	r := g.current
	if r == nil || r.over() && r.snapshot.Age() > g.config.TTL {
		r = &round[N, T]{done: make(chan struct{})}
		g.current = r
		go g.run(context.WithoutCancel(ctx), r)
	}
	g.mu.Unlock()
	select {
	case <-r.done:
		return r.snapshot, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *round[N, T]) over() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// run queries all nodes. It ends within the number of batches times the timeout.
func (g *Group[N, T]) run(ctx context.Context, r *round[N, T]) {
	g.rounds.Add(1)
	nodes := g.nodes()
	snapshot := &Snapshot[N, T]{Taken: time.Now(), Answers: make([]Answer[N, T], len(nodes))}
	var group errgroup.Group
	group.SetLimit(g.config.Concurrent)
	for i, node := range nodes {
		group.Go(func() error {
			g.calls.Add(1)
			ctx, cancel := context.WithTimeout(ctx, g.config.Timeout)
			defer cancel()
			began := time.Now()
			value, err := g.ask(ctx, node)
			snapshot.Answers[i] = Answer[N, T]{
				Node:  node,
				Value: value,
				Err:   err,
				Took:  time.Since(began),
			}
			return nil
		})
	}
	_ = group.Wait() // every error is an answer
	r.snapshot = snapshot
	close(r.done)
}

// Wait waits until no round is in flight.
func (g *Group[N, T]) Wait() {
	g.mu.Lock()
	r := g.current
	g.mu.Unlock()
	if r != nil {
		<-r.done
	}
}

// Rounds counts the rounds.
func (g *Group[N, T]) Rounds() int64 { return g.rounds.Load() }

// Calls counts the queried nodes.
func (g *Group[N, T]) Calls() int64 { return g.calls.Load() }
