package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/token"
)

// ErrNotLoaded means that the records are not known: they have not been received since the start.
var ErrNotLoaded = errors.New("credentials: the records have not been received yet")

const (
	// pruneEvery is the interval at which expired records are removed from memory.
	pruneEvery = 5 * time.Minute
	// pause is the least time between two changes that a follower applies: changes that arrive in between
	// are applied together, so that callers who change credentials often cost gateways a bounded time.
	pause = 100 * time.Millisecond
	// sealedVersion is the version of the stored form.
	sealedVersion = 1
	// minTTL is the least time for which a record is stored.
	minTTL = time.Minute
)

// record is a stored record.
type record interface{ until() time.Time }

// sealed is the stored form of a record.
type sealed struct {
	Version int    `json:"v"`
	Data    []byte `json:"data"`
}

// Entry is a known record.
type Entry[T any] struct {
	Value T
	// Revision grows with every change in the bucket.
	Revision uint64

	bytes int
}

// Store holds the records of a bucket in memory, as they are followed, and changes them. Its methods
// may be called concurrently.
type Store[T record] struct {
	js     jetstream.JetStream
	name   string
	sealer *token.Sealer

	mu       sync.Mutex
	loaded   bool
	entries  map[string]Entry[T]
	rejected map[string]uint64 // keys whose values are not the platform's, with their KV revisions
	bytes    int
}

// OpenStore returns the store of a bucket. Its records are known after [Store.Load] or while
// [Store.Follow] runs.
func OpenStore[T record](ctx context.Context, js jetstream.JetStream, bucket string) (*Store[T], error) {
	secret, err := kv.SharedSecret(ctx, js, kv.SecretCredentials)
	if err != nil {
		return nil, err
	}
	return &Store[T]{
		js:       js,
		name:     bucket,
		sealer:   token.NewSealer(secret, "credentials"),
		entries:  map[string]Entry[T]{},
		rejected: map[string]uint64{},
	}, nil
}

// scope binds a sealed record to its bucket and key.
func (s *Store[T]) scope(key string) string { return s.name + "/" + key }

// Load reads all records once.
func (s *Store[T]) Load(ctx context.Context) error {
	bucket, err := kv.Open[sealed](ctx, s.js, s.name)
	if err != nil {
		return err
	}
	all, err := bucket.All(ctx)
	if err == nil {
		s.apply(kv.Changes[sealed]{Put: all, Whole: true})
	}
	return err
}

// Follow follows the records until ctx ends. It calls changed after changes, and when records have
// expired; and failed once per outage: the known records then stay.
func (s *Store[T]) Follow(ctx context.Context, changed func(), failed func(error)) {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(pruneEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if pruned, err := s.prune(ctx); err == nil && pruned { // after an error it tries again later
					changed()
				}
			}
		}
	}()
	kv.Follow(ctx, s.js, s.name, func(changes kv.Changes[sealed]) {
		s.apply(changes)
		changed()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}, failed)
	stop()
	<-done
}

// apply adds changes. A value that is not the platform's does not replace a known one, a marker of deletion
// removes none, and a record that a replica does not have yet is not forgotten.
func (s *Store[T]) apply(changes kv.Changes[sealed]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if changes.Whole {
		s.loaded = true
		clear(s.rejected)
	}
	for key, stored := range changes.Put {
		if s.entries[key].Revision >= stored.Revision {
			continue // this store has changed it already
		}
		entry, err := s.open(key, stored)
		if err != nil {
			s.rejected[key] = stored.Revision
			continue
		}
		s.set(key, entry)
		delete(s.rejected, key)
	}
	for _, key := range changes.Deleted { // a record itself stays until it has expired: see prune
		delete(s.rejected, key)
	}
}

// set replaces a record. The caller holds mu.
func (s *Store[T]) set(key string, entry Entry[T]) {
	s.bytes += entry.bytes - s.entries[key].bytes
	s.entries[key] = entry
}

// remove removes a record. The caller holds mu.
func (s *Store[T]) remove(key string) {
	s.bytes -= s.entries[key].bytes
	delete(s.entries, key)
}

// prune removes the expired records that NATS has removed, and reports whether there were any. The clock
// alone decides nothing: it may be wrong, and set back later.
func (s *Store[T]) prune(ctx context.Context) (bool, error) {
	expired := s.expired(time.Now())
	if len(expired) == 0 {
		return false, nil
	}
	bucket, err := kv.Open[sealed](ctx, s.js, s.name)
	if err != nil {
		return false, err
	}
	stored, err := bucket.All(ctx)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.entries)
	for key, revision := range expired {
		if _, there := stored[key]; !there && s.entries[key].Revision == revision {
			s.remove(key)
		}
	}
	return len(s.entries) < before, nil
}

// expired returns the records that are not needed at a time, with their KV revisions.
func (s *Store[T]) expired(now time.Time) map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]uint64{}
	for key, entry := range s.entries {
		if now.After(entry.Value.until()) {
			out[key] = entry.Revision
		}
	}
	return out
}

// open returns the record of a stored value.
func (s *Store[T]) open(key string, stored kv.Entry[sealed]) (Entry[T], error) {
	entry := Entry[T]{Revision: stored.Revision, bytes: len(stored.Value.Data)}
	if stored.Value.Version != sealedVersion {
		return entry, fmt.Errorf("credentials: %s/%s has the version %d", s.name, key, stored.Value.Version)
	}
	text, err := s.sealer.Open(s.scope(key), stored.Value.Data)
	if err == nil {
		err = json.Unmarshal(text, &entry.Value)
	}
	return entry, err
}

// All returns the known records by their keys. Error: [ErrNotLoaded].
func (s *Store[T]) All() (map[string]Entry[T], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded {
		return nil, ErrNotLoaded
	}
	return maps.Clone(s.entries), nil
}

// Put stores a record under a key at a KV revision, 0 for a key without a record, and returns its
// entry, which is known when Put returns. Error: [kv.ErrChanged], among others.
func (s *Store[T]) Put(ctx context.Context, key string, value T, revision uint64) (Entry[T], error) {
	text, err := json.Marshal(value)
	if err != nil {
		return Entry[T]{}, err
	}
	data := s.sealer.Seal(nil, s.scope(key), text)
	ttl := max(time.Until(value.until()), minTTL).Truncate(time.Second)
	stored, err := kv.Unwatched[sealed](s.js, s.name).PutFor(
		ctx, key, sealed{Version: sealedVersion, Data: data}, revision, ttl,
	)
	if err != nil {
		return Entry[T]{}, err
	}
	entry := Entry[T]{Value: value, Revision: stored, bytes: len(data)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key].Revision < stored {
		s.set(key, entry)
		delete(s.rejected, key)
	}
	return entry, nil
}

// Get returns the record under a key as the bucket's leader has it. Errors: [kv.ErrNotFound], with an
// entry that has the revision at which a record can be stored, or the bucket's. A value that is not
// the platform's counts as none.
func (s *Store[T]) Get(ctx context.Context, key string) (Entry[T], error) {
	stored, err := kv.Unwatched[json.RawMessage](s.js, s.name).Get(ctx, key)
	if err != nil && !errors.Is(err, kv.ErrNotFound) && stored.Revision == 0 {
		return Entry[T]{}, err
	}
	none := Entry[T]{Revision: stored.Revision}
	if err != nil {
		return none, kv.ErrNotFound
	}
	var value sealed
	if json.Unmarshal(stored.Value, &value) != nil {
		return none, kv.ErrNotFound
	}
	entry, err := s.open(key, kv.Entry[sealed]{Value: value, Revision: stored.Revision})
	if err != nil {
		return none, kv.ErrNotFound
	}
	return entry, nil
}

// Size returns the number of known records and their bytes, and the number of stored values that are
// rejected because they are not the platform's.
func (s *Store[T]) Size() (records, bytes, rejected int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries), s.bytes, len(s.rejected)
}
