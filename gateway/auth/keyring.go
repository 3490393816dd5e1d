package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
)

// Source reads a document, such as a JWK set (RFC 7517 §5).
type Source func(ctx context.Context) ([]byte, error)

const (
	// maxKeysBytes bounds a JWK set and a file of API keys.
	maxKeysBytes = 1 << 20
	// fetchTimeout bounds one attempt to read a source.
	fetchTimeout = 5 * time.Second
	// refreshInterval is the interval of reads, which bounds the time until a revoked key is
	// rejected.
	refreshInterval = time.Minute
	// minRefreshInterval is the interval and refreshBurst the burst of reads that tokens with
	// unknown keys may cause, so that a rotated key is accepted soon and callers cannot overload
	// the source.
	minRefreshInterval, refreshBurst = 2 * time.Second, 4
	// unknownTTL is the time for which an unknown id causes no further read: a client with an old
	// token must not use up the reads that rotated keys need.
	unknownTTL = 10 * time.Second
	// trackedIDs bounds the stored unknown ids.
	trackedIDs = 1024
	// maxWaiting bounds the calls that wait for a read; further calls are rejected.
	maxWaiting = 256
)

// File returns a source that reads the file at path, up to 1 MiB of it.
func File(path string) Source {
	return func(context.Context) ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		return readBounded(file)
	}
}

// URL returns a source that fetches a document over HTTP, up to 1 MiB.
func URL(address string) Source {
	client := &http.Client{Transport: contextkit.HTTPTransport(http.DefaultTransport)}
	return func(ctx context.Context) ([]byte, error) {
		req, err := http.NewRequestWithContext(contextkit.PlatformContext(ctx), http.MethodGet, address, nil)
		if err != nil {
			return nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s answers %s", address, res.Status)
		}
		return readBounded(res.Body)
	}
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeysBytes+1))
	if err == nil && len(data) > maxKeysBytes {
		err = fmt.Errorf("larger than %d bytes", maxKeysBytes)
	}
	return data, err
}

// KeyRing holds the signing keys of tokens and refreshes them. It reads its source in at most one
// goroutine, under its own context with a deadline of 5 s: a caller that leaves ends only its own
// wait. The goroutine ends by that deadline, or when Run ends. It is safe for concurrent use.
type KeyRing struct {
	source  Source
	current atomic.Pointer[keys]

	ctx      context.Context //nolint:containedctx // of the reads, which outlive the calls that cause them
	stop     context.CancelFunc
	running  sync.WaitGroup
	due      *rate.Limiter
	unknown  *lru.Cache[string, time.Time] // time when an id was last unknown
	changes  chan struct{}                 // signals Run
	failures chan error

	mu      sync.Mutex
	reading *reading // nil: none
	waiting int      // calls that wait for a read

	unchanged, changed, failed atomic.Int64 // reads
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

// OpenKeyRing reads the keys once, within ctx; it returns an error if they are invalid.
func OpenKeyRing(ctx context.Context, source Source) (*KeyRing, error) {
	unknown, err := lru.New[string, time.Time](trackedIDs)
	if err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	r := &KeyRing{
		source:   source,
		due:      rate.NewLimiter(rate.Every(minRefreshInterval), refreshBurst),
		unknown:  unknown,
		changes:  make(chan struct{}, 1),
		failures: make(chan error, 1),
	}
	r.ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.current.Store(&keys{})
	if err := r.Refresh(ctx); err != nil {
		r.close()
		return nil, err
	}
	<-r.changes // the first keys are not a change
	return r, nil
}

// Run refreshes the keys every minute until ctx ends, and then ends reads in progress. It calls
// changed after each change of the keys, regardless of the cause of the read, and report after failures,
// though not after each one: the current keys stay in use.
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

// Refresh reads the source after the call began, and waits for the read within ctx. On an error the
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

// startRead begins a read of the source, or joins the one in progress. r.mu is held.
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
			select {
			case r.changes <- struct{}{}:
			default:
			}
		default:
			r.unchanged.Add(1)
		}
		r.mu.Lock()
		r.reading = nil
		r.mu.Unlock()
		close(now.done)
	})
	return now
}

// reload reads the source's keys into use, and reports whether they have changed.
func (r *KeyRing) reload() (changed bool, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, fetchTimeout)
	defer cancel()
	data, err := r.source(ctx)
	if err != nil {
		return false, fmt.Errorf("auth: read keys: %w", err)
	}
	if len(data) > maxKeysBytes {
		return false, fmt.Errorf("auth: the key set is larger than %d bytes", maxKeysBytes)
	}
	before := r.current.Load()
	if bytes.Equal(before.raw, data) {
		return false, nil
	}
	set, err := parseKeySet(data)
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

// find returns the keys in use and the key of the id, nil if there is none. For an unknown id it
// reads the source if a read is due, and waits for a read in progress within ctx.
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

// readFor returns the read that may find the id, nil for none. Its caller then counts as waiting.
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

// holds reports whether the key is still in use.
func (r *KeyRing) holds(key *signingKey) bool {
	return r.current.Load().byID[key.id] == key
}
