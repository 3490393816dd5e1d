package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

const (
	// revisionTouch is the age at which the record of a revision in use is written again, and revisionUnused the age
	// at which the record of an unused one is removed. The latter is much longer, so that no instance starts with a
	// revision that is being removed.
	revisionTouch, revisionUnused = time.Hour, 24 * time.Hour
	// maxRevisions bounds the parsed models of earlier revisions in memory.
	maxRevisions = 16
)

// errNoRevision reports that a model revision is not stored.
var errNoRevision = errors.New("the model revision is not stored")

// revisions stores the models that drive unfinished instances in the bucket "revisions", from before the first record
// names a revision until no unfinished record has named it for a day. Its methods may be called concurrently.
type revisions struct {
	bucket *kv.Bucket[models.Document]

	mu     sync.Mutex
	stored map[string]time.Time // revisions that are known to be stored, with the time of the last write
	parsed []*model.Model       // least recently used first
}

func openRevisions(ctx context.Context, js jetstream.JetStream) (*revisions, error) {
	bucket, err := kv.Open[models.Document](ctx, js, streams.BucketRevisions)
	return &revisions{bucket: bucket, stored: map[string]time.Time{}}, err
}

// retain stores a model, so that instances can be pinned to it.
func (r *revisions) retain(ctx context.Context, m *model.Model) error {
	r.mu.Lock()
	fresh := time.Since(r.stored[m.Revision]) < revisionTouch
	r.mu.Unlock()
	if fresh {
		return nil
	}
	kept, err := r.bucket.Get(ctx, m.Revision)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return fmt.Errorf("store model revision: %w", err)
	}
	at := kept.Time
	if time.Since(at) >= revisionTouch {
		at = time.Now()
		_, err := r.bucket.Put(contextkit.PlatformContext(ctx), m.Revision,
			models.Document{Text: m.Text, Revision: m.Revision}, kept.Revision)
		if err != nil && !errors.Is(err, kv.ErrChanged) { // another runner has stored it
			return fmt.Errorf("store model revision: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stored[m.Revision] = at
	return nil
}

// model returns the model of a revision. Error: [errNoRevision], a transient error, or a [model.Error] if this
// version of the program does not understand it.
func (r *revisions) model(ctx context.Context, revision string) (*model.Model, error) {
	if m := r.cached(revision); m != nil {
		return m, nil
	}
	kept, err := r.bucket.Get(ctx, revision)
	if errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", errNoRevision, revision)
	}
	if err != nil {
		return nil, fmt.Errorf("read model revision: %w", err)
	}
	return r.parse(ctx, revision, kept.Value.Text)
}

// cached returns the model of a revision if it is in memory, else nil.
func (r *revisions) cached(revision string) *model.Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := slices.IndexFunc(r.parsed, func(m *model.Model) bool { return m.Revision == revision })
	if n < 0 {
		return nil
	}
	m := r.parsed[n]
	r.parsed = append(slices.Delete(r.parsed, n, n+1), m)
	return m
}

// parse returns the model of a document that was in use before.
func (r *revisions) parse(ctx context.Context, revision, text string) (*model.Model, error) {
	if m := r.cached(revision); m != nil {
		return m, nil
	}
	m, err := model.ParseStored(ctx, "model revision "+revision, []byte(text))
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.parsed, func(other *model.Model) bool { return other.Revision == revision }) {
		r.parsed = append(r.parsed, m)
		r.parsed = slices.Delete(r.parsed, 0, max(0, len(r.parsed)-maxRevisions))
	}
	return m, nil
}

// expire removes the revisions that no unfinished record names, by a complete search that started at now, and that
// have been unused for some time.
func (r *revisions) expire(ctx context.Context, used map[string]bool, now time.Time) error {
	all, err := r.bucket.All(ctx)
	if err != nil {
		return fmt.Errorf("read model revisions: %w", err)
	}
	ctx = contextkit.PlatformContext(ctx)
	for revision, kept := range all {
		switch age := now.Sub(kept.Time); {
		case used[revision] && age >= revisionTouch:
			_, err = r.bucket.Put(ctx, revision, kept.Value, kept.Revision)
		case !used[revision] && age >= revisionUnused:
			r.mu.Lock()
			delete(r.stored, revision)
			r.mu.Unlock()
			err = r.bucket.Expire(ctx, revision, kept.Revision)
		}
		if err != nil && !errors.Is(err, kv.ErrChanged) {
			return fmt.Errorf("model revision %s: %w", revision, err)
		}
	}
	return nil
}
