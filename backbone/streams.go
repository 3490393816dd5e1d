package backbone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// Streams.
const (
	StreamEvents      = "EVENTS"
	StreamAudit       = "AUDIT"
	StreamWork        = "WORK"
	StreamDeadLetters = "DEADLETTERS"
	StreamTimeline    = "TIMELINE"
)

// Key-value buckets.
const (
	BucketIdempotency = "idempotency" // tenant.type.id.first-count → fingerprints and answers of decided commands, by key; or which records to look in
	BucketWorkflows   = "workflows"   // tenant.workflow.instance → a workflow instance
	BucketSnapshots   = "snapshots"   // states of aggregates, a shortcut to their events
	BucketRunner      = "runner"      // operator decisions that outlive a runner: paused tenants
	BucketNodes       = "nodes"       // node id → what it says of itself, while it does
	BucketPlacement   = "placement"   // kind.tenant → the node that serves it
	BucketTenants     = "tenants"     // tenant → what is known of it beside the configuration
	BucketModels      = "models"      // the platform's model and those before it
	BucketRebalances  = "rebalances"  // id → a move of a tenant from node to node
	BucketSecrets     = "secrets"     // keys that nodes share, made by whichever starts first
)

const (
	// attemptTimeout bounds one attempt to make a stream, and attemptPause is between two.
	attemptTimeout, attemptPause = 3 * time.Second, 250 * time.Millisecond
	// dedupeWindow is how long JetStream itself remembers a message id. The
	// journal and the idempotency bucket remember beyond it.
	dedupeWindow = 2 * time.Minute
	// IdempotencyTTL is how long commands' answers are kept.
	IdempotencyTTL = 7 * 24 * time.Hour
	// workflowTTL is how long an instance is kept after its last change.
	workflowTTL = 30 * 24 * time.Hour
	// nodesTTL is how long a silent node's last word is kept; those who listen give
	// it up long before.
	nodesTTL = time.Minute
	// timelineAge is how long hops are stored; how many, see [timelineSlots].
	timelineAge = 24 * time.Hour
	// modelHistory is how many models are remembered (the most that a bucket can).
	modelHistory = 64
	// rebalanceTTL is how long a move is remembered after its last step.
	rebalanceTTL = 30 * 24 * time.Hour
	// auditAge is how long audit records are stored, and auditMessages how many per
	// subject, the newest: an account's records of one class.
	auditAge      = 90 * 24 * time.Hour
	auditMessages = 50_000
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

// WorkSubject is described at [LaterSubject]; "*" matches any name.
func WorkSubject(tenant contextkit.TenantID, workflow, instance string) string {
	return "work." + tenant.String() + "." + workflow + "." + instance
}

// Replicas is how many copies a stream has: 1 on a single node, 3 in a cluster.
type Replicas int

// streams returns the definitions of the streams, without where and how often each is stored.
func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: StreamEvents, Subjects: []string{"events.>"},
			Description:        "the journal: every event of every tenant",
			AllowAtomicPublish: true, AllowDirect: true, Duplicates: dedupeWindow,
			DenyDelete: true, DenyPurge: true, // a fact stays a fact
		},
		{
			Name: StreamAudit, Subjects: []string{"audit.*", "audit.*.*"},
			Description: "denied calls and admin operations", MaxAge: auditAge, AllowDirect: true,
			MaxMsgsPerSubject: auditMessages, MaxMsgSize: auditMessageBytes, // no MaxBytes, which NATS reserves
		},
		{
			Name: StreamWork, Subjects: []string{"work.*.*.*", "later.*.*.*"},
			Description:       "work to do later, and work that is due",
			AllowMsgSchedules: true, AllowMsgTTL: true, AllowDirect: true,
			Retention: jetstream.WorkQueuePolicy, // what is done is gone
		},
		{
			Name: StreamDeadLetters, Subjects: []string{"deadletters.*"},
			Description: "work that could not be done, with its cause", AllowDirect: true,
		},
		{
			Name: StreamTimeline, Subjects: []string{"timeline.*.*", "timeline.*.*.*.*"},
			Description: "what calls have caused, hop by hop", AllowDirect: true, Discard: jetstream.DiscardOld,
			MaxAge: timelineAge, MaxMsgsPerSubject: timelineMessages, MaxMsgSize: timelineMessageBytes, // no MaxBytes, which NATS reserves
			PersistMode: jetstream.AsyncPersistMode, // no call waits for the disk to remember it
		},
	}
}

// EnsureStreams creates the streams and buckets that are missing and updates
// the others to their definition, concurrently: it waits for each stream that has no leader.
// It may be called by every node at start.
func EnsureStreams(ctx context.Context, js jetstream.JetStream, replicas Replicas) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, config := range streams() {
		config.Storage = jetstream.FileStorage
		config.Replicas = int(replicas)
		if config.PersistMode == jetstream.AsyncPersistMode {
			config.Replicas = 1 // what NATS allows; a lost server loses what it remembered, and until it is back nothing is
		}
		all.Go(func() error {
			if err := patiently(ctx, func(ctx context.Context) error {
				return ensureStream(ctx, js, config)
			}); err != nil && (config.Replicas == int(replicas) || !offline(err)) {
				return fmt.Errorf("backbone: stream %s: %w", config.Name, err)
			}
			return nil
		})
	}
	buckets := []jetstream.KeyValueConfig{
		{Bucket: BucketIdempotency, TTL: IdempotencyTTL},
		{Bucket: BucketWorkflows, TTL: workflowTTL},
		{Bucket: BucketRunner},
		{Bucket: BucketSnapshots, History: 1},
		{Bucket: BucketSecrets},
		{Bucket: BucketPlacement},
		{Bucket: BucketTenants},
		{Bucket: BucketModels, History: modelHistory},
		{Bucket: BucketRebalances, TTL: rebalanceTTL},
		{Bucket: BucketNodes, TTL: nodesTTL},
	}
	for _, config := range buckets {
		config.Storage = jetstream.FileStorage
		config.Replicas = int(replicas)
		all.Go(func() error {
			if err := patiently(ctx, func(ctx context.Context) error {
				_, err := js.CreateOrUpdateKeyValue(ctx, config)
				return err
			}); err != nil {
				return fmt.Errorf("backbone: bucket %s: %w", config.Bucket, err)
			}
			return nil
		})
	}
	return all.Wait()
}

// ensureStream creates a stream, or updates it to config. Subjects of a later version, and flags
// that JetStream cannot unset and a later version may have set, stay set.
func ensureStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	switch stream, err := js.Stream(ctx, config.Name); {
	case err == nil:
		now := stream.CachedInfo().Config
		config.Subjects = withSubjects(config.Subjects, now.Subjects)
		config.DenyDelete, config.DenyPurge = config.DenyDelete || now.DenyDelete, config.DenyPurge || now.DenyPurge
		config.AllowMsgTTL, config.AllowMsgSchedules = config.AllowMsgTTL || now.AllowMsgTTL, config.AllowMsgSchedules || now.AllowMsgSchedules
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	}
	_, err := js.CreateOrUpdateStream(ctx, config)
	return err
}

// withSubjects returns subjects and those of further that none of them is.
func withSubjects(subjects, further []string) []string {
	all := slices.Clone(subjects)
	for _, subject := range further {
		if !slices.Contains(all, subject) {
			all = append(all, subject)
		}
	}
	return all
}

// RestoreStream updates a stream to its definition if it lacks one of the definition's
// subjects, because a process of an earlier version has started since. It is for when a
// publish to the stream fails with [jetstream.ErrNoStreamResponse], and reports whether the
// stream had to be updated. It does not create a stream.
func RestoreStream(ctx context.Context, js jetstream.JetStream, name string) (bool, error) {
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return false, fmt.Errorf("backbone: stream %s: %w", name, err)
	}
	now := stream.CachedInfo().Config
	for _, config := range streams() {
		if config.Name != name || len(withSubjects(now.Subjects, config.Subjects)) == len(now.Subjects) {
			continue
		}
		config.Storage, config.Replicas = now.Storage, now.Replicas
		if err := ensureStream(ctx, js, config); err != nil {
			return false, fmt.Errorf("backbone: stream %s: %w", name, err)
		}
		return true, nil
	}
	return false, nil
}

// offline reports whether the only server that has a stream is away: what can do without
// must not wait for it.
func offline(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == errCodeStreamOffline
}

// errCodeStreamOffline is the server's code for a stream none of whose servers is there.
const errCodeStreamOffline jetstream.ErrorCode = 10118

// patiently does what may be done again until it is done, ctx ends, or it fails for
// another reason than that servers have just started: those of a cluster answer nothing
// before they have found each other, and forget what they were asked.
func patiently(ctx context.Context, do func(ctx context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := do(attempt)
		cancel()
		var api *jetstream.APIError
		again := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.As(err, &api) && api.Code == http.StatusServiceUnavailable
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(attemptPause):
		case <-ctx.Done():
			return err
		}
	}
}
