// Package lease determines which processes of a group are alive, so that one process at a time can own a piece of work
// (leader election per piece of work).
//
// Each process holds one lease: a key in the bucket [streams.BucketLeases], which it rewrites every second by compare
// and set. A process that does not rewrite its lease within [Config.Lost] counts as dead: another process deletes the
// key at the last revision that it has read, so that the owner can no longer rewrite it. A process that was suspended
// therefore detects the loss before it uses the lease again.
//
// The package guarantees that a deleted lease is never held again and, as long as clocks run at the same rate, that the
// owner's [Lease.Valid] is false before another process may delete its lease. Writes of an owner to other records must
// be fenced there: by compare and set on a record that contains the lease's id.
//
// Source: C. Gray, D. Cheriton: Leases, SOSP 1989.
package lease

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Config configures a lease. The zero value of each duration is its default.
type Config struct {
	// Group is the kind of the processes that compete: letters and digits.
	Group string
	// Node is the id of the process's node, which stays the same across restarts.
	Node string
	// Every is the time between two renewals; default 1 s.
	Every time.Duration
	// Lost is the time without a renewal after which other processes delete the lease; default 5 s. After half of this
	// time the owner treats its lease as invalid.
	Lost time.Duration
	// Log receives faults.
	Log zerolog.Logger
}

// Member is a live process of the group.
type Member struct {
	// ID is the id of its lease. Each start and each loss of the lease changes it.
	ID string `json:"id"`
	// Node is the id of its node.
	Node string `json:"node"`
	// Taking is false while the process finishes its work and starts no further work.
	Taking bool `json:"taking"`
}

// seen is the last known state of a member.
type seen struct {
	member   Member
	revision uint64
	at       time.Time // of the last change, by this process's clock
}

// Lease is one process's lease. Its methods may be called concurrently.
type Lease struct {
	config Config
	js     jetstream.JetStream
	bucket *kv.Bucket[Member]
	wake   chan struct{} // requests a renewal now

	mu       sync.Mutex
	own      Member // ID is "" while the process has no lease
	revision uint64
	renewed  time.Time // when the last successful renewal began
	members  map[string]seen
	changed  chan struct{}
}

// New returns a lease, which [Lease.Run] acquires. Error: the bucket's.
func New(ctx context.Context, js jetstream.JetStream, config Config) (*Lease, error) {
	if config.Every <= 0 {
		config.Every = time.Second
	}
	if config.Lost <= 0 {
		config.Lost = 5 * time.Second
	}
	bucket, err := kv.Open[Member](ctx, js, streams.BucketLeases)
	if err != nil {
		return nil, err
	}
	return &Lease{
		config:  config,
		js:      js,
		bucket:  bucket,
		wake:    make(chan struct{}, 1),
		own:     Member{Node: config.Node, Taking: true},
		members: map[string]seen{},
		changed: make(chan struct{}),
	}, nil
}

func (l *Lease) key(id string) string { return l.config.Group + "." + id }

// Run holds a lease until ctx ends. Whenever the lease is lost, it acquires a new one. It calls term with the id of
// each lease. The context of term ends when ctx ends or the lease is lost; the lease is renewed until term has
// returned.
func (l *Lease) Run(ctx context.Context, term func(ctx context.Context, id string)) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watch, stop := context.WithCancel(ctx)
	defer stop()
	watching.Go(func() { l.follow(watch) })
	failed := false
	for ctx.Err() == nil {
		if err := l.acquire(ctx); err != nil {
			if ctx.Err() == nil && !failed {
				l.config.Log.Warn().Err(err).Msg("the lease cannot be acquired; retrying")
			}
			failed = true
			l.pause(ctx, l.config.Every)
			continue
		}
		failed = false
		l.hold(ctx, term)
	}
}

// acquire creates a new lease.
func (l *Lease) acquire(ctx context.Context) error {
	l.mu.Lock()
	own := l.own
	l.mu.Unlock()
	own.ID = strings.ReplaceAll(contextkit.NewID(), ".", "-")
	began := time.Now()
	revision, err := l.bucket.Put(contextkit.PlatformContext(ctx), l.key(own.ID), own, 0)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own.ID, l.revision, l.renewed = own.ID, revision, began
	l.notify()
	return nil
}

// hold runs one term: from the acquisition of a lease until it is lost or released.
func (l *Lease) hold(ctx context.Context, term func(ctx context.Context, id string)) {
	id := l.ID()
	termCtx, end := context.WithCancel(ctx)
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	var renewal sync.WaitGroup
	renewal.Go(func() {
		defer end()
		l.renewUntilLost(renewing)
	})
	term(termCtx, id)
	if ctx.Err() == nil {
		<-termCtx.Done() // the lease is renewed even if term returns earlier
	}
	stop()
	renewal.Wait()
	l.release(context.WithoutCancel(ctx))
}

// releaseTimeout bounds the deletion of a released lease. If the deletion fails, other processes wait for
// [Config.Lost].
const releaseTimeout = 2 * time.Second

// release deletes the lease, if it is still held.
func (l *Lease) release(ctx context.Context) {
	l.mu.Lock()
	id, revision := l.own.ID, l.revision
	l.own.ID, l.renewed = "", time.Time{}
	l.notify()
	l.mu.Unlock()
	if id == "" {
		return
	}
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), releaseTimeout)
	defer cancel()
	_ = l.bucket.Delete(ctx, l.key(id), revision) // if it fails, the lease expires
}

// renewUntilLost renews the lease until it is lost or ctx ends.
func (l *Lease) renewUntilLost(ctx context.Context) {
	for {
		l.pause(ctx, l.config.Every)
		if ctx.Err() != nil {
			return
		}
		if !l.renew(ctx) {
			l.mu.Lock()
			l.own.ID, l.renewed = "", time.Time{}
			l.notify()
			l.mu.Unlock()
			l.config.Log.Warn().Msg("the lease is lost: this process was silent for too long")
			return
		}
	}
}

// renew rewrites the lease. It returns false if the lease is definitely lost.
func (l *Lease) renew(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), l.config.Lost/2)
	defer cancel()
	l.mu.Lock()
	own, revision, began := l.own, l.revision, time.Now()
	l.mu.Unlock()
	next, err := l.bucket.Put(ctx, l.key(own.ID), own, revision)
	if errors.Is(err, kv.ErrChanged) {
		// An earlier renewal may have been stored without an acknowledgement.
		var kept kv.Entry[Member]
		kept, err = l.bucket.Get(ctx, l.key(own.ID))
		if errors.Is(err, kv.ErrNotFound) {
			return false
		}
		next = kept.Revision
	}
	if err != nil {
		return true // the outcome is unknown; until it is known, Valid decides
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if began.Sub(l.renewed) > l.config.Lost/2 {
		// This process, or JetStream, was suspended: the time of the other members starts again.
		for id, s := range l.members {
			s.at = time.Now()
			l.members[id] = s
		}
	}
	l.revision, l.renewed = next, began
	return true
}

func (l *Lease) pause(ctx context.Context, long time.Duration) {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.wake:
	case <-ctx.Done():
	}
}

// notify wakes callers of Changed. l.mu is held.
func (l *Lease) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// ID returns the id of the lease; "": the process has none.
func (l *Lease) ID() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own.ID
}

// Valid reports whether the lease is held and was renewed so recently that no other process can have deleted it.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own.ID != "" && time.Since(l.renewed) < l.config.Lost/2
}

// SetTaking announces whether this process starts new work.
func (l *Lease) SetTaking(taking bool) {
	l.mu.Lock()
	changed := l.own.Taking != taking
	if l.own.Taking = taking; changed {
		l.notify()
	}
	l.mu.Unlock()
	if changed {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Members returns the live processes of the group, ordered by id, and a channel that is closed when they change. They
// include this process while it has a lease.
func (l *Lease) Members() ([]Member, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Member
	for _, s := range l.members {
		if s.member.ID != l.own.ID {
			out = append(out, s.member)
		}
	}
	if l.own.ID != "" {
		out = append(out, l.own)
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return out, l.changed
}

// Alive reports whether the lease with an id is held. Error: the bucket's.
func (l *Lease) Alive(ctx context.Context, id string) (bool, error) {
	l.mu.Lock()
	_, known := l.members[id]
	known = known || id == l.own.ID && id != ""
	l.mu.Unlock()
	if known {
		return true, nil
	}
	// Its announcement may not have arrived yet.
	_, err := kv.Read(ctx, l.js, streams.BucketLeases, l.key(id))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
