package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gen/runner/admin/v1/adminv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/lease"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/tail"
	"github.com/headgate/headgate/internal/timeline"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// restartWait is the delay before a failed worker is restarted.
const restartWait = time.Second

// Service runs the tenants' workflows and serves RunnerAdmin. Its methods may be called concurrently.
type Service struct {
	adminv1connect.UnimplementedRunnerAdminHandler

	node      string
	tenants   *rpc.Tenants
	models    *model.Registry
	js        jetstream.JetStream
	journal   *journal.Journal
	tail      *tail.Tail
	lease     *lease.Lease
	cursors   *kv.Bucket[cursor]
	flags     *kv.Bucket[string] // cursorsKey only
	decisions jetstream.KeyValue
	instances *instances
	pinned    *revisions
	starts    *starts
	history   *kv.Bucket[models.Document] // of models
	answers   *response.Limiter
	reads     *reads.Limiter
	stored    stored
	failing   failing
	pages     *token.Numbers
	maxDepth  int
	// heldRetries counts attempts that exceeded their tenant's limit of scheduled retries.
	heldRetries atomic.Int64
	log         zerolog.Logger
	commands    Commander
	turns       *turns
	timeline    *timeline.Recorder
	settled     time.Duration // see [settlePeriod]
	// nodesKnown is closed once the announced nodes are known.
	nodesKnown chan struct{}

	rearmEvery time.Duration // see Config.Rearm

	handedBack atomic.Uint64 // triggers handed back, see awaits

	mu       sync.Mutex
	workers  map[contextkit.TenantID]*worker
	drained  bool
	resting  map[contextkit.TenantID]bool // suspended tenants
	paused   map[contextkit.TenantID]bool
	webhooks *webhook.Caller
	decided  map[contextkit.TenantID]uint64  // KV revision of the decision in paused
	active   map[contextkit.TenantID]*active // workers that run or are finishing
	changed  chan struct{}                   // closed and replaced when any of these changes
	// announced are the tenants of each announced runner, sorted, by node; nil: not known yet.
	announced map[string][]string
	// revisions are the model revisions that nodes announce.
	revisions map[string]bool
	// ableSince is the time since which every announced runner supports cursors; zero: not all do.
	ableSince time.Time
	// byEventsSince is the time since which every announced runner supports naming instances by their events; zero:
	// not all do. upgraded is set if earlier versions have left records.
	byEventsSince time.Time
	upgraded      bool
	// cursorsSince is the KV revision of the decision to read triggers by cursors; 0: not decided.
	cursorsSince uint64
	durables     map[string]bool // tenants with a durable consumer of an earlier version
	term         *term           // nil while no lease is held
}

// active is a worker that was started.
type active struct {
	stop context.CancelFunc
	// stopping is set if it starts no more work.
	stopping bool
}

// Config configures the service.
type Config struct {
	// Node is the id of the runner's node. It determines the runner's tenants.
	Node string
	// Lease configures when other runners consider this one dead; zero: the defaults of package lease.
	Lease lease.Config
	// Answers bounds responses in bytes.
	Answers response.Config
	// Tokens selects the version of page tokens that the service issues; nil: the newest.
	Tokens *token.Gate
	// MaxDepth bounds the number of workflows in a chain of causes; 0: 100.
	MaxDepth int
	// Rearm is the minimum interval between two searches for waits whose message is missing; 0: ten minutes, skipping
	// records of the last minute.
	Rearm time.Duration
}

// New returns a runner that sends commands with commands and webhooks as configured by hooks. timeline may be nil.
func New(
	ctx context.Context, config Config, js jetstream.JetStream, documents *model.Registry, tenants *rpc.Tenants,
	commands Commander, hooks webhook.Config, timeline *timeline.Recorder, log zerolog.Logger,
) (*Service, error) {
	webhooks := webhook.New(hooks)
	pinned, err := openRevisions(ctx, js)
	if err != nil {
		return nil, err
	}
	history, err := kv.Open[models.Document](ctx, js, streams.BucketModels)
	if err != nil {
		return nil, err
	}
	decisions, err := js.KeyValue(ctx, streams.BucketRunner)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", streams.BucketRunner, err)
	}
	secret, err := kv.SharedSecret(ctx, js, kv.SecretTokens)
	if err != nil {
		return nil, err
	}
	journal, err := journal.Open(ctx, js)
	if err != nil {
		return nil, err
	}
	cursors, err := kv.Open[cursor](ctx, js, streams.BucketCursors)
	if err != nil {
		return nil, err
	}
	flags, err := kv.Open[string](ctx, js, streams.BucketRunner)
	if err != nil {
		return nil, err
	}
	config.Lease.Group, config.Lease.Node, config.Lease.Log = contextkit.KindRunner.String(), config.Node, log
	held, err := lease.New(ctx, js, config.Lease)
	if err != nil {
		return nil, err
	}
	s := &Service{
		node:       config.Node,
		journal:    journal,
		lease:      held,
		cursors:    cursors,
		flags:      flags,
		rearmEvery: config.Rearm,
		maxDepth:   cmp.Or(config.MaxDepth, defaultMaxDepth),
		answers:    response.NewLimiter(config.Answers),
		reads:      reads.NewLimiter(recordReads),
		pages:      token.NewNumbers(secret, "runner/page", config.Tokens),
		webhooks:   webhooks,
		commands:   commands,
		turns:      newTurns(nodeConcurrency),
		timeline:   timeline,
		tenants:    tenants,
		models:     documents,
		js:         js,
		decisions:  decisions,
		pinned:     pinned,
		history:    history,
		log:        log,
		workers:    map[contextkit.TenantID]*worker{},
		paused:     map[contextkit.TenantID]bool{},
		decided:    map[contextkit.TenantID]uint64{},
		active:     map[contextkit.TenantID]*active{},
		changed:    make(chan struct{}),
		settled:    settlePeriod,
		nodesKnown: make(chan struct{}),
	}
	if s.starts, err = openStarts(ctx, js, journal, history); err != nil {
		return nil, err
	}
	if _, err = s.starts.of(ctx, documents.Current()); err != nil { // from now on, other workflows are new
		return nil, err
	}
	if s.instances, err = openInstances(ctx, js, s.byEvents); err != nil {
		return nil, err
	}
	if s.upgraded, err = hasEarlierRecords(ctx, js); err != nil {
		return nil, err
	}
	s.tail = tail.New(js, journal, tail.Config{Name: "triggers", Subjects: subjectsOf(documents.Current()), Log: log})
	return s, s.loadDecisions(ctx)
}

// Register registers the service's handlers.
func (s *Service) Register(server *connect.Server) {
	adminv1connect.RegisterRunnerAdminHandler(server, s)
}

// Integrity returns the integrity check of the journal. Its Run must run for the lifetime of the service.
func (s *Service) Integrity() *journal.Integrity { return s.journal.Integrity() }

// Run runs the tenants' workflows as requested by Drain, PauseTenant, Reload and their opposites, until ctx ends.
// Then it finishes the work in progress and leaves the rest to other runners.
func (s *Service) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer s.webhooks.Close()
	defer running.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running.Go(func() { s.followDecisions(ctx) })
	running.Go(func() { s.rearm(ctx) })
	running.Go(func() { s.followNodes(ctx) })
	select {
	case <-s.nodesKnown:
	case <-ctx.Done():
		return nil
	}
	able, _ := s.allAble()
	if decided, err := s.decideCursors(ctx, able); err != nil || !decided {
		durables, switched := context.WithCancel(ctx)
		running.Go(func() { s.runDurables(durables, &running) })
		err := s.awaitCursors(ctx)
		switched()
		if err != nil {
			return nil // ctx has ended
		}
	}
	s.runCursors(ctx)
	return nil
}

// runCursors reads triggers by cursors until ctx ends, and then releases the tenants in order.
func (s *Service) runCursors(ctx context.Context) {
	var background sync.WaitGroup
	defer background.Wait()
	detached, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	background.Go(func() { s.retry(detached, "reading the journal's tail failed", s.tail.Run) })
	s.retry(ctx, "listing consumers of earlier versions failed", s.loadDurables)
	background.Go(func() { s.retry(ctx, "deleting consumers of earlier versions failed", s.deleteDurablesLater) })
	s.lease.Run(ctx, func(termCtx context.Context, id string) {
		t := s.newTerm(termCtx, id)
		s.change(func() { s.term = t })
		t.run(ctx)
		s.change(func() { s.term = nil })
	})
}

// retry calls f until it succeeds or ctx ends.
func (s *Service) retry(ctx context.Context, fault string, f func(context.Context) error) {
	for ctx.Err() == nil {
		err := f(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			s.log.Error().Err(err).Msg(fault + ", retrying")
		}
		select {
		case <-ctx.Done():
		case <-time.After(restartWait):
		}
	}
}

// subjectsOf returns the subjects of the events that start a model's workflows.
func subjectsOf(m *model.Model) []string {
	var subjects []string
	for _, workflow := range m.Workflows() {
		if subject := "events.*." + workflow.On.Aggregate + ".*"; !slices.Contains(subjects, subject) {
			subjects = append(subjects, subject)
		}
	}
	if len(subjects) == 0 {
		return []string{"events.*.-.-"} // none
	}
	return subjects
}

// Suspend suspends the work of exactly these tenants, until the next call.
func (s *Service) Suspend(tenants []contextkit.TenantID) {
	resting := map[contextkit.TenantID]bool{}
	for _, tenant := range tenants {
		resting[tenant] = true
	}
	s.change(func() { s.resting = resting })
}

// idle reports whether the node works for no tenant. The caller holds s.mu.
func (s *Service) idle() bool {
	return len(s.active) == 0 && (s.term == nil || s.term.count() == 0)
}

// byDurables returns the tenants whose triggers durable consumers deliver.
func (s *Service) byDurables() []contextkit.TenantID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cursorsSince != 0 {
		return nil
	}
	return s.tenants.All()
}

// notify wakes the callers that wait for a change. The caller holds s.mu.
func (s *Service) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits until condition holds. condition is called with s.mu held.
func (s *Service) until(ctx context.Context, condition func() bool) error {
	for {
		s.mu.Lock()
		holds, changed := condition(), s.changed
		s.mu.Unlock()
		if holds {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ready returns why the node starts no work for the tenant, or for any tenant if tenant is zero.
func (s *Service) Ready(_ context.Context, tenant contextkit.TenantID) error {
	if !s.js.Conn().IsConnected() {
		return errors.New("not connected to NATS")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.drained:
		return errors.New("the node is drained")
	case tenant.IsZero():
		return nil
	case !s.tenants.Serves(tenant):
		return s.tenants.Ready(tenant)
	case s.resting[tenant]:
		return fmt.Errorf("tenant %s is suspended", tenant)
	case s.paused[tenant]:
		return fmt.Errorf("tenant %s is paused", tenant)
	}
	return nil
}

// Drained reports whether the node was drained: it starts no work, and answers reads.
func (s *Service) Drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drained
}

// Lag returns the known number of unread events and of pieces of work of the node's tenants, including running ones,
// and the tenants with the most, see [fleet.MostBehind].
func (s *Service) Lag() (lag int64, behind []fleet.TenantLag, count int) {
	lags := map[contextkit.TenantID]int64{}
	s.mu.Lock()
	t := s.term
	for tenant := range s.active {
		lags[tenant] += s.workerOf(tenant).waiting.Load()
	}
	s.mu.Unlock()
	if t != nil {
		t.lag(lags)
	}
	all := make([]fleet.TenantLag, 0, len(lags))
	for tenant, of := range lags {
		lag += of
		all = append(all, fleet.TenantLag{Tenant: tenant.String(), Lag: of})
	}
	behind, count = fleet.MostBehind(all)
	return lag, behind, count
}
