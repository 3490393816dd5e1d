package backbone

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"
)

// Document is a model document. It stands in the bucket [BucketModels] under
// [ModelKey].
type Document struct {
	// Text is the YAML.
	Text string `json:"text"`
	// Revision is the model's own name for what it says.
	Revision string `json:"revision"`
	// By is who applied it, and Note what for.
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
}

// ModelKey is the key of the platform's model.
const ModelKey = "current"

// ModelSource returns the source of the model that was applied, or of a fallback
// while none has been.
func ModelSource(ctx context.Context, js jetstream.JetStream, fallback func(context.Context) (string, []byte, error)) (func(context.Context) (string, []byte, error), error) {
	documents, err := OpenBucket[Document](ctx, js, BucketModels)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (string, []byte, error) {
		kept, err := documents.Get(ctx, ModelKey)
		if errors.Is(err, ErrNotKept) {
			return fallback(ctx)
		}
		return "the applied model", []byte(kept.Value.Text), err
	}, nil
}
