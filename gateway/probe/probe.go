// Package probe keeps the routing table's word on which nodes take calls: it
// asks each by the gRPC health protocol, over the same channels and under the
// same contract as every other call.
//
// A node that answers that it does not serve, or that it is unavailable, is removed from the
// routing immediately. One that does not answer is asked again as soon as may be, and left out
// the second time, when those who still wait for it hear of it. A node that answers anything
// else, such as that it lacks the health protocol or that the gateway may not ask, is left out
// while it answers nothing; its announcement or its configuration says whether it takes calls.
//
// A probe that passes its deadline says nothing of a node that answered other calls meanwhile,
// nor while the gateway itself is so short of CPU time that the deadline is noticed late: a
// client that keeps a gateway busy must not take the nodes from all others.
package probe

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/config"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/fanout"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Config says how nodes are asked. The zero value is the default.
type Config struct {
	// Every is the time between two rounds, give or take a fifth, so that
	// gateways do not ask together. 0: 2 s.
	Every time.Duration `yaml:"every"`
	// FanOut bounds a round.
	FanOut fanout.Config `yaml:"fan_out"`
}

// Validate names the fields that cannot be used.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("every", c.Every, 0),
		config.Inside("fan_out", c.FanOut.Validate()),
	)
}

// WithDefaults returns the configuration with what was left out.
func (c Config) WithDefaults() Config {
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	c.FanOut = c.FanOut.WithDefaults()
	return c
}

const (
	// silences is how many probes in a row must stay without an answer.
	maxMissed = 2
)

// Prober asks the nodes of a table. Its methods may be called concurrently; Run
// once.
type Prober struct {
	config Config
	table  *route.Table
	client *connect.Client
	group  *fanout.Group[route.Node, string]
	nodes  Channels
	log    zerolog.Logger

	mu      sync.Mutex
	missed  map[string]missedProbes // by node
	answers map[string]bool         // by node: whether the last conclusive probe was answered
}

var checkSpec = connect.Spec{
	Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary, IdempotencyLevel: connect.IdempotencyNoSideEffects,
}

// Channels are the channels to nodes. Its methods may be called concurrently.
type Channels interface {
	// Answered returns when the endpoint last sent a part of any call's answer, the zero time
	// if that is not known.
	Answered(endpoint string) time.Time
	// Abandon ends the calls of an endpoint that does not answer.
	Abandon(endpoint string)
}

// New returns a prober over client, whose transport calls endpoints by the channels.
func New(config Config, table *route.Table, client *connect.Client, nodes Channels, log zerolog.Logger) *Prober {
	config = config.WithDefaults()
	p := &Prober{config: config, table: table, client: client, nodes: nodes, log: log, missed: map[string]missedProbes{}}
	p.group = fanout.NewGroup(config.FanOut, table.Nodes, p.ask)
	return p
}

// silence is that of a node which has left probes in a row without an answer.
type missedProbes struct {
	node   route.Node
	probes int
}

// States of a node that answers.
const (
	serving    = "SERVING"
	notServing = "NOT_SERVING"
	unknown    = "UNKNOWN"   // its answer does not say whether it serves
	answering  = "ANSWERING" // it answers other calls, and did not answer the probe
	undecided  = ""          // no answer was noticed in time, which is not the node's fault
)

// ask returns the node's own word.
func (p *Prober) ask(ctx context.Context, node route.Node) (string, error) {
	ctx = upstream.WithEndpoint(contextkit.PlatformContext(ctx), node.Endpoint)
	var res healthv1.HealthCheckResponse
	began := time.Now()
	err := p.client.CallUnary(ctx, checkSpec, &healthv1.HealthCheckRequest{}, &res)
	switch {
	case err != nil && upstream.Answered(err):
		if connect.CodeOf(err) == connect.CodeUnavailable {
			return notServing, nil
		}
		return unknown, nil
	case err != nil && ctx.Err() != nil && p.nodes.Answered(node.Endpoint).After(began):
		return answering, nil
	case err != nil && ctx.Err() != nil && p.late(began):
		return undecided, nil
	case err != nil:
		return "", err
	case res.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		return notServing, nil
	}
	return serving, nil
}

// lateness is how long after the deadline of a probe its end may be noticed: beyond it the
// gateway itself lacks CPU time, and an answer may be waiting to be read.
const lateness = 500 * time.Millisecond

// late reports whether a probe that began at a time has ended much later than its deadline.
func (p *Prober) late(began time.Time) bool {
	return time.Since(began) > p.config.FanOut.Timeout+lateness
}

// Snapshot returns what the nodes say, at most a moment old.
func (p *Prober) Snapshot(ctx context.Context) (*fanout.Snapshot[route.Node, string], error) {
	return p.group.Snapshot(ctx)
}

// Run asks the nodes in rounds until ctx ends.
func (p *Prober) Run(ctx context.Context) error {
	defer p.group.Wait()
	for {
		snapshot, err := p.group.Snapshot(ctx)
		if err != nil { // ctx has ended
			return nil
		}
		wait := backoff.Around(p.config.Every, 0.2)
		if p.apply(snapshot) {
			wait = min(wait, p.config.FanOut.TTL-snapshot.Age()+time.Millisecond)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// apply puts the nodes' word into the table, and reports whether a node is in doubt:
// it takes calls, and has not answered this once. One in doubt that is no longer in the
// table was missed by others too.
func (p *Prober) apply(snapshot *fanout.Snapshot[route.Node, string]) (doubt bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.missed
	p.missed = make(map[string]missedProbes, len(snapshot.Answers))
	answers := make(map[string]bool, len(snapshot.Answers))
	defer func() { p.answers = answers }()
	for _, answer := range snapshot.Answers {
		node, ready := answer.Node, answer.Value != notServing
		missed := before[node.ID].probes
		delete(before, node.ID)
		if answered, known := p.answers[node.ID]; known {
			answers[node.ID] = answered
		}
		if answer.Err == nil && answer.Value != undecided {
			answers[node.ID] = true
		}
		switch {
		case answer.Err != nil:
			p.missed[node.ID] = missedProbes{node, missed + 1}
			if missed+1 < maxMissed {
				doubt = doubt || node.Ready
				continue
			}
			answers[node.ID], ready = false, false
		case answer.Value == answering:
			continue
		case answer.Value == undecided:
			p.missed[node.ID] = missedProbes{node, missed}
			doubt = doubt || missed < maxMissed && node.Ready
			continue
		case answer.Value == unknown && missed < maxMissed:
			continue // it says nothing here of whether it takes calls
		}
		if p.table.SetReady(node.ID, ready) {
			level := zerolog.WarnLevel
			if ready {
				level = zerolog.InfoLevel
			}
			p.log.WithLevel(level).Str("node", node.ID).Str("kind", node.Kind).Bool("ready", ready).AnErr("error", answer.Err).Msg("node")
			if answer.Err != nil {
				p.nodes.Abandon(node.Endpoint)
			}
		}
	}
	for _, gone := range before {
		if _, there := p.table.Node(gone.node.ID); !there {
			p.nodes.Abandon(gone.node.Endpoint)
		}
	}
	return doubt
}

// Answers reports whether a node answers probes, with whatever answer. known is false before it
// has been probed.
func (p *Prober) Answers(node string) (answers, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answers, known = p.answers[node]
	return answers, known
}

// Probes counts the nodes asked.
func (p *Prober) Probes() int64 { return p.group.Calls() }
