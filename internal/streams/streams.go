package streams

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
)

// Streams.
const (
	Events      = "EVENTS"
	Audit       = "AUDIT"
	Work        = "WORK"
	DeadLetters = "DEADLETTERS"
	Timeline    = "TIMELINE"
)

// Key-value buckets.
const (
	// tenant.type.id.first-count → fingerprints and answers of decided commands, by key; or which records to look in
	BucketIdempotency = "idempotency"
	BucketInstances   = "instances"   // tenant.workflow.instance → a workflow instance
	BucketWorkflows   = "workflows"   // the same of earlier versions, whose records expire after 30 days
	BucketSnapshots   = "snapshots"   // states of aggregates, a shortcut to their events
	BucketRunner      = "runner"      // operator decisions that outlive a runner: paused tenants
	BucketNodes       = "nodes"       // kind.id → a node's announcement, while it announces itself
	BucketPlacement   = "placement"   // kind.tenant → the node that serves it
	BucketTenants     = "tenants"     // tenant → its standing and quotas
	BucketModels      = "models"      // the platform's model and those before it
	BucketRevisions   = "revisions"   // model revision → the document, while workflow instances are pinned to it
	BucketMoves       = "rebalances"  // id → a move of a tenant from node to node
	BucketUsage       = "usage"       // what tenants store, counted by aggregate nodes
	BucketSecrets     = "secrets"     // keys that nodes share, made by whichever starts first
	BucketServed      = "served"      // part.node → some of the tenants that the node serves
	BucketLeases      = "leases"      // group.lease → a live process; see package lease
	BucketCursors     = "cursors"     // tenant → how far the tenant's triggers are taken, and by which runner
	BucketSkips       = "skips"       // tenant.view definition.event → a decision to make the view without the event
	BucketJournal     = "journal"     // the record of the journal outside its stream, to notice losses
	BucketDrains      = "drains"      // kind.id → an operator's decision that a node takes no new calls
	BucketRevocations = "revocations" // id → a revocation of tokens, sealed; see package credentials
	BucketAPIKeys     = "apikeys"     // id → an API key that control has issued, sealed
	// tenant.sequence → an operator's decision that a message of the journal is no event
	BucketNonEvents = "nonevents"
)

const (

	// dedupeWindow is the time for which JetStream deduplicates message ids. After it, the journal
	// and the idempotency bucket deduplicate commands.
	dedupeWindow = 2 * time.Minute
	// IdempotencyTTL is how long commands' answers are stored.
	IdempotencyTTL = 7 * 24 * time.Hour
	// workflowAge is how long the record of an instance in the bucket "workflows" is stored after
	// its last change.
	workflowAge = 30 * 24 * time.Hour
	// WorkflowTTL is how long the record of a workflow instance is stored after the instance has
	// ended; the record of an unfinished instance does not expire.
	WorkflowTTL = 30 * 24 * time.Hour
	// MarkerTTL removes the deletion marker of an expired value.
	MarkerTTL = time.Minute
	// nodesTTL is how long a silent node's last announcement is stored; it exceeds the time after
	// which followers treat the node as silent.
	nodesTTL = time.Minute
	// ServedTTL is how long the tenants of a lost node are stored; other nodes write theirs again
	// earlier.
	ServedTTL = time.Hour
	// leasesTTL removes leases that no process deletes, and deletion markers.
	leasesTTL = 10 * time.Minute
	// timelineAge is how long spans are stored; package timeline bounds their number.
	timelineAge = 24 * time.Hour
	// modelHistory is the number of stored models (the maximum of a bucket).
	modelHistory = 64
	// moveTTL is how long a move is stored after its last step.
	moveTTL = 30 * 24 * time.Hour
	// auditAge is how long audit records are stored, and auditMessages how many per
	// subject, the newest: an account's records of one class.
	auditAge      = 90 * 24 * time.Hour
	auditMessages = 50_000
	// maxRevocations and maxAPIKeys bound the keys of their buckets. They are above the bounds that control
	// keeps to (package credentials), since several control nodes may add keys at the same time.
	maxRevocations = 10_000
	maxAPIKeys     = 5_500
	// maxDrains bounds the drained nodes. It is above the bound of control, as the others.
	maxDrains = 1_100
	// credentialBytes bounds a record of these buckets with its headers.
	credentialBytes = 32 << 10
)

// EventSubject is the subject of an aggregate's events.
func EventSubject(tenant contextkit.TenantID, aggregateType, aggregateID string) string {
	return "events." + tenant.String() + "." + aggregateType + "." + aggregateID
}

// TenantEvents matches all events of a tenant.
func TenantEvents(tenant contextkit.TenantID) string {
	return "events." + tenant.String() + ".>"
}

// DeadLetterSubject is the subject of a tenant's dead letters.
func DeadLetterSubject(tenant contextkit.TenantID) string {
	return "deadletters." + tenant.String()
}

// LaterSubject is the subject of what a workflow's instance shall do later, and
// WorkSubject the one that it arrives on when it is time.
func LaterSubject(tenant contextkit.TenantID, workflow, instance string) string {
	return "later." + tenant.String() + "." + workflow + "." + instance
}

// RetrySubject is the subject of the next attempt at a workflow's instance that has failed: as
// [LaterSubject], a schedule whose message arrives on WorkSubject. "*" matches any name.
func RetrySubject(tenant contextkit.TenantID, workflow, instance string) string {
	return "retry." + tenant.String() + "." + workflow + "." + instance
}

// WorkSubject is described at [LaterSubject]; "*" matches any name.
func WorkSubject(tenant contextkit.TenantID, workflow, instance string) string {
	return "work." + tenant.String() + "." + workflow + "." + instance
}

// Replicas is how many copies a stream has: 1 on a single node, 3 in a cluster.
type Replicas int

// Streams returns the definitions of the streams, without where and how often each is stored.
// None has MaxBytes: NATS reserves that much of the disk, and refuses to start or update any
// stream where there is less.
func Streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: Events, Subjects: []string{"events.>"},
			Description:        "the journal: every event of every tenant",
			AllowAtomicPublish: true, AllowDirect: true, Duplicates: dedupeWindow,
			DenyDelete: true, DenyPurge: true, // a fact stays a fact
			MaxMsgSize: MaxMessageBytes, // a server may take larger messages, which no role reads
		},
		{
			Name: Audit, Subjects: []string{"audit.*", "audit.*.*"},
			Description: "denied calls and admin operations", MaxAge: auditAge, AllowDirect: true,
			DenyDelete: true, DenyPurge: true, // a record stays until it expires
			MaxMsgsPerSubject: auditMessages, MaxMsgSize: AuditMessageBytes,
		},
		{
			Name: Work, Subjects: []string{"work.*.*.*", "later.*.*.*", "retry.*.*.*"},
			Description:       "work to do later, and work that is due",
			AllowMsgSchedules: true, AllowMsgTTL: true, AllowDirect: true,
			Retention: jetstream.WorkQueuePolicy, // a message is deleted when it is acknowledged
		},
		{
			Name: DeadLetters, Subjects: []string{"deadletters.*"},
			Description: "work that could not be done, with its cause", AllowDirect: true,
		},
		{
			Name: Timeline, Subjects: []string{"timeline.*.*", "timeline.*.*.*.*"},
			Description: "what calls have caused, hop by hop", AllowDirect: true,
			MaxAge: timelineAge, MaxMsgsPerSubject: TimelineMessages, MaxMsgSize: TimelineMessageBytes,
			PersistMode: jetstream.AsyncPersistMode, // no call waits for the disk
		},
	}
}

// BucketStream returns the name of the stream behind a bucket (NATS ADR-8).
func BucketStream(bucket string) string { return "KV_" + bucket }

// Buckets returns the definitions of the streams behind the buckets (NATS ADR-8), as streams
// does.
func Buckets() []jetstream.StreamConfig {
	bucket := func(name string, history int64, ttl time.Duration) jetstream.StreamConfig {
		config := jetstream.StreamConfig{
			Name:              BucketStream(name),
			Subjects:          []string{"$KV." + name + ".>"},
			MaxMsgsPerSubject: history,
			MaxAge:            ttl,
			Duplicates:        dedupeWindow,
			Discard:           jetstream.DiscardNew,
			DenyDelete:        true,
			AllowDirect:       true, // no rollups: with one, who may write a key removes all others
		}
		if ttl > 0 {
			config.Duplicates = min(dedupeWindow, ttl)
		}
		return config
	}
	return []jetstream.StreamConfig{
		bucket(BucketIdempotency, 1, IdempotencyTTL),
		withTTL(bucket(BucketInstances, 1, 0)),
		bucket(BucketWorkflows, 1, workflowAge),
		bucket(BucketRunner, 1, 0),
		bucket(BucketSnapshots, 1, 0),
		bucket(BucketSecrets, 1, 0),
		bucket(BucketUsage, 1, 0),
		bucket(BucketServed, 1, ServedTTL),
		bucket(BucketLeases, 1, leasesTTL),
		bucket(BucketCursors, 1, 0),
		bucket(BucketSkips, 1, 0),
		bucket(BucketJournal, 1, 0),
		bucket(BucketNonEvents, 1, 0),
		bounded(withTTL(bucket(BucketRevocations, 1, 0)), maxRevocations),
		bounded(withTTL(bucket(BucketAPIKeys, 1, 0)), maxAPIKeys),
		bucket(BucketPlacement, 1, 0),
		bounded(withTTL(bucket(BucketDrains, 1, 0)), maxDrains),
		bucket(BucketTenants, 1, 0),
		bucket(BucketModels, modelHistory, 0),
		withTTL(bucket(BucketRevisions, 1, 0)),
		bucket(BucketMoves, 1, moveTTL),
		bucket(BucketNodes, 1, nodesTTL),
	}
}

// withTTL returns a bucket's definition for values that have their own TTL.
func withTTL(config jetstream.StreamConfig) jetstream.StreamConfig {
	config.AllowMsgTTL = true
	return config
}

// bounded returns a bucket's definition for a number of keys at most, and values of at most
// credentialBytes. Beyond it NATS rejects new keys; it never removes a stored value for another one.
func bounded(config jetstream.StreamConfig, keys int64) jetstream.StreamConfig {
	config.MaxMsgs, config.MaxMsgSize = keys, credentialBytes
	return config
}

// Definitions returns the definitions of all streams, those of buckets included.
func Definitions() []jetstream.StreamConfig { return slices.Concat(Streams(), Buckets()) }

// AuditMessageBytes bounds a message of the audit stream: a record that is
// [auditlog.Record.Bounded], as JSON, and the headers of the transport contract.
const AuditMessageBytes = 6 << 10

// MaxMessageBytes bounds a message's payload and headers. It is above the
// edge's request bound, so that every accepted request can be stored.
const MaxMessageBytes = 4 << 20

// Names returns the names of the platform's streams, those of buckets included.
func Names() []string {
	var names []string
	for _, config := range slices.Concat(Streams(), Buckets()) {
		names = append(names, config.Name)
	}
	return names
}

// RunnerConsumer is the name of the durable consumer of a tenant's trigger events.
func RunnerConsumer(tenant string) string { return "runner-" + tenant }

// TimelineMessages bounds the spans that TIMELINE stores per correlation id.
const TimelineMessages = 512

// TimelineMessageBytes bounds a message: a span as JSON, and the headers of the
// transport contract.
const TimelineMessageBytes = 5 << 10
