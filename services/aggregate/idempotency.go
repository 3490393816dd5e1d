package aggregate

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/aggregate/idempotency"
)

// maxPendingAnswers bounds the records that are being written; beyond it, writers wait.
const maxPendingAnswers = 1024

// answerStore implements [idempotency.Store] over the idempotency bucket. The events themselves
// carry their keys, so the bucket is only read for answers that left a log's newest.
type answerStore struct {
	bucket  *kv.Bucket[json.RawMessage]
	journal *journal.Journal
}

var _ idempotency.Store = (*answerStore)(nil)

func openAnswerStore(ctx context.Context, js jetstream.JetStream, journal *journal.Journal) (*answerStore, error) {
	async, err := natsclient.Async(js, maxPendingAnswers, nil)
	if err != nil {
		return nil, err
	}
	bucket, err := kv.Open[json.RawMessage](ctx, async, streams.BucketIdempotency)
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
		if errors.Is(err, kv.ErrNotFound) {
			return nil
		}
		record = stored.Value
		return err
	})
	return record, err
}
