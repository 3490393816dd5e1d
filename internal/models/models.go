package models

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Document is a model document. It stands in the bucket [streams.BucketModels] under
// [Key].
type Document struct {
	// Text is the YAML.
	Text string `json:"text"`
	// Revision is the hash of the model's content.
	Revision string `json:"revision"`
	// Sequence is the last one of the journal when the document was applied; 0: not recorded.
	Sequence uint64 `json:"sequence,omitempty"`
	// By is who applied it, and Note what for.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
}

// Key is the key of the platform's model.
const Key = "current"

// fileKey is the key under which the place of a model that was not applied stands.
func fileKey(revision string) string { return "file." + revision }

// Store are the models of the platform, as nodes without a model file find them.
type Store struct {
	documents *kv.Bucket[Document]
	fallback  func(context.Context) (string, []byte, error)
}

// Open opens the platform's models. While none has been applied, fallback is the source.
func Open(
	ctx context.Context,
	js jetstream.JetStream,
	fallback func(context.Context) (string, []byte, error),
) (*Store, error) {
	documents, err := kv.Open[Document](ctx, js, streams.BucketModels)
	if err != nil {
		return nil, err
	}
	return &Store{documents, fallback}, nil
}

// Source reads the model that was applied, or the fallback while none has been.
func (m *Store) Source(ctx context.Context) (string, []byte, error) {
	kept, err := m.documents.Get(ctx, Key)
	if errors.Is(err, kv.ErrNotFound) {
		return m.fallback(ctx)
	}
	return "the applied model", []byte(kept.Value.Text), err
}

// Place returns the place of a model among the platform's models: the revision of the bucket at
// which it was applied, or else at which a node first started with it, and whether that is the
// case. Two models compare by it, whichever node asks. 0: where nothing can be stored now, the
// place of a model that was not applied stays unknown.
func (m *Store) Place(ctx context.Context, revision string) (order uint64, fromFile bool, err error) {
	if m.fallback != nil {
		kept, err := m.documents.Get(ctx, Key)
		switch {
		case err == nil && kept.Value.Revision == revision:
			return kept.Revision, false, nil
		case err != nil && !errors.Is(err, kv.ErrNotFound):
			return 0, false, err
		}
	}
	kept, err := m.documents.Get(ctx, fileKey(revision))
	if errors.Is(err, kv.ErrNotFound) {
		put, err := m.documents.Put(ctx, fileKey(revision), Document{Revision: revision}, 0)
		if !errors.Is(err, kv.ErrChanged) {
			return put, true, nil // a node starts where nothing can be stored, too
		}
		kept, err = m.documents.Get(ctx, fileKey(revision)) // another node came first
		return kept.Revision, true, err
	}
	return kept.Revision, true, err
}
