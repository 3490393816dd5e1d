package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxPendingAnswers bounds the answers being written; a burst beyond it waits.
const maxPendingAnswers = 1024

// answer says which events a command caused.
type answer struct {
	Fingerprint   string `json:"fingerprint"`
	AggregateType string `json:"aggregate_type"`
	AggregateID   string `json:"aggregate_id"`
	FirstSequence uint64 `json:"first_sequence"`
	Events        int    `json:"events"`
}

// answers is the idempotency bucket: the memory beyond an aggregate's recent
// commands. The events themselves bear their keys, so a record is only needed once
// its key falls out of these; it is kept in memory, and in snapshots, until it is
// known to be in the bucket.
type answers struct {
	bucket jetstream.KeyValue
	async  jetstream.JetStream
}

func openAnswers(ctx context.Context, js jetstream.JetStream) (*answers, error) {
	bucket, err := js.KeyValue(ctx, backbone.BucketIdempotency)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketIdempotency, err)
	}
	async, err := jetstream.New(js.Conn(), jetstream.WithPublishAsyncMaxPending(maxPendingAnswers))
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketIdempotency, err)
	}
	return &answers{bucket: bucket, async: async}, nil
}

// record begins to write an answer; the future says when it is kept.
func (a *answers) record(ctx context.Context, tenant contextkit.TenantID, key string, known answer) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(known)
	if err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: "$KV." + backbone.BucketIdempotency + "." + answerKey(tenant, key), Header: nats.Header{}, Data: data}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return nil, err
	}
	// The KV API has no asynchronous put; a put is a publish to this subject
	// (NATS ADR-8).
	return a.async.PublishMsgAsync(msg)
}

// lookup reads an answer.
func (a *answers) lookup(ctx context.Context, tenant contextkit.TenantID, key string) (answer, bool, error) {
	entry, err := a.bucket.Get(ctx, answerKey(tenant, key))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return answer{}, false, nil
	}
	if err != nil {
		return answer{}, false, fmt.Errorf("read the idempotency record: %w", err)
	}
	var known answer
	if err := json.Unmarshal(entry.Value(), &known); err != nil {
		return answer{}, false, fmt.Errorf("read the idempotency record: %w", err)
	}
	return known, true, nil
}

// answerKey hashes the client's key, which may hold what a subject may not.
func answerKey(tenant contextkit.TenantID, key string) string {
	sum := sha256.Sum256([]byte(key))
	return tenant.String() + "." + hex.EncodeToString(sum[:16])
}

// commandRef identifies a command: its key and what it asks for, so that a
// retry is told from another command under the same key.
func commandRef(req *aggregatev1.SubmitRequest) backbone.CommandRef {
	if req.GetIdempotencyKey() == "" {
		return backbone.CommandRef{}
	}
	h := sha256.New()
	payload, _ := json.Marshal(req.GetPayload().AsMap()) // sorted members; a Struct always encodes
	expected := "any"
	if req.ExpectedVersion != nil {
		expected = fmt.Sprint(req.GetExpectedVersion())
	}
	for _, part := range []string{req.GetAggregateType(), req.GetAggregateId(), req.GetCommand(), expected, string(payload)} {
		_, _ = fmt.Fprintf(h, "%d:%s;", len(part), part) // a hash does not fail
	}
	return backbone.CommandRef{IdempotencyKey: req.GetIdempotencyKey(), Fingerprint: hex.EncodeToString(h.Sum(nil)[:16])}
}
