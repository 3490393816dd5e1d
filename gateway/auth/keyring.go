package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lestrrat-go/jwx/v3/jwa"
	"github.com/lestrrat-go/jwx/v3/jwk"

	"github.com/headgate/headgate/contextkit"
)

// Source reads a JWK set (RFC 7517 §5).
type Source func(ctx context.Context) ([]byte, error)

// File returns the source that reads path each time.
func File(path string) Source {
	return func(context.Context) ([]byte, error) { return os.ReadFile(path) }
}

const (
	// maxKeysBytes bounds a JWK set.
	maxKeysBytes = 1 << 20
	// fetchTimeout bounds one attempt to read a JWK set.
	fetchTimeout = 5 * time.Second
	// refreshEvery is how often keys are read again, so that a key that was
	// withdrawn stops to count.
	refreshEvery = 5 * time.Minute
	// refreshAtMost is how often a token under an unknown key may have them read
	// at once, so that a rotated key counts soon and nobody can make us hammer
	// the source.
	refreshAtMost = 10 * time.Second
)

// URL returns the source that fetches a JWK set over HTTP.
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
		return io.ReadAll(io.LimitReader(res.Body, maxKeysBytes+1))
	}
}

// KeyRing holds the keys that tokens are signed with and keeps them fresh. Its
// methods may be called concurrently.
type KeyRing struct {
	source  Source
	current atomic.Pointer[keys]

	mu   sync.Mutex // held while reading
	last time.Time  // when keys were last read because a token asked
}

// keys are a generation of a ring's keys.
type keys struct {
	set        jwk.Set
	raw        []byte
	generation uint64
}

// OpenKeyRing reads the keys once; it fails when they cannot be used.
func OpenKeyRing(ctx context.Context, source Source) (*KeyRing, error) {
	r := &KeyRing{source: source}
	r.current.Store(&keys{set: jwk.NewSet()})
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Refresh reads the keys again. On an error those in use stay.
func (r *KeyRing) Refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refresh(ctx)
}

func (r *KeyRing) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	data, err := r.source(ctx)
	if err != nil {
		return fmt.Errorf("auth: read keys: %w", err)
	}
	if len(data) > maxKeysBytes {
		return fmt.Errorf("auth: the key set is larger than %d bytes", maxKeysBytes)
	}
	old := r.current.Load()
	if bytes.Equal(old.raw, data) {
		return nil
	}
	set, err := jwk.Parse(data)
	if err != nil {
		return fmt.Errorf("auth: read keys: %w", err)
	}
	if err := checkKeys(set); err != nil {
		return err
	}
	r.current.Store(&keys{set: set, raw: data, generation: old.generation + 1})
	return nil
}

// refreshSoon reads the keys again for a token under a key that is not known,
// unless that was done a moment ago. It reports whether they have changed.
func (r *KeyRing) refreshSoon(ctx context.Context, known uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Load().generation != known {
		return true
	}
	if time.Since(r.last) < refreshAtMost {
		return false
	}
	r.last = time.Now()
	return r.refresh(ctx) == nil && r.current.Load().generation != known
}

// Run keeps the keys fresh until ctx ends; report is told of failures.
func (r *KeyRing) Run(ctx context.Context, report func(error)) {
	every(ctx, refreshEvery, func() {
		if err := r.Refresh(ctx); err != nil && ctx.Err() == nil {
			report(err)
		}
	})
}

// every does something again and again, a period apart, until ctx ends.
func every(ctx context.Context, period time.Duration, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}

// checkKeys refuses a set under which somebody else could sign.
func checkKeys(set jwk.Set) error {
	if set.Len() == 0 {
		return errors.New("auth: there is no key in the set")
	}
	for i := range set.Len() {
		key, _ := set.Key(i)
		algorithm, _ := key.Algorithm()
		if !slices.ContainsFunc(algorithms, func(a jwa.SignatureAlgorithm) bool { return a.String() == fmt.Sprint(algorithm) }) {
			return fmt.Errorf("auth: key %d has the algorithm %v, which is not allowed (allowed: %v)", i+1, algorithm, algorithms)
		}
		if id, ok := key.KeyID(); !ok || id == "" {
			return fmt.Errorf("auth: key %d has no kid", i+1)
		}
		if private, err := jwk.IsPrivateKey(key); err != nil || private {
			return fmt.Errorf("auth: key %d is not a public key", i+1)
		}
	}
	return nil
}
