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
	// maxGroups, maxSolos and maxReads bound the readers of groups, of single subscriptions
	// with long backlogs, and of [Tail.Read]. With the tail they are the consumers of a Tail.
	maxGroups, maxSolos, maxReads = 2, 2, 2
	// maxAsking bounds the subscriptions whose cursors are concurrently read.
	maxAsking = 8
	// overlap is the number of messages before the journal's end at which the tail begins. If a
	// replica that is behind by less than that answered what a tenant's last event is, the tail
	// corrects it.
	overlap = 1024
	// maxStrangers bounds the tenants without a subscription whose newest event is remembered.
	maxStrangers = 65_536
	// maxOverdue bounds the handlers' calls beyond [Config.Sessions] that do not return.
	maxOverdue = 4096
)

// Errors that [Handler.Report] receives.
var (
	// ErrReplaced: the journal is another than the one that the tail began to read.
	ErrReplaced = errors.New("the journal has been replaced by another")
	// ErrShorter: the journal ends before events that have been read from it.
	ErrShorter = errors.New("the journal ends before events that were read from it")
	// ErrDiverged: the journal has another event where events were read up to.
	ErrDiverged = errors.New("the journal has another event at a sequence than was read there")
)

// Config configures a [Tail]. Zero values select the defaults.
type Config struct {
	// Name is the beginning of the consumers' names and the label of the metrics.
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
	// Overdue is how long a call to a handler may last until another subscription's may run in
	// its place, so that tenants that are stuck hold up no others; 5 s by default.
	Overdue time.Duration
	// Log receives what fails.
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
	strange  int     // tenants without a subscription
	position uint64  // of the tail: every message up to it that matches the subjects has been dispatched
	newest   message // at position, without its data; zero: it has not been read
	unsure   bool    // the tail was interrupted: whether the journal is the same is checked next
	epoch    int64   // of the journal when the tail began; 0: it has not
	created  time.Time
	broken   bool          // the journal is another, or has lost events: nothing is delivered
	failure  error         // why the tail is not read; nil: it is
	subjects chan struct{} // closed and replaced when config.Subjects changes

	used     int64 // bytes of events that are queued or applied, without overdue subscriptions
	toAsk    list  // whose cursors must be read
	hastened list  // those of toAsk that come first
	ready    list  // that have events to apply and wait for a session
	behind   list  // that wait for a reader of groups
	bulk     list  // that wait for a separate reader
	reads    []*read
	active   map[*Subscription]struct{} // that are busy
	asking   int                        // of active, without overdue ones
	sessions int                        // of active, without overdue ones
	overdue  int                        // of active

	groups, solos, readers int // consumers that read for groups, for one subscription, for reads
	counts                 counts
}

// tenant is what the tail knows of one tenant.
type tenant struct {
	newest uint64 // the newest event's sequence that the tail has seen
	subs   []*Subscription
}

// New returns a tail of a journal. It does nothing before [Tail.Run].
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

// Run delivers events until ctx ends, and returns when no handler is being called any more. It
// must be called once.
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

// SetSubjects changes [Config.Subjects]. Subscriptions that begin afterwards have all events of the
// new ones after their cursors; others have those from about the tail's position on.
func (t *Tail) SetSubjects(subjects []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.Equal(t.config.Subjects, subjects) {
		return
	}
	t.config.Subjects = subjects
	t.position -= min(t.position, overlap) // as where it began: a replica may answer late
	close(t.subjects)
	t.subjects = make(chan struct{})
}

// Subscribe begins to deliver a tenant's events to a handler: those after its cursor, while Run
// runs. A tenant may have several subscriptions. It does not wait for anything.
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

// tenant returns the entry of a tenant. t.mu is held.
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

// dispatch gives a message of the tail to the tenant's subscriptions, without waiting. It reports
// false, and leaves the message, if the subjects by which it was read are not the current ones:
// subjects is the channel that is closed when they change.
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

// work starts what waits and may run. t.mu is held.
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
		listed := s.listedAsk // else it came first
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
		return // a reader might continue in another journal than its subscriptions have read
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

// forget removes a subscription. t.mu is held.
func (t *Tail) forget(s *Subscription) {
	entry := t.tenants[s.tenant.String()]
	entry.subs = slices.DeleteFunc(entry.subs, func(other *Subscription) bool { return other == s })
	if len(entry.subs) == 0 {
		t.strange++
	}
}

// sweep releases, until ctx ends, what sessions hold that do not end.
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
