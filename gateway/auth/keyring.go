package auth

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

const (
	// refreshInterval is the interval of reads, which bounds the time until a removed key is rejected.
	refreshInterval = time.Minute
	// minRefreshInterval and refreshBurst limit the rate of reads that tokens with unknown keys cause, so that a
	// rotated key is accepted soon and callers cannot overload the source.
	minRefreshInterval, refreshBurst = 2 * time.Second, 4
	// unknownTTL is the time for which an unknown id causes no further read: a client with an old token must not use up
	// the reads that rotated keys need.
	unknownTTL = 10 * time.Second
	// trackedIDs bounds the stored unknown ids.
	trackedIDs = 1024
	// maxWaiting bounds the calls that wait for a read; further calls are rejected.
	maxWaiting = 256
)

// KeyRing contains the signing keys of tokens and refreshes them. It reads its source in at most one goroutine, with a
// separate context and a deadline of 5 s, so that a caller that leaves does not end the read. The goroutine ends at the
// deadline or when Run ends. A KeyRing is safe for concurrent use.
type KeyRing struct {
	config  KeyRingConfig
	current atomic.Pointer[keys]

	ctx      context.Context //nolint:containedctx // of the reads, which outlive the calls that cause them
	stop     context.CancelFunc
	running  sync.WaitGroup
	due      *rate.Limiter
	unknown  *lru.Cache[string, time.Time] // time when an id was last unknown
	changes  chan struct{}                 // signals Run
	failures chan error

	mu      sync.Mutex
	reading *reading  // nil: none
	waiting int       // number of calls that wait for a read
	readAt  time.Time // start of the last successful read; zero: there was none
	failing bool      // the last read has failed

	unchanged, changed, failed atomic.Int64 // numbers of reads by result
}

// keys are the parsed keys of a source.
type keys struct {
	byID map[string]*signingKey
	raw  []byte
}

// reading is a read of the source in progress; err is set before done is closed.
type reading struct {
	done chan struct{}
	err  error
}

var errClosed = errors.New("auth: the key ring is closed")

// KeyRingConfig configures a [KeyRing].
type KeyRingConfig struct {
	// Source returns the JWK set.
	Source Source
	// Algorithms are the algorithms of accepted keys; none: all supported ones (EdDSA, ES256, ES384, RS256, PS256).
	// Keys for other algorithms are skipped.
	Algorithms []string
	// Foreign reports that the set belongs to an identity provider: keys that cannot verify tokens are skipped. In
	// other sets they are an error.
	Foreign bool
	// MaxAge is the time for which keys are accepted after the last successful read of the source.
	// 0: [DefaultKeysMaxAge].
	MaxAge time.Duration
}

// DefaultKeysMaxAge is the time for which known keys are accepted while their source is unavailable.
const DefaultKeysMaxAge = 24 * time.Hour

// OpenKeyRing reads the keys of a source once, within ctx; it returns an error if they are invalid.
func OpenKeyRing(ctx context.Context, source Source) (*KeyRing, error) {
	r, err := NewKeyRing(ctx, KeyRingConfig{Source: source})
	if err != nil {
		return nil, err
	}
	if err := r.Refresh(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// NewKeyRing returns a ring without keys, see [KeyRing.Refresh]. It uses the values of ctx, but not its cancellation.
func NewKeyRing(ctx context.Context, config KeyRingConfig) (*KeyRing, error) {
	if err := CheckAlgorithms(config.Algorithms); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	unknown, err := lru.New[string, time.Time](trackedIDs)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	config.MaxAge = cmp.Or(config.MaxAge, DefaultKeysMaxAge)
	r := &KeyRing{
		config:   config,
		due:      rate.NewLimiter(rate.Every(minRefreshInterval), refreshBurst),
		unknown:  unknown,
		changes:  make(chan struct{}, 1),
		failures: make(chan error, 1),
	}
	r.ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.current.Store(&keys{})
	return r, nil
}

// Run refreshes the keys every minute until ctx ends, and then ends reads in progress. It calls changed after each
// change of the keys, regardless of the cause of the read, and report after failures, but not after each one. After a
// failure the current keys stay in use until they exceed the ring's maximum age.
func (r *KeyRing) Run(ctx context.Context, changed func(), report func(error)) {
	defer r.close()
	ticker := time.NewTicker(refreshInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.mu.Lock()
			r.startRead() //nolint:contextcheck // a read outlives the call that asks for it
			r.mu.Unlock()
		case <-r.changes:
			changed()
		case err := <-r.failures:
			report(err)
		}
	}
}

// close ends reads in progress and waits for them.
func (r *KeyRing) close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.running.Wait()
}

// Refresh reads the source and waits for the read until ctx ends. The read begins after the call. On an error the
// current keys stay in use.
func (r *KeyRing) Refresh(ctx context.Context) error {
	r.mu.Lock()
	before := r.reading
	r.mu.Unlock()
	if before != nil { // it may have read an earlier state of the source
		if err := before.wait(ctx); ctx.Err() != nil {
			return err
		}
	}
	r.mu.Lock()
	now := r.startRead() //nolint:contextcheck // a read outlives the call that asks for it
	r.mu.Unlock()
	return now.wait(ctx)
}

func (r *reading) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("auth: read keys: %w", context.Cause(ctx))
	}
}

// startRead begins a read of the source, or joins the one in progress. The caller holds r.mu.
func (r *KeyRing) startRead() *reading {
	if r.reading != nil {
		return r.reading
	}
	now := &reading{done: make(chan struct{}), err: errClosed}
	if r.ctx.Err() != nil {
		close(now.done)
		return now
	}
	r.reading = now
	r.running.Go(func() {
		began := time.Now()
		changed, err := r.reload()
		now.err = err
		switch {
		case err != nil:
			r.failed.Add(1)
			select {
			case r.failures <- err:
			default:
			}
		case changed:
			r.changed.Add(1)
		default:
			r.unchanged.Add(1)
		}
		r.mu.Lock()
		first := r.readAt.IsZero()
		if r.failing = err != nil; err == nil {
			r.readAt = began
		} else if !first && began.Sub(r.readAt) >= r.config.MaxAge && r.current.Load().byID != nil {
			r.current.Store(&keys{})
			changed = true
		}
		if changed && !first { // the first keys are not a change
			select {
			case r.changes <- struct{}{}:
			default:
			}
		}
		r.reading = nil
		r.mu.Unlock()
		close(now.done)
	})
	return now
}

// reload reads the source's keys, uses them, and reports whether they have changed.
func (r *KeyRing) reload() (changed bool, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, fetchTimeout)
	defer cancel()
	data, err := r.config.Source(ctx)
	if err != nil {
		return false, fmt.Errorf("auth: read keys: %w", err)
	}
	if len(data) > maxKeysBytes {
		return false, fmt.Errorf("auth: the key set is larger than %d bytes", maxKeysBytes)
	}
	before := r.current.Load()
	if before.byID != nil && bytes.Equal(before.raw, data) {
		return false, nil
	}
	set, err := r.config.parse(data)
	if err != nil {
		return false, fmt.Errorf("auth: read keys: %w", err)
	}
	for id, key := range set { // an unchanged key retains its identity
		if known := before.byID[id]; known != nil && known.equal(key) {
			set[id] = known
		}
		r.unknown.Remove(id)
	}
	r.current.Store(&keys{byID: set, raw: data})
	return true, nil
}

// find returns the current keys and the key with the id; nil: there is none. For an unknown id it starts a read of the
// source if one is due, and waits for a read in progress until ctx ends.
func (r *KeyRing) find(ctx context.Context, id string) (*keys, *signingKey) {
	current := r.current.Load()
	if key := current.byID[id]; key != nil {
		return current, key
	}
	now := r.readFor(id) //nolint:contextcheck // a read outlives the call that asks for it
	if now == nil {
		return current, nil
	}
	_ = now.wait(ctx) // Run reports a failure once
	r.mu.Lock()
	r.waiting--
	r.mu.Unlock()
	current = r.current.Load()
	return current, current.byID[id]
}

// readFor returns the read that may find the id, and counts the caller as waiting; nil: there is none.
func (r *KeyRing) readFor(id string) *reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting >= maxWaiting {
		return nil
	}
	if r.reading == nil {
		if at, ok := r.unknown.Get(id); ok && time.Since(at) < unknownTTL {
			return nil
		}
		if !r.due.Allow() {
			return nil
		}
		r.unknown.Add(id, time.Now())
	}
	r.waiting++
	return r.startRead()
}

// outage reports whether the last read of the source failed, or none was made. since is the time of the last successful
// read, whose keys are accepted until until; zero times: there was none.
func (r *KeyRing) outage() (since, until time.Time, away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.failing && !r.readAt.IsZero():
		return time.Time{}, time.Time{}, false
	case r.current.Load().byID == nil:
		return time.Time{}, time.Time{}, true
	}
	return r.readAt, r.readAt.Add(r.config.MaxAge), true
}

// holds reports whether the key is still in use.
func (r *KeyRing) holds(key *signingKey) bool {
	return r.current.Load().byID[key.id] == key
}
