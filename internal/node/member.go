package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/tracing"
	"github.com/headgate/headgate/services/runner"
)

// retryWait is the wait before something is followed again after a failure, as logged.
const retryWait = time.Second

// Kinds of nodes: kindControl serves the platform and no tenant, kindRunner runs tenants' workflows and serves
// operators, and kindGateway is a gateway.
const kindControl, kindRunner, kindGateway = "control", "runner", "gateway"

// member is a node as a part of the platform: the tenants that it serves, which operators change while it runs, and
// its announcement.
type member struct {
	js         *bus
	kind, id   string
	tenants    *rpc.Tenants
	timeline   *timeline.Recorder
	spans      spans
	assignment *fleet.Assignment
	suspend    func([]contextkit.TenantID) // nil: it does not concern the node
	// tokens selects the version of tokens that the node issues; nil: the newest, for nodes that are all in one
	// process.
	tokens  *token.Gate
	rollout *rollout
	// integrity is the integrity check of the journal; nil: the node does not use the journal.
	integrity *journal.Integrity
	// failingViews returns views that cannot apply an event, and their number; nil: the node has none.
	failingViews func() ([]fleet.FailingView, int)
	log          zerolog.Logger
}

// newMember returns the member of a kind with the tenants that it serves now.
func newMember(ctx context.Context, js *bus, kind, id string, configured []contextkit.TenantID, models *rollout, traced tracing.Config, log zerolog.Logger) (_ *member, err error) {
	m := &member{js: js, kind: kind, id: id, tenants: rpc.NewTenants(), rollout: models, log: log}
	if m.spans, err = openSpans(ctx, traced, kind, id, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.spans.close(ctx))
		}
	}()
	if m.timeline, err = timeline.New(js); err != nil {
		return nil, err
	}
	if m.spans.Exporter != nil {
		m.spans.bus = js.Conn().ConnectedAddr
		m.timeline.Tell(m.spans.export)
	}
	if kind == kindControl {
		return m, nil // it serves no tenant itself
	}
	if m.assignment, err = fleet.OpenAssignment(ctx, js, kind, id, configured); err != nil {
		return nil, err
	}
	serves, _, err := m.assignment.Now(ctx)
	m.tenants.Replace(serves)
	return m, err
}

// follow updates the served tenants until ctx ends.
func (m *member) follow(ctx context.Context) error {
	if m.assignment == nil {
		<-ctx.Done()
		return nil
	}
	m.assignment.Follow(ctx, func(serves, suspended []contextkit.TenantID) {
		m.tenants.Replace(serves)
		if m.suspend != nil {
			m.suspend(suspended)
		}
	}, m.complain("following the served tenants failed"))
	return nil
}

// followTokens selects the newest version of tokens that all nodes read, until ctx ends.
func (m *member) followTokens(ctx context.Context) error {
	if m.tokens != nil {
		fleet.FollowTokens(ctx, m.js, m.tokens, m.complain("following nodes failed; the version of tokens does not change"))
	}
	return nil
}

// guard checks the journal until ctx ends; a control node reads all of it.
func (m *member) guard(ctx context.Context) error {
	if m.integrity == nil {
		<-ctx.Done()
		return nil
	}
	return m.integrity.Run(ctx, m.kind == kindControl, m.log)
}

// record publishes the node's spans until ctx ends.
func (m *member) record(ctx context.Context) error { return m.timeline.Run(ctx, m.id) }

// server returns the node's server, with spans of its calls and the metrics that all nodes have.
func (m *member) server(listen rpc.Config, ready rpc.Readiness, metrics ...prometheus.Collector) *rpc.Server {
	if m.spans.Exporter != nil {
		listen.Ended = m.spans.call
	}
	server := rpc.NewServer(listen, m.whileStored(ready), m.log)
	server.ShowDegraded(m.degraded)
	server.Metrics.Registerer(listen.Name).MustRegister(slices.Concat(metrics, m.js.collectors(), []prometheus.Collector{m.timeline, m.rollout}, m.spans.metrics())...)
	return server
}

// storedIn lists the streams that a kind of node must be able to append to.
var storedIn = map[string][]string{
	"aggregate": {streams.Events},
	kindRunner: {
		streams.Work, streams.BucketStream(streams.BucketInstances), streams.BucketStream(streams.BucketWorkflows),
		streams.BucketStream(streams.BucketRevisions), streams.BucketStream(streams.BucketLeases),
		streams.BucketStream(streams.BucketCursors), streams.DeadLetters,
	},
}

// changedIn lists the streams that control needs for changes. Without them it stays readable, since operators need it
// then.
var changedIn = []string{
	streams.BucketStream(streams.BucketPlacement), streams.BucketStream(streams.BucketTenants),
	streams.BucketStream(streams.BucketModels), streams.BucketStream(streams.BucketMoves),
}

// whileStored returns the node's readiness: while a stream that it appends to stores nothing, it is not ready, and
// returns the reason.
func (m *member) whileStored(ready rpc.Readiness) rpc.Readiness {
	return func(ctx context.Context, tenant contextkit.TenantID) error {
		if err := m.js.storage.Check(storedIn[m.kind]...); err != nil {
			return err
		}
		return ready(ctx, tenant)
	}
}

// degraded returns the degraded functions of the node while NATS is unavailable, or stores nothing, and while the
// journal is damaged.
func (m *member) degraded(context.Context, contextkit.TenantID) map[string]string {
	parts := map[string]string{}
	if m.integrity != nil {
		maps.Copy(parts, m.integrity.Degraded())
	}
	if outage, away := m.js.monitor.Outage(); away {
		parts["nats"] = outage.String() + ": tenants, models and views are as of that time"
	}
	if m.kind == kindControl {
		if err := m.js.storage.Check(changedIn...); err != nil {
			parts["storage"] = err.Error()
		}
	}
	return parts
}

// complain returns a function that logs failures that are retried.
func (m *member) complain(what string) func(error) {
	return func(err error) { m.log.Warn().Err(err).Dur("again_in_ms", retryWait).Msg(what) }
}

// announce announces the node until ctx ends. lag may be nil.
func (m *member) announce(ctx context.Context, node fleet.Node, server *rpc.Server, lag func() int64) error {
	if m.kind == kindRunner {
		node.Runner = runner.Abilities
	}
	var (
		tenants  []contextkit.TenantID // now.Tenants are their names
		measured time.Time
	)
	return ended(ctx, fleet.Announce(ctx, m.js, node, func(ctx context.Context, now *fleet.Node) error {
		if all := m.tenants.All(); len(all) != len(tenants) || len(all) > 0 && &all[0] != &tenants[0] {
			tenants, now.Tenants = all, make([]string, 0, len(all))
			for _, tenant := range all {
				now.Tenants = append(now.Tenants, tenant.String())
			}
		}
		if time.Since(measured) >= fleet.Heartbeat/2 { // it is called more often than a node announces itself
			measured, now.Load = time.Now(), loadOf(server.Metrics.Load())
			if lag != nil {
				waits := lag()
				now.Lag = &waits
			}
			if m.failingViews != nil {
				now.FailingViews, now.FailingViewCount = m.failingViews()
			}
		}
		m.rollout.announce(now)
		now.Degraded = nil
		if m.integrity != nil {
			now.Degraded = slices.Sorted(maps.Keys(m.integrity.Degraded()))
		}
		now.Refusal = ""
		if storage := (*natshealth.StorageError)(nil); errors.As(m.js.storage.Check(storedIn[m.kind]...), &storage) {
			now.Refusal = storage.What()
		}
		return server.Ready(ctx)
	}))
}

// ended returns err unless ctx has ended, since a canceled operation has not failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}

func loadOf(l rpc.Load) *fleet.Load {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return &fleet.Load{
		Calls: l.Calls, Errors: l.Errors, P50: ms(l.P50), P95: ms(l.P95), P99: ms(l.P99),
		InFlight: l.InFlight, Memory: l.Memory, Goroutines: l.Goroutines,
	}
}
