package backbone

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/format"
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
	BucketInstances   = "instances"   // tenant.workflow.instance → a workflow instance
	BucketWorkflows   = "workflows"   // the same of earlier versions, whose records expire after 30 days
	BucketSnapshots   = "snapshots"   // states of aggregates, a shortcut to their events
	BucketRunner      = "runner"      // operator decisions that outlive a runner: paused tenants
	BucketNodes       = "nodes"       // node id → what it says of itself, while it does
	BucketPlacement   = "placement"   // kind.tenant → the node that serves it
	BucketTenants     = "tenants"     // tenant → what is known of it beside the configuration
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
	BucketNonEvents   = "nonevents"   // tenant.sequence → an operator's decision that a message of the journal is no event
)

const (
	// attemptTimeout bounds one attempt to make a stream, and attemptPause is between two.
	attemptTimeout, attemptPause = 3 * time.Second, 250 * time.Millisecond
	// dedupeWindow is how long JetStream itself remembers a message id. The
	// journal and the idempotency bucket remember beyond it.
	dedupeWindow = 2 * time.Minute
	// IdempotencyTTL is how long commands' answers are kept.
	IdempotencyTTL = 7 * 24 * time.Hour
	// workflowAge is how long the record of an instance in the bucket "workflows" is stored after
	// its last change.
	workflowAge = 30 * 24 * time.Hour
	// WorkflowTTL is how long the record of a workflow instance is stored after the instance has
	// ended; that of another does not expire.
	WorkflowTTL = 30 * 24 * time.Hour
	// markerTTL removes the deletion marker of an expired value.
	markerTTL = time.Minute
	// nodesTTL is how long a silent node's last word is kept; those who listen give
	// it up long before.
	nodesTTL = time.Minute
	// leasesTTL removes leases that no process is left to take away, and deletion markers.
	leasesTTL = 10 * time.Minute
	// timelineAge is how long hops are stored; how many, see [timelineSlots].
	timelineAge = 24 * time.Hour
	// modelHistory is how many models are remembered (the most that a bucket can).
	modelHistory = 64
	// moveTTL is how long a move is remembered after its last step.
	moveTTL = 30 * 24 * time.Hour
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

// streams returns the definitions of the streams, without where and how often each is stored.
// None has MaxBytes: NATS reserves that much of the disk, and refuses to start or update any
// stream where there is less.
func streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		{
			Name: StreamEvents, Subjects: []string{"events.>"},
			Description:        "the journal: every event of every tenant",
			AllowAtomicPublish: true, AllowDirect: true, Duplicates: dedupeWindow,
			DenyDelete: true, DenyPurge: true, // a fact stays a fact
			MaxMsgSize: MaxMessageBytes, // a server may take larger messages, which no role reads
		},
		{
			Name: StreamAudit, Subjects: []string{"audit.*", "audit.*.*"},
			Description: "denied calls and admin operations", MaxAge: auditAge, AllowDirect: true,
			MaxMsgsPerSubject: auditMessages, MaxMsgSize: auditMessageBytes,
		},
		{
			Name: StreamWork, Subjects: []string{"work.*.*.*", "later.*.*.*", "retry.*.*.*"},
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
			Description: "what calls have caused, hop by hop", AllowDirect: true,
			MaxAge: timelineAge, MaxMsgsPerSubject: timelineMessages, MaxMsgSize: timelineMessageBytes,
			PersistMode: jetstream.AsyncPersistMode, // no call waits for the disk to remember it
		},
	}
}

// BucketStream returns the name of the stream behind a bucket (NATS ADR-8).
func BucketStream(bucket string) string { return "KV_" + bucket }

// buckets returns the definitions of the streams behind the buckets (NATS ADR-8), as streams
// does.
func buckets() []jetstream.StreamConfig {
	bucket := func(name string, history int64, ttl time.Duration) jetstream.StreamConfig {
		config := jetstream.StreamConfig{
			Name: BucketStream(name), Subjects: []string{"$KV." + name + ".>"},
			MaxMsgsPerSubject: history, MaxAge: ttl, Duplicates: dedupeWindow, Discard: jetstream.DiscardNew,
			AllowRollup: true, DenyDelete: true, AllowDirect: true,
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
		bucket(BucketServed, 1, servedTTL),
		bucket(BucketLeases, 1, leasesTTL),
		bucket(BucketCursors, 1, 0),
		bucket(BucketSkips, 1, 0),
		bucket(BucketJournal, 1, 0),
		bucket(BucketNonEvents, 1, 0),
		bucket(BucketPlacement, 1, 0),
		bucket(BucketTenants, 1, 0),
		bucket(BucketModels, modelHistory, 0),
		withTTL(bucket(BucketRevisions, 1, 0)),
		bucket(BucketMoves, 1, moveTTL),
		bucket(BucketNodes, 1, nodesTTL),
	}
}

// withTTL returns a bucket's definition for values that have a TTL of their own.
func withTTL(config jetstream.StreamConfig) jetstream.StreamConfig {
	config.AllowMsgTTL = true
	return config
}

// definitions returns the definitions of all streams, those of buckets included.
func definitions() []jetstream.StreamConfig { return slices.Concat(streams(), buckets()) }

// EnsureStreams creates missing streams and buckets and updates streams that differ from their
// definition, concurrently: it waits for each stream that has no leader. It may be
// called by every node at start.
//
// A failure of TIMELINE, which only records what calls have caused, is not an error: a
// [Timeline] creates the stream when it can. Error: [ErrJournalMissing], unless options have
// [NewJournal].
func EnsureStreams(ctx context.Context, js jetstream.JetStream, replicas Replicas, options ...StreamOption) error {
	if err := checkRestored(ctx, js); err != nil {
		return err
	}
	if err := patiently(ctx, func(ctx context.Context) error { return checkFormats(ctx, js) }); err != nil {
		return fmt.Errorf("backbone: %w", err)
	}
	if err := giveUpReservation(ctx, js); err != nil {
		return err
	}
	var chosen streamOptions
	for _, option := range options {
		option(&chosen)
	}
	replaced, err := ensureJournal(ctx, js, replicas, chosen)
	if err != nil {
		return err
	}
	timeline, cancel := context.WithCancel(ctx)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	recorded := make(chan struct{})
	for _, config := range definitions() {
		config = stored(config, replicas)
		if config.Name == StreamTimeline {
			go func() {
				defer close(recorded)
				_ = patiently(timeline, func(ctx context.Context) error { return ensureStream(ctx, js, config) })
			}()
			continue
		}
		all.Go(func() error {
			if err := patiently(ctx, func(ctx context.Context) error { return ensureStream(ctx, js, config) }); err != nil {
				return fmt.Errorf("backbone: stream %s: %w", config.Name, err)
			}
			return nil
		})
	}
	err = all.Wait()
	if err == nil && replaced {
		if _, err = AcceptLoss(contextkit.PlatformContext(timeline), js, "", "a new journal was asked for at start"); errors.Is(err, ErrNoLoss) {
			err = nil // of the former one nothing was recorded
		}
	}
	if err == nil {
		select {
		case <-recorded:
		case <-time.After(attemptTimeout):
		}
	}
	cancel()
	<-recorded
	return err
}

// errCodeNoStorage is the server's code for a stream that does not fit into its limit, given the
// reservations (MaxBytes) of all streams.
const errCodeNoStorage jetstream.ErrorCode = 10047

// giveUpReservation removes TIMELINE's reservation, which earlier versions made. While it exceeds
// the server's limit, three quarters of the free disk by default, the server refuses to create
// and to update any stream, so that no role would start, and even to remove the reservation:
// TIMELINE is then deleted, and the spans of the last day with it. The only error is that of ctx.
func giveUpReservation(ctx context.Context, js jetstream.JetStream) error {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	stream, err := js.Stream(attempt, StreamTimeline)
	if err != nil {
		return ctx.Err() // the next steps report it
	}
	config := stream.CachedInfo().Config
	if config.MaxBytes <= 0 || appliedLimits(config) != nil { // a version that records limits reserves nothing: it is an operator's
		return nil
	}
	config.MaxBytes = -1
	_, err = js.UpdateStream(attempt, config)
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == errCodeNoStorage {
		_ = js.DeleteStream(attempt, StreamTimeline)
	}
	return ctx.Err()
}

// stored returns a definition with where and how often the stream is stored.
func stored(config jetstream.StreamConfig, replicas Replicas) jetstream.StreamConfig {
	config.Storage, config.Replicas = jetstream.FileStorage, int(replicas)
	if config.PersistMode == jetstream.AsyncPersistMode {
		config.Replicas = 1 // NATS allows no more; a lost server loses its records, and until it is back none is stored
	}
	return config
}

// ensureStream creates a stream, or updates it if it differs from config. Error: a
// [format.NewerError], among others.
func ensureStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	stream, err := js.Stream(ctx, config.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		created := config
		if created.Metadata, err = recorded(nil, format.Record{Format: formatOf(config.Name)}, limitsOf(config)); err != nil {
			return err
		}
		_, err = js.CreateStream(ctx, created)
		if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		stream, err = js.Stream(ctx, config.Name) // another process, of another version, was first
	}
	if err != nil {
		return err
	}
	now := stream.CachedInfo().Config
	next, err := updated(now, config)
	if err != nil || reflect.DeepEqual(now, next) {
		return err // an update needs room on the disk, and the server's limits may refuse it
	}
	_, err = js.UpdateStream(ctx, next)
	if err != nil && ctx.Err() == nil {
		if next.Metadata = now.Metadata; reflect.DeepEqual(now, next) {
			return nil // the stream can be used; the next start records its format
		}
	}
	return err
}

// updated returns a stream's configuration brought up to its definition: missing subjects are
// added, and flags and replicas are raised and never lowered. Limits that an operator has
// set, and everything that the definition does not concern, stay. Of a stream that a newer
// version has changed, only missing flags and subjects are added.
func updated(now, definition jetstream.StreamConfig) (jetstream.StreamConfig, error) {
	record, err := upgrade(now)
	if err != nil {
		return now, err
	}
	next := now
	next.Subjects = withSubjects(definition.Subjects, now.Subjects)
	for flag, set := range map[*bool]bool{
		&next.AllowAtomicPublish: definition.AllowAtomicPublish, &next.AllowDirect: definition.AllowDirect,
		&next.AllowMsgSchedules: definition.AllowMsgSchedules, &next.AllowMsgTTL: definition.AllowMsgTTL, &next.AllowRollup: definition.AllowRollup,
		&next.DenyDelete: definition.DenyDelete, &next.DenyPurge: definition.DenyPurge,
	} {
		*flag = *flag || set
	}
	next.Replicas = max(now.Replicas, definition.Replicas)
	if record.Version > formatOf(now.Name).Version {
		return next, nil
	}
	next.Description, next.Discard = definition.Description, definition.Discard
	want := limitsOf(definition)
	bounds, _ := nextLimits(limitsOf(now), want, appliedLimits(now))
	next.MaxAge, next.MaxBytes, next.MaxMsgs = bounds.MaxAge, bounds.MaxBytes, bounds.MaxMsgs
	next.MaxMsgsPerSubject, next.MaxMsgSize, next.Duplicates = bounds.MaxMsgsPerSubject, int32(bounds.MaxMsgSize), bounds.Duplicates //nolint:gosec // it was an int32
	next.Metadata, err = recorded(now.Metadata, record, want)
	return next, err
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
// stream had to be updated. Of the streams it creates TIMELINE alone, without which processes
// start.
func RestoreStream(ctx context.Context, js jetstream.JetStream, name string) (bool, error) {
	stream, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && name == StreamTimeline {
		for _, config := range streams() {
			if config.Name == name {
				err = ensureStream(ctx, js, stored(config, 1))
			}
		}
		return err == nil, err
	}
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
