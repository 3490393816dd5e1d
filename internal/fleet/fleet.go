package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/traffic"
)

const (
	// Heartbeat is the interval at which a node announces itself.
	Heartbeat = time.Second
	// MissedHeartbeats is the number of missed heartbeats after which a node is silent.
	MissedHeartbeats = 3
	// readinessInterval is the interval at which a node checks its readiness, and so the maximum delay of the
	// announcement that it is not ready.
	readinessInterval = 100 * time.Millisecond
	// deregisterTimeout bounds how long a stopping process waits for its deregistration.
	deregisterTimeout = 2 * time.Second
)

// Node is the announcement of a node.
type Node struct {
	// ID is unique and stays the same across restarts: letters, digits, '-', '_' and '.'.
	ID string `json:"id"`
	// Kind is the kind of the node.
	Kind contextkit.Kind `json:"kind"`
	// Endpoint is the address at which other nodes reach it, host:port.
	Endpoint string `json:"endpoint"`
	// Version is the version of the program.
	Version string `json:"version,omitempty"`
	// Tenants are the tenants that it serves. If TenantsDigest is set, the announcement does not contain them: they
	// are stored in the bucket [streams.BucketServed], and [FollowNodes] fills them in.
	Tenants []string `json:"tenants,omitempty"`
	// TenantCount and TenantsDigest are the number and digest of Tenants.
	TenantCount   int    `json:"tenant_count,omitempty"`
	TenantsDigest string `json:"tenants_digest,omitempty"`
	// Lists is the newest version of stored lists of tenants that the node reads, see [Lists]. Earlier versions
	// announce 0.
	Lists int `json:"lists,omitempty"`
	// Reflect requests that gateways read its services by gRPC reflection.
	Reflect bool `json:"reflect,omitempty"`
	// Tokens is the newest version of positions and page tokens that the node reads. Nodes that only read version 1
	// announce 0.
	Tokens int `json:"tokens,omitempty"`
	// Drains reports, as [Drains], that the node takes no new calls while operators have drained it. Runners, which
	// have their own method for it, and earlier versions announce 0.
	Drains int `json:"drains,omitempty"`
	// Runner is the newest way in which a runner can receive triggers; 1: by cursors. Earlier versions announce 0.
	Runner int `json:"runner,omitempty"`
	// Model is the revision of the model that the node uses; "": it uses none, or its version does not announce it.
	// ModelOrder is the model's place in the history, see [models.Store.Place].
	Model      string `json:"model,omitempty"`
	ModelOrder uint64 `json:"model_order,omitempty"`
	// ModelPending is the revision of the applied model while the node does not use it, and
	// ModelProblem why.
	ModelPending string `json:"model_pending,omitempty"`
	ModelProblem string `json:"model_problem,omitempty"`
	// Started is when the process started.
	Started time.Time `json:"started"`
	// Beat counts the announcements of the process, so that a follower recognizes an older announcement that arrives
	// late; 0: they are not counted.
	Beat uint64 `json:"beat,omitempty"`
	// Ready reports whether it accepts calls, and Reason why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Refusal is the reason that clients receive while the node is not ready, as a clause such as "the disk of the
	// journal is full"; "": none. It must not contain internal details.
	Refusal string `json:"refusal,omitempty"`
	// Drained reports whether the node is not ready because it was drained: it starts no work, and answers reads.
	Drained bool `json:"drained,omitempty"`
	// Degraded lists the degraded parts of a ready node: at a gateway the kinds without a ready node, at other nodes
	// [journal.DegradedJournal].
	Degraded []string `json:"degraded,omitempty"`
	// Load is its load; nil: it does not announce it.
	Load *Load `json:"load,omitempty"`
	// Lag is the number of events of all its tenants that it has not processed; nil: its kind does not process events.
	Lag *int64 `json:"lag,omitempty"`
	// FailingViews are the views of a projection node that cannot apply an event, at most [MaxFailingViews], and
	// FailingViewCount is the number of such views.
	FailingViews     []FailingView `json:"failing_views,omitempty"`
	FailingViewCount int           `json:"failing_view_count,omitempty"`
	// Routing is the revision of the placements by which a gateway routes, and Open its open circuit breakers:
	// "endpoint" for all methods of a node, and "endpoint /service/Method" for one method.
	Routing uint64   `json:"routing,omitempty"`
	Open    []string `json:"open,omitempty"`
	// Traffic are windows of a gateway's calls, see [traffic.Recorder.Announce].
	Traffic []traffic.Window `json:"traffic,omitempty"`
	// Calls are the windows of the calls of a node that is not a gateway. It is a separate field, since control nodes
	// of earlier versions would add them to the calls of gateways.
	Calls []traffic.Window `json:"calls,omitempty"`
	// Details are further facts for operators; nil: the node's version does not announce them.
	Details *Details `json:"details,omitempty"`
	// Behind are the tenants with the greatest lag at the node, at most [MaxBehind], and BehindCount is the number of
	// tenants with a lag; nil: the node does not announce it.
	Behind      []TenantLag `json:"behind,omitempty"`
	BehindCount *int        `json:"behind_count,omitempty"`
}

// Details are facts about a node for operators. Their size is bounded.
type Details struct {
	// Certificate is the server certificate of the node; nil: none.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Settings are the node's settings, without secrets.
	Settings []Setting `json:"settings,omitempty"`
	// Procedures are the procedures with the most calls in the last Seconds, at most [MaxProcedures].
	Procedures []ProcedureLoad `json:"procedures,omitempty"`
	Seconds    float64         `json:"seconds,omitempty"`
}

// Certificate describes a server certificate.
type Certificate struct {
	// Subject and Issuer are common names.
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// NotAfter is when it expires.
	NotAfter time.Time `json:"not_after"`
}

// Setting is a setting of a node.
type Setting struct {
	Name  string `json:"n"`
	Value string `json:"v"`
}

// MaxProcedures bounds the procedures in [Details.Procedures].
const MaxProcedures = 12

// ProcedureLoad counts the calls of a procedure at a node. Errors counts calls that ended with an error of any cause;
// P50, P95 and P99 are quantiles of the duration in milliseconds.
type ProcedureLoad struct {
	Procedure string  `json:"procedure"`
	Calls     int64   `json:"calls"`
	Errors    int64   `json:"errors,omitempty"`
	P50       float64 `json:"p50"`
	P95       float64 `json:"p95"`
	P99       float64 `json:"p99"`
}

// MaxBehind bounds the tenants in [Node.Behind].
const MaxBehind = 16

// TenantLag is the number of events of a tenant that a node has not processed.
type TenantLag struct {
	Tenant string `json:"tenant"`
	Lag    int64  `json:"lag"`
}

// MostBehind returns the tenants with the greatest lag for [Node.Behind], and the number of tenants with a lag. It may
// reorder all.
func MostBehind(all []TenantLag) (behind []TenantLag, count int) {
	all = slices.DeleteFunc(all, func(t TenantLag) bool { return t.Lag <= 0 })
	slices.SortFunc(all, func(a, b TenantLag) int {
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.Tenant, b.Tenant))
	})
	return slices.Clone(all[:min(len(all), MaxBehind)]), len(all)
}

// MaxFailingViews bounds the views in [Node.FailingViews].
const MaxFailingViews = 10

// FailingView describes a view that cannot apply an event.
type FailingView struct {
	// Tenant is the tenant, and View the view's name.
	Tenant string `json:"tenant"`
	View   string `json:"view"`
	// EventID, Sequence and EventType identify the event, and Aggregate its aggregate, such as "wallet/ada".
	EventID   string `json:"event_id"`
	Sequence  uint64 `json:"sequence"`
	EventType string `json:"event_type"`
	Aggregate string `json:"aggregate"`
	// Rule is the rule of the model that fails, Expression its expression, and Reason the reason.
	Rule       string `json:"rule,omitempty"`
	Expression string `json:"expression,omitempty"`
	Reason     string `json:"reason"`
	// Since is when the view began to fail at the event; zero: unknown.
	Since time.Time `json:"since,omitzero"`
}

// Load is a node's load in the last seconds.
type Load struct {
	// Calls and Errors are numbers per second: of completed calls, and of calls that failed through the node's fault.
	Calls  float64 `json:"calls"`
	Errors float64 `json:"errors"`
	// P50, P95 and P99 are quantiles of the latency in milliseconds; 0 without calls.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	// InFlight is the number of calls in flight, including streams.
	InFlight int64 `json:"in_flight"`
	// Memory is the memory that the process has obtained from the operating system in bytes, and Goroutines the number
	// of its goroutines.
	Memory     uint64 `json:"memory"`
	Goroutines int    `json:"goroutines"`
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckNode returns an error if kind or id is invalid. Both are parts of NATS subjects.
func CheckNode(kind contextkit.Kind, id string) error {
	if _, err := contextkit.ParseKind(kind.String()); err != nil {
		return err
	}
	if !nodeID.MatchString(id) {
		return fmt.Errorf("node id %q: want letters, digits, '-', '_' and '.'", id)
	}
	return nil
}

// NodeKey returns the key of a node's announcement in the bucket [streams.BucketNodes]. Its first token is the kind, so
// that the permissions of a NATS user can name the single key that a node may write.
func NodeKey(kind contextkit.Kind, id string) string { return kind.String() + "." + id }

// Announce announces the node at each heartbeat, and immediately when its readiness changes. When ctx ends, it
// deregisters the node and returns. now updates the fields that change (a slice with other elements must be a new
// slice), and returns why the node is not ready. Announcements that cannot be stored are repeated.
//
// The node's tenants are stored separately when they change, and announced by number and digest. While a node of a
// version that does not read the stored list is announced, each announcement contains all tenants.
//
// An announcement is stored under [NodeKey]; the announcement of a foreign node is published to [ForeignSubject].
// A connection without a NATS user also publishes it under the id, which is the key of the previous release.
func Announce(ctx context.Context, js jetstream.JetStream, node Node, now func(context.Context, *Node) error) error {
	if err := CheckNode(node.Kind, node.ID); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	node.Lists = Lists
	served := &servedWriter{js: js, node: node.ID}
	ticker := time.NewTicker(readinessInterval)
	defer ticker.Stop()
	var (
		tried           time.Time
		last, attempted Node // last was announced
	)
	for {
		node.Ready, node.Reason = true, ""
		if err := now(ctx, &node); err != nil {
			node.Ready, node.Reason = false, err.Error()
		}
		// An announcement that could not be stored is repeated at the next heartbeat, or as soon as it changes:
		// followers have received it although it is not stored.
		if node.changed(last) && node.changed(attempted) || time.Since(tried) >= Heartbeat {
			node.Beat++
			announced := node
			if storesAnnouncement(js, node.Kind) && served.allRead(ctx) && served.write(ctx, node.Tenants) {
				announced.Tenants, announced.TenantCount, announced.TenantsDigest = nil, len(
					node.Tenants,
				), served.digest
			}
			data, err := json.Marshal(announced)
			if err != nil {
				return fmt.Errorf("fleet: announce %s: %w", node.ID, err)
			}
			tried, attempted = time.Now(), node
			if putAnnouncement(ctx, js, node, data) == nil {
				last = node
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), deregisterTimeout)
			defer cancel()
			deregister(contextkit.PlatformContext(ending), js, node)
			return nil
		}
	}
}

// deregister removes a node's announcement. If that fails, the node's silence has the same effect later.
func deregister(ctx context.Context, js jetstream.JetStream, node Node) {
	deletion := func() *nats.Msg { return &nats.Msg{Header: nats.Header{"KV-Operation": {"DEL"}}} }
	if !node.Kind.Platform() {
		_ = publishForeign(ctx, js, node, deletion())
		_ = js.Conn().FlushWithContext(ctx) // the process ends
	}
	if storesAnnouncement(js, node.Kind) {
		publishEarlierKey(ctx, js, node.ID, deletion())
		_ = kv.Delete(ctx, js, streams.BucketNodes, NodeKey(node.Kind, node.ID))
	}
}

// changed reports whether the node has changed since last in a way that must be announced immediately.
func (n *Node) changed(last Node) bool {
	return n.Ready != last.Ready || n.Drained != last.Drained || n.Reason != last.Reason ||
		n.Routing != last.Routing || n.Model != last.Model ||
		n.ModelOrder != last.ModelOrder || n.ModelPending != last.ModelPending || n.ModelProblem != last.ModelProblem ||
		!slices.Equal(n.Degraded, last.Degraded) || !sameTenants(n.Tenants, last.Tenants)
}

// sameTenants compares tenants, in constant time if they are the same slice.
func sameTenants(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// putAnnouncement stores a node's announcement, with the platform's context.
func putAnnouncement(ctx context.Context, js jetstream.JetStream, node Node, data []byte) error {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), Heartbeat)
	defer cancel()
	if !node.Kind.Platform() {
		if err := publishForeign(ctx, js, node, &nats.Msg{Header: nats.Header{}, Data: data}); err != nil ||
			!storesAnnouncement(js, node.Kind) {
			return err
		}
	}
	publishEarlierKey(ctx, js, node.ID, &nats.Msg{Header: nats.Header{}, Data: data})
	_, err := kv.Put(ctx, js, streams.BucketNodes, NodeKey(node.Kind, node.ID), data)
	return err
}

// publishEarlierKey publishes the announcement or its deletion under the node's id, where nodes of the previous release
// read it, and does not wait until it is stored. NATS users are not permitted to write this key, since it does not bind
// the id to a kind.
func publishEarlierKey(ctx context.Context, js jetstream.JetStream, id string, msg *nats.Msg) {
	if natsclient.Identified(js.Conn()) {
		return
	}
	msg.Subject = nodesSubject + id
	if contextkit.InjectNATS(ctx, msg.Header) == nil {
		_ = js.Conn().PublishMsg(msg) // the next heartbeat repeats it
	}
}
