// Package probe runs the health checks of the nodes, and updates their readiness in the routing table. It uses the gRPC
// health protocol, over the same channels and with the same transport contract as all other calls.
//
// A node that answers NOT_SERVING or UNAVAILABLE is removed from routing immediately. A node that does not answer is
// probed again without delay, and removed after the second missed probe; its calls in flight then end. Any other
// answer, such as UNIMPLEMENTED by a node without the health protocol or PERMISSION_DENIED, does not decide: such a
// node is ready if its announcement or the configuration states so, and is removed only while it does not answer.
//
// A probe that exceeds its deadline is ignored if the node answered other calls in the meantime, or if the gateway
// lacks CPU time and detects the deadline late: a client that keeps a gateway busy must not make nodes unready for
// other tenants.
package probe

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/route"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fanout"
)

// Config configures the probes. The zero value is the default.
type Config struct {
	// Every is the interval of rounds, with a jitter of a fifth, so that gateways do not probe at
	// the same time. 0: 2 s.
	Every time.Duration `yaml:"every"`
	// FanOut bounds a round of probes.
	FanOut fanout.Config `yaml:"fan_out"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("every", c.Every, 0),
		config.Inside("fan_out", c.FanOut.Validate()),
	)
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	if c.Every == 0 {
		c.Every = 2 * time.Second
	}
	c.FanOut = c.FanOut.WithDefaults()
	return c
}

const (
	// maxMissed is the number of consecutive missed probes after which a node is not ready.
	maxMissed = 2
)

// Prober probes the nodes of a routing table. It is safe for concurrent use; Run must be called
// once.
type Prober struct {
	config Config
	table  *route.Table
	client *connect.Client
	group  *fanout.Group[route.Node, Answer]
	nodes  Channels
	log    zerolog.Logger

	mu      sync.Mutex
	missed  map[string]missedProbes // by node
	answers map[string]bool         // by node: whether it answered the last conclusive probe
}

var checkSpec = connect.Spec{
	Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary,
	IdempotencyLevel: connect.IdempotencyNoSideEffects,
}

// Channels are the channels to the nodes. It must be safe for concurrent use.
type Channels interface {
	// Answered returns when the endpoint last sent a part of an answer; zero: unknown.
	Answered(endpoint string) time.Time
	// Abandon ends the calls to an endpoint that does not answer.
	Abandon(endpoint string)
}

// New returns a prober. The transport of client calls endpoints over the channels of nodes.
func New(config Config, table *route.Table, client *connect.Client, nodes Channels, log zerolog.Logger) *Prober {
	config = config.WithDefaults()
	p := &Prober{
		config: config,
		table:  table,
		client: client,
		nodes:  nodes,
		log:    log,
		missed: map[string]missedProbes{},
	}
	p.group = fanout.NewGroup(config.FanOut, table.Nodes, p.ask)
	return p
}

// missedProbes counts the consecutive missed probes of a node.
type missedProbes struct {
	node   route.Node
	probes int
}

// Answer is the result of a probe.
type Answer string

// Answers to probes.
const (
	Serving    Answer = "SERVING"     // the node accepts calls
	NotServing Answer = "NOT_SERVING" // the node accepts no calls
	Unknown    Answer = "UNKNOWN"     // the answer does not state whether the node accepts calls
	Answering  Answer = "ANSWERING"   // the node missed the probe, but answers other calls
	Undecided  Answer = ""            // the answer was not noticed in time, which is not a fault of the node
)

// ask sends a probe and returns its result.
func (p *Prober) ask(ctx context.Context, node route.Node) (Answer, error) {
	ctx = upstream.WithEndpoint(contextkit.PlatformContext(ctx), node.Endpoint)
	var res healthv1.HealthCheckResponse
	began := time.Now()
	err := p.client.CallUnary(ctx, checkSpec, &healthv1.HealthCheckRequest{}, &res)
	switch {
	case err == nil && res.GetStatus() == healthv1.HealthCheckResponse_SERVING:
		return Serving, nil
	case err == nil, upstream.Answered(err) && connect.CodeOf(err) == connect.CodeUnavailable:
		return NotServing, nil
	case upstream.Answered(err):
		return Unknown, nil
	case ctx.Err() == nil:
		return Undecided, err
	case p.nodes.Answered(node.Endpoint).After(began):
		return Answering, nil
	case p.late(began):
		return Undecided, nil
	}
	return Undecided, err
}

// lateness is the delay after a probe's deadline beyond which its result is ignored: the gateway lacks CPU time, and
// may not have read an answer that has arrived.
const lateness = 500 * time.Millisecond

// late reports whether a probe that began at a time ended much later than its deadline.
func (p *Prober) late(began time.Time) bool {
	return time.Since(began) > p.config.FanOut.Timeout+lateness
}

// Snapshot returns the results of the last round, or of a new one if it is too old.
func (p *Prober) Snapshot(ctx context.Context) (*fanout.Snapshot[route.Node, Answer], error) {
	return p.group.Snapshot(ctx)
}

// Run probes the nodes in rounds until ctx ends.
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

// apply updates the routing table with the results, and reports whether a node is in doubt: it is ready and has missed
// one probe.
func (p *Prober) apply(snapshot *fanout.Snapshot[route.Node, Answer]) (doubt bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.missed
	p.missed = make(map[string]missedProbes, len(snapshot.Answers))
	answers := make(map[string]bool, len(snapshot.Answers))
	defer func() { p.answers = answers }()
	for _, answer := range snapshot.Answers {
		node, ready := answer.Node, answer.Value != NotServing
		missed := before[node.ID].probes
		delete(before, node.ID)
		if answered, known := p.answers[node.ID]; known {
			answers[node.ID] = answered
		}
		if answer.Err == nil && answer.Value != Undecided {
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
		case answer.Value == Answering:
			continue
		case answer.Value == Undecided:
			p.missed[node.ID] = missedProbes{node, missed}
			doubt = doubt || missed < maxMissed && node.Ready
			continue
		case answer.Value == Unknown && missed < maxMissed:
			continue // the answer does not state its readiness
		}
		if p.table.SetReady(node.ID, ready) {
			level := zerolog.WarnLevel
			if ready {
				level = zerolog.InfoLevel
			}
			p.log.WithLevel(
				level,
			).Str(
				"node", node.ID,
			).Str("kind",
				node.Kind.String()).Bool("ready", ready).AnErr("error", answer.Err).Msg("node readiness changed")
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

// Answers reports whether a node answers probes, ready or not. known is false before its first probe.
func (p *Prober) Answers(node string) (answers, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answers, known = p.answers[node]
	return answers, known
}

// Probes returns the number of probes sent.
func (p *Prober) Probes() int64 { return p.group.Calls() }
