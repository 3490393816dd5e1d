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
	// lookEvery is the interval at which a node checks its readiness, and so the longest delay of
	// an announcement that it takes no calls.
	lookEvery = 100 * time.Millisecond
	// goodbyeTimeout bounds how long an ending process waits for its deregistration.
	goodbyeTimeout = 2 * time.Second
)

// Node is the announcement of a process.
type Node struct {
	// ID is unique and stays the same across restarts: letters, digits, '-', '_'
	// and '.'.
	ID string `json:"id"`
	// Kind is what it serves.
	Kind contextkit.Kind `json:"kind"`
	// Endpoint is host:port, as others reach it.
	Endpoint string `json:"endpoint"`
	// Version is the program's.
	Version string `json:"version,omitempty"`
	// Tenants are the tenants that it serves. Where TenantsDigest is set they are stored in the
	// bucket [streams.BucketServed] instead of the announcement: [FollowNodes] fills them in.
	Tenants []string `json:"tenants,omitempty"`
	// TenantCount and TenantsDigest are the number and digest of Tenants.
	TenantCount   int    `json:"tenant_count,omitempty"`
	TenantsDigest string `json:"tenants_digest,omitempty"`
	// Lists is the newest form of tenants that the node reads, see [Lists]. Earlier versions
	// announce 0.
	Lists int `json:"lists,omitempty"`
	// Reflect requests that gateways read its services by gRPC reflection.
	Reflect bool `json:"reflect,omitempty"`
	// Tokens is the newest version of positions and page tokens that the node reads. Nodes
	// that read version 1 alone announce 0.
	Tokens int `json:"tokens,omitempty"`
	// Runner is the newest way in which a runner can take triggers: 1: by cursors. Earlier
	// versions announce 0.
	Runner int `json:"runner,omitempty"`
	// Model is the revision of the model that the node uses; "": it uses none, or is of a version
	// that does not announce it. ModelOrder is its place, see [models.Store.Place].
	Model      string `json:"model,omitempty"`
	ModelOrder uint64 `json:"model_order,omitempty"`
	// ModelPending is the revision of the applied model while the node does not use it, and
	// ModelProblem why.
	ModelPending string `json:"model_pending,omitempty"`
	ModelProblem string `json:"model_problem,omitempty"`
	// Started is when the process began.
	Started time.Time `json:"started"`
	// Beat counts the announcements of the process, so that an older announcement that arrives late
	// is recognized; 0: they are not counted.
	Beat uint64 `json:"beat,omitempty"`
	// Ready reports whether it takes calls, and Reason why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Refusal is the reason that clients receive while the node takes no calls, as a clause such
	// as "the disk of the journal is full"; "": none. It has nothing internal.
	Refusal string `json:"refusal,omitempty"`
	// Degraded lists what works in part at a node that is ready: at a gateway the kinds of nodes
	// of which none takes calls, at other nodes [journal.DegradedJournal].
	Degraded []string `json:"degraded,omitempty"`
	// Load is its load; nil: it is not announced.
	Load *Load `json:"load,omitempty"`
	// Lag is the number of events that it has not processed, of all its tenants; nil: it processes
	// no events.
	Lag *int64 `json:"lag,omitempty"`
	// FailingViews are views at a projection node that cannot apply an event, at most
	// [MaxFailingViews], and FailingViewCount is the number of such views.
	FailingViews     []FailingView `json:"failing_views,omitempty"`
	FailingViewCount int           `json:"failing_view_count,omitempty"`
	// Routing is the revision of the placements that a gateway routes by, and Open
	// the endpoints from which its breakers divert calls, or "endpoint /service/Method" for
	// the calls of one method.
	Routing uint64   `json:"routing,omitempty"`
	Open    []string `json:"open,omitempty"`
	// Traffic are windows of a gateway's calls, see [traffic.Recorder.Announce].
	Traffic []traffic.Window `json:"traffic,omitempty"`
	// Calls are such windows of the calls of another node. Earlier versions would add them to those of gateways.
	Calls []traffic.Window `json:"calls,omitempty"`
	// Details are what operators inspect; nil: the node's version does not announce them.
	Details *Details `json:"details,omitempty"`
	// Behind are the tenants with the most events that the node has not processed, at most [MaxBehind], and BehindCount
	// is the number of tenants with such events; nil: the node does not announce it.
	Behind      []TenantLag `json:"behind,omitempty"`
	BehindCount *int        `json:"behind_count,omitempty"`
}

// Details are facts of a node for operators, each bounded.
type Details struct {
	// Certificate is the certificate that the node's server presents; nil: none.
	Certificate *Certificate `json:"certificate,omitempty"`
	// Settings are settings in use, which have no secrets.
	Settings []Setting `json:"settings,omitempty"`
	// Procedures are the procedures with the most calls of the last Seconds, at most [MaxProcedures].
	Procedures []ProcedureLoad `json:"procedures,omitempty"`
	Seconds    float64         `json:"seconds,omitempty"`
}

// Certificate is a certificate of a node.
type Certificate struct {
	// Subject is its common name, and Issuer that of its issuer.
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`
	// NotAfter is when it expires.
	NotAfter time.Time `json:"not_after"`
}

// Setting is a setting in use.
type Setting struct {
	Name  string `json:"n"`
	Value string `json:"v"`
}

// MaxProcedures bounds the procedures in [Details.Procedures].
const MaxProcedures = 12

// ProcedureLoad is the calls of a procedure at a node. Errors are all calls that have not ended with "ok".
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

// MostBehind returns the tenants with the greatest lag for [Node.Behind], and the number of tenants that have any. It
// may change the order of all.
func MostBehind(all []TenantLag) (behind []TenantLag, count int) {
	all = slices.DeleteFunc(all, func(t TenantLag) bool { return t.Lag <= 0 })
	slices.SortFunc(all, func(a, b TenantLag) int {
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), cmp.Compare(a.Tenant, b.Tenant))
	})
	return slices.Clone(all[:min(len(all), MaxBehind)]), len(all)
}

// MaxFailingViews bounds the views in [Node.FailingViews].
const MaxFailingViews = 10

// FailingView is a view that cannot apply an event.
type FailingView struct {
	// Tenant is the tenant, and View the view's name.
	Tenant string `json:"tenant"`
	View   string `json:"view"`
	// EventID, Sequence and EventType are the event's, and Aggregate its aggregate's, such as
	// "wallet/ada".
	EventID   string `json:"event_id"`
	Sequence  uint64 `json:"sequence"`
	EventType string `json:"event_type"`
	Aggregate string `json:"aggregate"`
	// Rule is the place in the model, Expression the expression that fails, and Reason the reason.
	Rule       string `json:"rule,omitempty"`
	Expression string `json:"expression,omitempty"`
	Reason     string `json:"reason"`
	// Since is when it began to fail at the event; zero: not known.
	Since time.Time `json:"since,omitzero"`
}

// Load is a node's load in the last seconds.
type Load struct {
	// Calls and Errors are completed calls per second; Errors are calls that failed through the node's
	// fault.
	Calls  float64 `json:"calls"`
	Errors float64 `json:"errors"`
	// P50, P95 and P99 are how long calls took, in milliseconds; 0 without calls.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	// InFlight is the calls being answered, streams included.
	InFlight int64 `json:"in_flight"`
	// Memory is the bytes that the process has from the system, and Goroutines how
	// many it runs.
	Memory     uint64 `json:"memory"`
	Goroutines int    `json:"goroutines"`
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// CheckNode returns an error if a node cannot have the kind or the id: both are parts of subjects.
func CheckNode(kind contextkit.Kind, id string) error {
	if _, err := contextkit.ParseKind(kind.String()); err != nil {
		return err
	}
	if !nodeID.MatchString(id) {
		return fmt.Errorf("node id %q: want letters, digits, '-', '_' and '.'", id)
	}
	return nil
}

// NodeKey returns the key in the bucket [streams.BucketNodes] of the announcements of a node. Its first
// token is the kind, so that the permissions of a NATS user can name the one key that a node may
// write.
func NodeKey(kind contextkit.Kind, id string) string { return kind.String() + "." + id }

// Announce announces the node each heartbeat, and immediately when its readiness changes, until ctx
// ends: then it deregisters the node. now returns what changes about the node (with other slices,
// where these change), and why it is not ready. While JetStream is unreachable nothing is
// announced. Its tenants are written when they change, and their number and digest announced; while
// a node of an earlier version is announced, all of them are.
//
// An announcement is stored under [NodeKey], and that of a foreign node published to [ForeignSubject].
// A connection without a NATS user also
// publishes it under the id, the key of the previous release.
func Announce(ctx context.Context, js jetstream.JetStream, node Node, now func(context.Context, *Node) error) error {
	if err := CheckNode(node.Kind, node.ID); err != nil {
		return fmt.Errorf("fleet: %w", err)
	}
	node.Lists = Lists
	served := &servedWriter{js: js, node: node.ID}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var (
		tried       time.Time
		last, wants Node // announced, and attempted
	)
	for {
		node.Ready, node.Reason = true, ""
		if err := now(ctx, &node); err != nil {
			node.Ready, node.Reason = false, err.Error()
		}
		// An announcement that cannot be stored is repeated with the next heartbeat, unless it
		// changes: followers receive it although it is not stored.
		if node.news(last) && node.news(wants) || time.Since(tried) >= Heartbeat {
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
			tried, wants = time.Now(), node
			if putAnnouncement(ctx, js, node, data) == nil {
				last = node
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
			defer cancel()
			deregister(contextkit.PlatformContext(goodbye), js, node)
			return nil
		}
	}
}

// deregister removes a node's announcement. If that is lost, the node's silence has the same effect.
func deregister(ctx context.Context, js jetstream.JetStream, node Node) {
	left := func() *nats.Msg { return &nats.Msg{Header: nats.Header{"KV-Operation": {"DEL"}}} }
	if !node.Kind.Platform() {
		_ = publishForeign(ctx, js, node, left())
		_ = js.Conn().FlushWithContext(ctx) // the process ends
	}
	if storesAnnouncement(js, node.Kind) {
		publishEarlierKey(ctx, js, node.ID, left())
		_ = kv.Delete(ctx, js, streams.BucketNodes, NodeKey(node.Kind, node.ID))
	}
}

// news reports whether a change since last must be announced immediately.
func (n *Node) news(last Node) bool {
	return n.Ready != last.Ready || n.Reason != last.Reason || n.Routing != last.Routing || n.Model != last.Model ||
		n.ModelOrder != last.ModelOrder || n.ModelPending != last.ModelPending || n.ModelProblem != last.ModelProblem ||
		!slices.Equal(n.Degraded, last.Degraded) || !sameTenants(n.Tenants, last.Tenants)
}

// sameTenants compares tenants, at no cost where they are the same slice.
func sameTenants(a, b []string) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// putAnnouncement stores a node's announcement under the platform's context.
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

// publishEarlierKey publishes a change of the announcement under the node's id alone, where the
// nodes of the previous release read it, without waiting for its storage. A NATS user may not
// write this key: it does not bind the id to a kind.
func publishEarlierKey(ctx context.Context, js jetstream.JetStream, id string, msg *nats.Msg) {
	if natsclient.Identified(js.Conn()) {
		return
	}
	msg.Subject = nodesSubject + id
	if contextkit.InjectNATS(ctx, msg.Header) == nil {
		_ = js.Conn().PublishMsg(msg) // the next heartbeat repeats it
	}
}
