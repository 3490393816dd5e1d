package tail

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
)

const (
	// GroupSize bounds the subscriptions for which a reader reads in one pass.
	GroupSize = 512
	// maxGroups, maxSolos and maxReads bound the concurrent readers of groups, of single subscriptions with long
	// backlogs, and of [Tail.Read]. A Tail has one consumer for each of them, and one for the tail.
	maxGroups, maxSolos, maxReads = 2, 2, 2
	// maxAsking bounds the subscriptions whose cursors are read concurrently.
	maxAsking = 8
	// overlap is the number of messages before the journal's end at which the tail begins. It corrects a tenant's last
	// sequence that was read from a replica, if the replica is behind by fewer messages.
	overlap = 1024
	// maxStrangers bounds the tenants without a subscription whose newest sequence is stored.
	maxStrangers = 65_536
	// maxOverdue bounds the handlers' overdue calls, which do not count for [Config.Sessions].
	maxOverdue = 4096
)

// Errors that [Handler.Report] receives.
var (
	// ErrReplaced: the journal is not the one that the tail began to read.
	ErrReplaced = errors.New("the journal has been replaced by another")
	// ErrShorter: the journal ends before events that have been read from it.
	ErrShorter = errors.New("the journal ends before events that were read from it")
	// ErrDiverged: the journal has another event at the last sequence that was read.
	ErrDiverged = errors.New("the journal has another event at a sequence than was read there")
)

// Config configures a [Tail]. Zero values select the defaults.
type Config struct {
	// Name is the prefix of the consumers' names, and the label of the metrics.
	Name string
	// Subjects filter the events that the tail receives; nil: all events.
	Subjects []string
	// Sessions bounds the subscriptions that concurrently apply events; 64 by default.
	Sessions int
	// QueueEvents and QueueBytes bound the queue of a subscription; 4096 and 16 MiB by default.
	QueueEvents int
	QueueBytes  int64
	// TotalBytes bounds the events of all subscriptions in memory; 128 MiB by default.
	TotalBytes int64
	// Overdue is the time after which a call to a handler no longer counts for Sessions, so that stuck tenants do not
	// delay others; 5 s by default.
	Overdue time.Duration
	// Log receives failures.
	Log zerolog.Logger
}

// Tail delivers events to subscriptions. Its methods may be called concurrently.
type Tail struct {
	js      jetstream.JetStream
	journal *journal.Journal
	config  Config

	checkEvery, inFlight time.Duration // see the constants

	mu       sync.Mutex
	changed  *sync.Cond                                   // room was released, or a subscription has changed; with mu
	derive   func() (context.Context, context.CancelFunc) // returns a context that ends with Run; nil: it does not run
	over     bool                                         // Run ends
	ended    chan struct{}                                // closed when Run ends
	running  sync.WaitGroup
	tenants  map[string]*tenant
	strange  int     // number of tenants without a subscription
	position uint64  // every message up to this sequence that matches the subjects has been dispatched
	newest   message // the message at position without its data; zero: it has not been read
	unsure   bool    // the tail was interrupted, and must check whether the journal is the same
	epoch    int64   // of the journal when the tail began; 0: it has not
	created  time.Time
	broken   bool          // the journal is another, or has lost events: nothing is delivered
	failure  error         // the reason why the tail cannot be read; nil: it is read
	subjects chan struct{} // closed and replaced when config.Subjects changes

	used     int64 // bytes of events that are queued or being applied, without overdue subscriptions
	toAsk    list  // subscriptions whose cursors must be read
	hastened list  // the subscriptions of toAsk that come first
	ready    list  // subscriptions that have events to apply and wait for a session
	behind   list  // subscriptions that wait for a reader of groups
	bulk     list  // subscriptions that wait for a separate reader
	reads    []*read
	active   map[*Subscription]struct{} // busy subscriptions
	asking   int                        // number of active ones whose cursors are being read, without overdue ones
	sessions int                        // number of active ones with a session, without overdue ones
	overdue  int                        // number of active ones that are overdue

	groups, solos, readers int // numbers of readers of groups, of single subscriptions, and of Read
	counts                 counts
}

// tenant is the tail's state of one tenant.
type tenant struct {
	newest uint64 // sequence of the newest event that the tail has received
	subs   []*Subscription
}

// New returns a tail of a journal, which [Tail.Run] reads.
func New(js jetstream.JetStream, journal *journal.Journal, config Config) *Tail {
	config.Sessions = cmp.Or(config.Sessions, 64)
	config.QueueEvents = cmp.Or(config.QueueEvents, 4096)
	config.QueueBytes = cmp.Or(config.QueueBytes, 16<<20)
	config.TotalBytes = cmp.Or(config.TotalBytes, 128<<20)
	config.Overdue = cmp.Or(config.Overdue, 5*time.Second)
	t := &Tail{
		js:         js,
		journal:    journal,
		config:     config,
		checkEvery: checkEvery,
		inFlight:   inFlight,
		tenants:    map[string]*tenant{},
		active:     map[*Subscription]struct{}{},
		subjects:   make(chan struct{}),
		ended:      make(chan struct{}),
	}
	t.changed = sync.NewCond(&t.mu)
	return t
}

// Run delivers events until ctx ends, and returns when all calls of handlers have returned. It must be called once.
func (t *Tail) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer t.running.Wait()
	defer close(t.ended)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.over = true
		t.changed.Broadcast()
	})
	defer stop()
	t.mu.Lock()
	t.derive = func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }
	t.running.Go(func() { t.sweep(ctx) })
	t.mu.Unlock()
	return t.follow(ctx)
}

// Position returns the sequence up to which the tail has read the journal.
func (t *Tail) Position() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.position
}

// SetSubjects changes [Config.Subjects]. Subscriptions that begin afterwards receive all events of the new subjects
// after their cursors; earlier subscriptions receive the events from about the tail's position on.
func (t *Tail) SetSubjects(subjects []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(t.config.Subjects, subjects) {
		return
	}
	t.config.Subjects = subjects
	t.position -= min(t.position, overlap) // as at the beginning, since a replica may be behind
	close(t.subjects)
	t.subjects = make(chan struct{})
}

// Subscribe starts to deliver a tenant's events after the handler's cursor to the handler, while Run runs. A tenant may
// have several subscriptions. Subscribe does not block.
func (t *Tail) Subscribe(id contextkit.TenantID, handler Handler, options Options) *Subscription {
	s := &Subscription{
		tail:    t,
		tenant:  id,
		handler: handler,
		options: options.withDefaults(),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	entry := t.tenant(id.String())
	if len(entry.subs) == 0 {
		t.strange--
	}
	entry.subs = append(entry.subs, s)
	s.newest = entry.newest
	s.ask()
	return s
}

// tenant returns the entry of a tenant, which it adds if there is none. The caller holds t.mu.
func (t *Tail) tenant(name string) *tenant {
	entry := t.tenants[name]
	if entry != nil {
		return entry
	}
	for other, old := range t.tenants {
		if t.strange < maxStrangers {
			break
		}
		if len(old.subs) == 0 {
			delete(t.tenants, other)
			t.strange--
		}
	}
	entry = &tenant{}
	t.tenants[strings.Clone(name)] = entry // it may be part of a subject
	t.strange++
	return entry
}

// dispatch delivers a message of the tail to the tenant's subscriptions without blocking. It returns false, and does
// not deliver the message, if it was read with other subjects than the current ones: subjects is the channel that is
// closed when they change.
func (t *Tail) dispatch(m message, subjects chan struct{}) bool {
	name := m.tenant()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subjects != subjects {
		return false
	}
	t.position = m.sequence
	t.newest = message{header: m.header, sequence: m.sequence} // its id is needed
	if name == "" {
		return true
	}
	entry := t.tenant(name)
	entry.newest = max(entry.newest, m.sequence)
	for _, s := range entry.subs {
		s.notice(m)
	}
	t.work()
	return true
}

// work starts waiting sessions, readers and reads of cursors, as far as the bounds permit. The caller holds t.mu.
func (t *Tail) work() {
	if t.derive == nil || t.over || t.broken || t.epoch == 0 {
		return
	}
	for t.asking < maxAsking && t.hastened.len()+t.toAsk.len() > 0 {
		next := &t.toAsk
		if t.hastened.len() > 0 {
			next = &t.hastened
		}
		s := next.pop()
		listed := s.listedAsk // otherwise it was hastened, and has been started
		if s.listedAsk, s.hastened = false, false; !listed || s.stopped || s.busy {
			continue
		}
		s.begin(&t.asking)
		t.running.Go(func() { t.askCursors(s) })
	}
	for t.sessions < t.config.Sessions && t.ready.len() > 0 {
		s := t.ready.pop()
		if s.listedReady = false; s.busy || !s.accepting() || len(s.queue) == 0 {
			continue
		}
		s.begin(&t.sessions)
		t.running.Go(func() { t.session(s) })
	}
	if t.unsure {
		return // a reader might continue in another journal than the one that its subscriptions have read
	}
	for t.groups < maxGroups && t.behind.len() > 0 {
		t.startReader(&t.behind, GroupSize, &t.groups)
	}
	for t.solos < maxSolos && t.bulk.len() > 0 {
		t.startReader(&t.bulk, 1, &t.solos)
	}
	for t.readers < maxReads && len(t.reads) > 0 {
		t.startReads()
	}
}

// forget removes a subscription. The caller holds t.mu.
func (t *Tail) forget(s *Subscription) {
	entry := t.tenants[s.tenant.String()]
	entry.subs = slices.DeleteFunc(entry.subs, func(other *Subscription) bool { return other == s })
	if len(entry.subs) == 0 {
		t.strange++
	}
}

// sweep releases overdue subscriptions until ctx ends.
func (t *Tail) sweep(ctx context.Context) {
	ticker := time.NewTicker(t.config.Overdue / 5)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			t.mu.Lock()
			for s := range t.active {
				if !s.overdue && now.Sub(s.since) >= t.config.Overdue && t.overdue < maxOverdue {
					s.release()
				}
			}
			t.work()
			t.mu.Unlock()
		}
	}
}
