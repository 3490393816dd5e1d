package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/rs/zerolog"
)

const (
	// describeTimeout bounds how long a node may take to describe its services, and so
	// how long the start of a gateway waits for its nodes.
	describeTimeout = 5 * time.Second
	// firstReflectWait is the wait after a failed request for a node's descriptors; it doubles
	// up to maxReflectWait. A node that has answered is asked again after maxReflectWait,
	// since it may restart with other services.
	firstReflectWait, maxReflectWait = 500 * time.Millisecond, 10 * time.Second
	// maxStrangers bounds the announced nodes that wait to be asked for their services, and
	// maxKnown the remembered nodes that have answered.
	maxStrangers, maxKnown = 64, 1024
)

// reflector asks nodes for the descriptors of their services (gRPC reflection), and makes a
// gateway serve them.
type reflector struct {
	edge *gateway.Gateway
	// nodes are those of the settings.
	nodes []*reflectedNode
	// announced receives the announced nodes that have reflect set.
	announced chan backbone.Node
	pool      *upstream.Pool
	client    *connect.Client
	log       zerolog.Logger

	firstWait, maxWait time.Duration
}

// reflectedNode is a node of the settings that is asked for its services. It is for one
// goroutine at a time.
type reflectedNode struct {
	nodeSettings

	set []byte // the descriptors that the gateway serves; nil: none
	err error  // of the last attempt
}

// newReflector returns a reflector of the nodes that have reflect set. Its pool is closed by
// run, or else by the caller.
func newReflector(nodes []nodeSettings, channels upstream.PoolConfig, log zerolog.Logger) *reflector {
	r := &reflector{
		announced: make(chan backbone.Node, maxStrangers), pool: upstream.NewPool(channels), log: log,
		firstWait: firstReflectWait, maxWait: maxReflectWait,
	}
	for _, node := range nodes {
		if node.Reflect {
			r.nodes = append(r.nodes, &reflectedNode{nodeSettings: node})
		}
	}
	r.client = contextkit.NewClient(upstream.NewTransport(r.pool))
	return r
}

// announce queues an announced node, unless the queue is full: then a later announcement of
// the node queues it.
func (r *reflector) announce(node backbone.Node) {
	select {
	case r.announced <- node:
	default:
	}
}

// ask returns the descriptor set of a node's services. Errors: the node does not answer,
// or none of its methods has a policy ([policy.ErrNoPolicy]).
func (r *reflector) ask(ctx context.Context, endpoint string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), describeTimeout)
	defer cancel()
	set, err := policy.Reflect(upstream.WithEndpoint(ctx, endpoint), r.client)
	if err == nil {
		err = policy.CheckServed(set)
	}
	return set, err
}

// each calls do for all nodes of the settings concurrently, and waits.
func (r *reflector) each(do func(node *reflectedNode)) {
	var asking sync.WaitGroup
	for _, node := range r.nodes {
		asking.Go(func() { do(node) })
	}
	asking.Wait()
}

// start asks the nodes of the settings once, concurrently, and makes edge serve their
// services. A node that does not answer does not prevent the start: run asks it again.
func (r *reflector) start(ctx context.Context, edge *gateway.Gateway) {
	r.edge = edge
	r.each(func(node *reflectedNode) { r.renew(ctx, node) })
}

// run asks nodes until ctx ends: the nodes of the settings periodically, and announced nodes
// once after each of their starts.
func (r *reflector) run(ctx context.Context) error {
	defer r.pool.Close()
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, node := range r.nodes {
		asking.Go(func() { r.follow(ctx, node) })
	}
	return r.followAnnounced(ctx)
}

// follow asks a node of the settings periodically, with waits that grow after failures, until
// ctx ends.
func (r *reflector) follow(ctx context.Context, node *reflectedNode) {
	wait := r.firstWait
	for {
		if node.err == nil {
			wait = r.maxWait
		}
		timer := time.NewTimer(backoff.Around(wait, 0.25))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		wait = min(wait*2, r.maxWait)
		if r.renew(ctx, node); node.err == nil {
			wait = r.firstWait // for the next failure
		}
	}
}

// renew asks a node of the settings, and makes the gateway serve its services if they have
// changed. While no service of the node is served, its kind is shown as degraded. Consecutive
// equal failures are logged once.
func (r *reflector) renew(ctx context.Context, node *reflectedNode) {
	set, err := r.ask(ctx, node.Endpoint)
	if err == nil && !bytes.Equal(set, node.set) {
		if err = r.edge.Describe(node.ID, time.Now(), set); err == nil {
			node.set = set
			r.log.Info().Str("node", node.ID).Msg("the node's services are served")
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil && (node.err == nil || node.err.Error() != err.Error()) {
		r.log.Error().Err(err).Str("node", node.ID).Bool("served", node.set != nil).Msg("the node's services cannot be read by reflection: the gateway tries again")
	}
	node.err = err
	if node.set == nil {
		r.edge.SetUndescribed(node.ID, node.Kind)
	} else {
		r.edge.SetUndescribed(node.ID, "")
	}
}

// followAnnounced asks announced nodes, once after each of their starts, until ctx ends.
func (r *reflector) followAnnounced(ctx context.Context) error {
	known, err := lru.New[string, time.Time](maxKnown)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case node := <-r.announced:
			if started, ok := known.Get(node.ID); ok && started.Equal(node.Started) {
				continue
			}
			if r.describeAnnounced(ctx, node) {
				known.Add(node.ID, node.Started)
			}
		}
	}
}

// describeAnnounced makes the gateway serve an announced node's services, and reports whether
// it does.
func (r *reflector) describeAnnounced(ctx context.Context, node backbone.Node) bool {
	set, err := r.ask(ctx, node.Endpoint)
	if err == nil {
		err = r.edge.Describe(node.ID, node.Started, set)
	}
	if err != nil {
		r.log.Error().Err(err).Str("node", node.ID).Msg("the node's services cannot be served")
		return false // it is asked again after its next announcement
	}
	r.log.Info().Str("node", node.ID).Msg("the node's services are served")
	return true
}

// NodesAwayError is the error of [Plan.CheckNodes] when nodes do not answer.
type NodesAwayError struct{ error }

// checkNodes asks the nodes of the settings once. Its error names each node that failed: it is
// a NodesAwayError when nodes do not answer, another error when a node has no method with a
// policy.
func checkNodes(ctx context.Context, nodes []nodeSettings, channels upstream.PoolConfig) error {
	r := newReflector(nodes, channels, zerolog.Nop())
	defer r.pool.Close()
	r.each(func(node *reflectedNode) { _, node.err = r.ask(ctx, node.Endpoint) })
	var errs []error
	for _, node := range r.nodes {
		if node.err != nil {
			errs = append(errs, fmt.Errorf("node %s (%s) at %s cannot be asked for its services: %w", node.ID, node.Kind, node.Endpoint, node.err))
		}
	}
	switch all := errors.Join(errs...); {
	case all == nil, errors.Is(all, policy.ErrNoPolicy):
		return all
	default:
		return NodesAwayError{all}
	}
}
