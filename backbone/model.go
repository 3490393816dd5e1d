package backbone

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// Document is a model document. It stands in the bucket [BucketModels] under
// [ModelKey].
type Document struct {
	// Text is the YAML.
	Text string `json:"text"`
	// Revision is the model's own name for what it says.
	Revision string `json:"revision"`
	// Sequence is the last one of the journal when the document was applied; 0: not recorded.
	Sequence uint64 `json:"sequence,omitempty"`
	// By is who applied it, and Note what for.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
}

// ModelKey is the key of the platform's model.
const ModelKey = "current"

// fileKey is the key under which the place of a model that was not applied stands.
func fileKey(revision string) string { return "file." + revision }

// Models are the models of the platform, as nodes without a model file find them.
type Models struct {
	documents *Bucket[Document]
	fallback  func(context.Context) (string, []byte, error)
}

// OpenModels opens the platform's models. While none has been applied, fallback is the source.
func OpenModels(ctx context.Context, js jetstream.JetStream, fallback func(context.Context) (string, []byte, error)) (*Models, error) {
	documents, err := OpenBucket[Document](ctx, js, BucketModels)
	if err != nil {
		return nil, err
	}
	return &Models{documents, fallback}, nil
}

// Source reads the model that was applied, or the fallback while none has been.
func (m *Models) Source(ctx context.Context) (string, []byte, error) {
	kept, err := m.documents.Get(ctx, ModelKey)
	if errors.Is(err, ErrNotKept) {
		return m.fallback(ctx)
	}
	return "the applied model", []byte(kept.Value.Text), err
}

// Place returns the place of a model among the platform's models: the revision of the bucket at
// which it was applied, or else at which a node first started with it, and whether that is the
// case. Two models compare by it, whichever node asks. 0: where nothing can be stored now, the
// place of a model that was not applied stays unknown.
func (m *Models) Place(ctx context.Context, revision string) (order uint64, fromFile bool, err error) {
	if m.fallback != nil {
		kept, err := m.documents.Get(ctx, ModelKey)
		switch {
		case err == nil && kept.Value.Revision == revision:
			return kept.Revision, false, nil
		case err != nil && !errors.Is(err, ErrNotKept):
			return 0, false, err
		}
	}
	kept, err := m.documents.Get(ctx, fileKey(revision))
	if errors.Is(err, ErrNotKept) {
		put, err := m.documents.Put(ctx, fileKey(revision), Document{Revision: revision}, 0)
		if !errors.Is(err, ErrChanged) {
			return put, true, nil // a node starts where nothing can be stored, too
		}
		kept, err = m.documents.Get(ctx, fileKey(revision)) // another node came first
		return kept.Revision, true, err
	}
	return kept.Revision, true, err
}

// ModelRef names the model by which an event was decided.
type ModelRef struct {
	// Revision is the model's; "": the event was appended by a version that did not note it.
	Revision string
	// Order is its place among the platform's models, see [Models.Place].
	Order uint64
	// FromFile says that the model was not applied.
	FromFile bool

	header []string // the value of ceModel
}

// NewModelRef returns the reference to a model.
func NewModelRef(revision string, order uint64, fromFile bool) ModelRef {
	kind := "applied"
	if fromFile {
		kind = "file"
	}
	return ModelRef{revision, order, fromFile, []string{revision + ";" + kind + "=" + strconv.FormatUint(order, 10)}}
}

// parseModelRef reads a reference; the zero value for a text that it does not understand, which a
// later version may write.
func parseModelRef(text string) ModelRef {
	revision, place, _ := strings.Cut(text, ";")
	kind, number, _ := strings.Cut(place, "=")
	order, err := strconv.ParseUint(number, 10, 64)
	if err != nil || revision == "" || kind != "applied" && kind != "file" {
		return ModelRef{}
	}
	return ModelRef{Revision: revision, Order: order, FromFile: kind == "file"}
}
