package node

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/internal/tracing"
)

// retryWait is the wait before something is followed again after a failure, as logged.
const retryWait = time.Second

// member is a node as a part of the platform: its identity, and the tenants that it serves, which operators change
// while it runs.
type member struct {
	js         *bus
	kind       contextkit.Kind
	id         string
	tenants    *rpc.Tenants
	timeline   *timeline.Recorder
	spans      spans
	assignment *fleet.Assignment // nil: it serves no tenant itself
	drained    *fleet.Drained    // nil: runners are drained by RunnerAdmin
	// tokens selects the version of tokens that the node issues; nil: the newest, for nodes that are all in one
	// process.
	tokens  *token.Gate
	rollout *rollout
	log     zerolog.Logger
}

// memberConfig configures a member.
type memberConfig struct {
	kind contextkit.Kind
	id   string
	// tenants are those of the settings.
	tenants []contextkit.TenantID
	rollout *rollout
	tracing tracing.Config
	tokens  *token.Gate
}

// newMember returns a member with the tenants that it serves now.
func newMember(ctx context.Context, js *bus, c memberConfig, log zerolog.Logger) (_ *member, err error) {
	spans, err := openSpans(ctx, js, c.tracing, c.kind, c.id, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, spans.close(ctx))
		}
	}()
	recorder, err := timeline.NewObserved(js, spans.observer())
	if err != nil {
		return nil, err
	}
	tenants, assignment := rpc.NewTenants(), (*fleet.Assignment)(nil)
	if c.kind != contextkit.KindControl {
		if assignment, err = fleet.OpenAssignment(ctx, js, c.kind, c.id, c.tenants); err != nil {
			return nil, err
		}
		serves, _, err := assignment.Now(ctx)
		if err != nil {
			return nil, err
		}
		tenants.Replace(serves)
	}
	var drained *fleet.Drained
	if c.kind != contextkit.KindRunner {
		if drained, err = fleet.OpenDrained(ctx, js, c.kind, c.id); err != nil {
			return nil, err
		}
	}
	return &member{
		js:         js,
		kind:       c.kind,
		id:         c.id,
		tenants:    tenants,
		timeline:   recorder,
		spans:      spans,
		assignment: assignment,
		drained:    drained,
		tokens:     c.tokens,
		rollout:    c.rollout,
		log:        log,
	}, nil
}

// follow updates the served tenants until ctx ends. suspend is called with the suspended tenants; nil: suspension does
// not concern the node.
func (m *member) follow(ctx context.Context, suspend func([]contextkit.TenantID)) error {
	if m.assignment == nil {
		<-ctx.Done()
		return nil
	}
	m.assignment.Follow(ctx, func(serves, suspended []contextkit.TenantID) {
		m.tenants.Replace(serves)
		if suspend != nil {
			suspend(suspended)
		}
	}, m.complain("following the served tenants failed"))
	return nil
}

// followDrained updates whether operators have drained the node, until ctx ends.
func (m *member) followDrained(ctx context.Context) error {
	if m.drained == nil {
		<-ctx.Done()
		return nil
	}
	m.drained.Follow(ctx, m.complain("following the drained nodes failed"))
	return nil
}

// followTokens selects the newest version of tokens that all nodes read, until ctx ends.
func (m *member) followTokens(ctx context.Context) error {
	if m.tokens != nil {
		fleet.FollowTokens(ctx, m.js, m.tokens,
			m.complain("following nodes failed; the version of tokens does not change"))
	}
	return nil
}

// record publishes the node's spans until ctx ends.
func (m *member) record(ctx context.Context) error { return m.timeline.Run(ctx, m.id) }

// storedIn lists the streams that a kind of node must be able to append to.
var storedIn = map[contextkit.Kind][]string{
	contextkit.KindAggregate: {streams.Events},
	contextkit.KindRunner: {
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

// whileAccepting returns the node's readiness: while operators have drained it, or a stream that it appends to stores
// nothing, it is not ready, and returns the reason. Calls that arrive nevertheless are answered.
func (m *member) whileAccepting(ready rpc.Readiness) rpc.Readiness {
	return func(ctx context.Context, tenant contextkit.TenantID) error {
		if m.drained != nil {
			if err := m.drained.Check(); err != nil {
				return err
			}
		}
		if err := m.js.storage.Check(storedIn[m.kind]...); err != nil {
			return err
		}
		return ready(ctx, tenant)
	}
}

// degraded returns the degraded functions of a node while NATS is unavailable, stores nothing or refuses a subject, and
// while the journal is damaged.
func (m *member) degraded(integrity *journal.Integrity) rpc.Degraded {
	return func(context.Context, contextkit.TenantID) map[string]string {
		parts := maps.Clone(integrity.Degraded())
		if parts == nil {
			parts = map[string]string{}
		}
		if outage, away := m.js.monitor.Outage(); away {
			parts["nats"] = outage.String() + ": tenants, models and views are as of that time"
		}
		refused(m.js, parts)
		if m.kind == contextkit.KindControl {
			if err := m.js.storage.Check(changedIn...); err != nil {
				parts["storage"] = err.Error()
			}
		}
		return parts
	}
}

// refused adds a part while NATS refuses the process's user a subject that it needs.
func refused(js *bus, parts map[string]string) {
	if js.monitor.Refused() {
		parts["permission"] = "NATS refuses the process's user a subject, which the log names: make the servers' " +
			"configuration again with 'headgate nats-config' of this version"
	}
}

// complain returns a function that logs failures that are retried.
func (m *member) complain(what string) func(error) {
	return func(err error) { m.log.Warn().Err(err).Dur("again_in_ms", retryWait).Msg(what) }
}

// ended returns err unless ctx has ended, since a canceled operation has not failed.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // see above
	}
	return err
}

func loadOf(l rpc.Load) *fleet.Load {
	return &fleet.Load{
		Calls:      l.Calls,
		Errors:     l.Errors,
		P50:        milliseconds(l.P50),
		P95:        milliseconds(l.P95),
		P99:        milliseconds(l.P99),
		InFlight:   l.InFlight,
		Memory:     l.Memory,
		Goroutines: l.Goroutines,
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
