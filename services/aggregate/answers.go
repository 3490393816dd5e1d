package aggregate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// maxPendingAnswers bounds the records being written; a burst beyond it waits.
const maxPendingAnswers = 1024

// answer says which of its aggregate's events a command caused.
type answer struct {
	Fingerprint   string `json:"fingerprint"`
	FirstSequence uint64 `json:"first_sequence"`
	Events        int    `json:"events"`
}

// answers is the idempotency bucket: the memory beyond an aggregate's recent
// commands, a page or a chapter to a record. The events themselves bear their keys, so it is only
// needed once these fall out of the recent ones; what is not known to be in the bucket yet
// is kept in memory, and in snapshots.
type answers struct{ async jetstream.JetStream }

func openAnswers(js jetstream.JetStream) (*answers, error) {
	async, err := backbone.Async(js, maxPendingAnswers, nil)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", backbone.BucketIdempotency, err)
	}
	return &answers{async: async}, nil
}

// record begins to write a record; the future says when it is kept.
func (a *answers) record(ctx context.Context, name string, content any) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: "$KV." + backbone.BucketIdempotency + "." + name, Header: nats.Header{}, Data: data}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return nil, err
	}
	// The KV API has no asynchronous put; a put is a publish to this subject
	// (NATS ADR-8).
	return a.async.PublishMsgAsync(msg)
}

// read returns a record, nil when its time is over.
func (a *answers) read(ctx context.Context, name string) ([]byte, error) {
	kept, err := backbone.ReadKept(ctx, a.async, backbone.BucketIdempotency, name)
	if errors.Is(err, backbone.ErrNotKept) {
		return nil, nil
	}
	return kept.Value, err
}

// commandRef identifies a command: its key and what it asks for, so that a
// retry is told from another command under the same key.
func commandRef(req *aggregatev1.SubmitRequest) backbone.CommandRef {
	if req.GetIdempotencyKey() == "" {
		return backbone.CommandRef{}
	}
	payload, _ := json.Marshal(req.GetPayload().AsMap()) // sorted members; a Struct always encodes
	expected := "any"
	if req.ExpectedVersion != nil {
		expected = strconv.FormatInt(req.GetExpectedVersion(), 10)
	}
	var text []byte
	for _, part := range []string{req.GetAggregateType(), req.GetAggregateId(), req.GetCommand(), expected, string(payload)} {
		text = append(append(strconv.AppendInt(text, int64(len(part)), 10), ':'), part...)
		text = append(text, ';')
	}
	sum := sha256.Sum256(text)
	return backbone.CommandRef{IdempotencyKey: req.GetIdempotencyKey(), Fingerprint: hex.EncodeToString(sum[:16])}
}
