package aggregate

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/services/aggregate/idempotency"
	"github.com/nats-io/nats.go/jetstream"
)

// maxPendingAnswers bounds the records that are being written; beyond it, writers wait.
const maxPendingAnswers = 1024

// answerStore implements [idempotency.Store] over the idempotency bucket. The events themselves
// carry their keys, so the bucket is only read for answers that left a log's newest.
type answerStore struct {
	bucket  *backbone.Bucket[json.RawMessage]
	journal *backbone.Journal
}

var _ idempotency.Store = (*answerStore)(nil)

func openAnswerStore(ctx context.Context, js jetstream.JetStream, journal *backbone.Journal) (*answerStore, error) {
	async, err := backbone.Async(js, maxPendingAnswers, nil)
	if err != nil {
		return nil, err
	}
	bucket, err := backbone.OpenBucket[json.RawMessage](ctx, async, backbone.BucketIdempotency)
	if err != nil {
		return nil, err
	}
	return &answerStore{bucket, journal}, nil
}

// Put implements [idempotency.Store].
func (s *answerStore) Put(ctx context.Context, name string, record []byte) (jetstream.PubAckFuture, error) {
	return s.bucket.PutAsync(ctx, name, record)
}

// Get implements [idempotency.Store].
func (s *answerStore) Get(ctx context.Context, name string) (record []byte, err error) {
	err = s.journal.While(ctx, func(ctx context.Context) error {
		stored, err := s.bucket.Get(ctx, name)
		if errors.Is(err, backbone.ErrNotKept) {
			return nil
		}
		record = stored.Value
		return err
	})
	return record, err
}
