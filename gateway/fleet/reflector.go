package fleet

import (
	"bytes"
	"context"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/fleet"
)

const (
	// describeTimeout bounds the time that a node has to describe its services, and so the time that the start of a
	// gateway waits for its nodes.
	describeTimeout = 5 * time.Second
	// maxQueuedNodes bounds the announced nodes that wait for a request, and maxDescribedNodes the remembered nodes
	// that have answered one.
	maxQueuedNodes, maxDescribedNodes = 64, 1024
)

// reflectDelays are the waits after failed requests for a node's descriptors. A node that has answered is asked again
// after the longest, since it may restart with other services.
var reflectDelays = backoff.Delays{First: 500 * time.Millisecond, Longest: 10 * time.Second}

// Node is a node of the settings that describes its services by gRPC reflection.
type Node struct {
	ID       string
	Kind     contextkit.Kind
	Endpoint string
}

// Catalog is the part of a gateway that serves described services.
type Catalog interface {
	// Describe serves the services of a descriptor set in place of the services that the node described before. started
	// is when the node started.
	Describe(node string, kind contextkit.Kind, started time.Time, set []byte) error
	// SetUndescribed reports a kind as degraded because none of the node's services is served; "" ends the report.
	SetUndescribed(node string, kind contextkit.Kind)
}

// Reflector asks nodes for the descriptors of their services (gRPC reflection), and registers them with a catalog.
type Reflector struct {
	catalog   Catalog
	nodes     []*describedNode
	announced chan fleet.Node
	asker     *asker
	log       zerolog.Logger
	delays    backoff.Delays
}

// describedNode is a node of the settings. It is used by one goroutine at a time.
type describedNode struct {
	Node

	set []byte // the descriptors that the catalog serves; nil: none
	err error  // of the last attempt
}

// NewReflector returns a reflector of nodes of the settings. Run closes its channels to nodes; Close does if Run is not
// called.
func NewReflector(catalog Catalog, nodes []Node, channels upstream.PoolConfig, log zerolog.Logger) *Reflector {
	r := &Reflector{
		catalog:   catalog,
		announced: make(chan fleet.Node, maxQueuedNodes),
		asker:     newAsker(channels),
		log:       log,
		delays:    reflectDelays,
	}
	for _, node := range nodes {
		r.nodes = append(r.nodes, &describedNode{Node: node})
	}
	return r
}

// Announce queues an announced node. While the queue is full it does nothing: a later announcement queues the node.
func (r *Reflector) Announce(node fleet.Node) {
	select {
	case r.announced <- node:
	default:
	}
}

// DescribeAll asks the nodes of the settings once, concurrently. A node that does not answer is asked again by Run.
func (r *Reflector) DescribeAll(ctx context.Context) {
	var asking sync.WaitGroup
	for _, node := range r.nodes {
		asking.Go(func() { r.renew(ctx, node) })
	}
	asking.Wait()
}

// Close closes the channels to nodes.
func (r *Reflector) Close() { r.asker.close() }

// Run asks nodes until ctx ends: the nodes of the settings periodically, and announced nodes once after each of their
// starts.
func (r *Reflector) Run(ctx context.Context) error {
	defer r.Close()
	var asking sync.WaitGroup
	defer asking.Wait()
	for _, node := range r.nodes {
		asking.Go(func() { r.follow(ctx, node) })
	}
	return r.followAnnounced(ctx)
}

// follow asks a node of the settings periodically, with waits that grow after failures, until ctx ends.
func (r *Reflector) follow(ctx context.Context, node *describedNode) {
	for failures := 1; ; failures++ {
		wait := r.delays.After(failures)
		if node.err == nil {
			failures, wait = 0, r.delays.Longest
		}
		timer := time.NewTimer(backoff.Around(wait, 0.25)) // nodes are not asked together
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		r.renew(ctx, node)
	}
}

// renew asks a node of the settings, and has the catalog serve its services if they have changed. While no service of
// the node is served, its kind is reported as degraded. Consecutive equal failures are logged once.
func (r *Reflector) renew(ctx context.Context, node *describedNode) {
	set, err := r.asker.ask(ctx, node.Endpoint)
	if err == nil && !bytes.Equal(set, node.set) {
		if err = r.catalog.Describe(node.ID, node.Kind, time.Now(), set); err == nil {
			node.set = set
			r.log.Info().Str("node", node.ID).Msg("the node's services are served")
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil && (node.err == nil || node.err.Error() != err.Error()) {
		r.log.Error().Err(err).Str("node", node.ID).Bool("served", node.set != nil).Msg(
			"the node's services cannot be read by reflection; retrying",
		)
	}
	node.err = err
	if node.set == nil {
		r.catalog.SetUndescribed(node.ID, node.Kind)
	} else {
		r.catalog.SetUndescribed(node.ID, "")
	}
}

// followAnnounced asks announced nodes, once after each of their starts, until ctx ends.
func (r *Reflector) followAnnounced(ctx context.Context) error {
	described, err := lru.New[string, time.Time](maxDescribedNodes)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case node := <-r.announced:
			if started, ok := described.Get(node.ID); ok && started.Equal(node.Started) {
				continue
			}
			if r.describeAnnounced(ctx, node) {
				described.Add(node.ID, node.Started)
			}
		}
	}
}

// describeAnnounced has the catalog serve an announced node's services, and reports whether it does.
func (r *Reflector) describeAnnounced(ctx context.Context, node fleet.Node) bool {
	set, err := r.asker.ask(ctx, node.Endpoint)
	if err == nil {
		err = r.catalog.Describe(node.ID, node.Kind, node.Started, set)
	}
	if err != nil {
		r.log.Error().Err(err).Str("node", node.ID).Msg("the node's services cannot be served")
		return false // it is asked again after its next announcement
	}
	r.log.Info().Str("node", node.ID).Msg("the node's services are served")
	return true
}

// asker requests the descriptors of nodes.
type asker struct {
	pool   *upstream.Pool
	client *connect.Client
}

func newAsker(channels upstream.PoolConfig) *asker {
	pool := upstream.NewPool(channels)
	return &asker{pool, contextkit.NewClient(upstream.NewTransport(pool))}
}

func (a *asker) close() { a.pool.Close() }

// ask returns the descriptor set of a node's services. Errors: the node does not answer, or none of its methods has a
// policy ([policy.ErrNoPolicy]).
func (a *asker) ask(ctx context.Context, endpoint string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), describeTimeout)
	defer cancel()
	set, err := policy.Reflect(upstream.WithEndpoint(ctx, endpoint), a.client)
	if err == nil {
		err = policy.CheckServed(set)
	}
	return set, err
}
