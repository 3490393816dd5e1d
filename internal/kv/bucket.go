package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// Errors of a [Bucket].
var (
	// ErrNotFound: the bucket has no value under the key.
	ErrNotFound = errors.New("the bucket has no value under the key")
	// ErrChanged: the value does not have the revision that the change expects.
	ErrChanged = errors.New("the value has been changed by another")
)

// FollowPause is the wait before a bucket is followed again after a failure.
const FollowPause = time.Second

// Entry is a stored value of a bucket.
type Entry[T any] struct {
	Value T
	// Revision grows with every change in the bucket.
	Revision uint64
	// Time is when it was stored.
	Time time.Time
}

// Bucket is a key-value bucket of JSON values that are changed by compare and set.
// Its methods may be called concurrently.
type Bucket[T any] struct {
	js   jetstream.JetStream
	kv   jetstream.KeyValue
	name string
}

// Open opens a bucket that [setup.Ensure] has created.
func Open[T any](ctx context.Context, js jetstream.JetStream, name string) (*Bucket[T], error) {
	kv, err := js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("kv: open bucket %s: %w", name, err)
	}
	return &Bucket[T]{js: js, kv: kv, name: name}, nil
}

// Unwatched returns a bucket without a request to the server. It serves single keys and
// [Bucket.Newest]: it cannot be watched or followed, and has no history.
func Unwatched[T any](js jetstream.JetStream, name string) *Bucket[T] {
	return &Bucket[T]{js: js, name: name}
}

// Get returns the value under key, read from the bucket's leader. Errors: [ErrNotFound], with the revision at which the
// value was deleted (0: the key never had a value), or the bucket's.
func (b *Bucket[T]) Get(ctx context.Context, key string) (Entry[T], error) {
	text, err := Read(ctx, b.js, b.name, key)
	out := Entry[T]{Revision: text.Revision, Time: text.Time}
	if err == nil {
		if err = unmarshal(text.Value, &out.Value); err != nil {
			err = fmt.Errorf("kv: read %s/%s: %w", b.name, key, err)
		}
	}
	return out, err
}

// keyForm is the pattern of keys (NATS ADR-8).
var keyForm = regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`)

// Read returns the bytes under a bucket's key, read from the bucket's leader; the KV API reads from any replica, which
// may be behind. Errors: [ErrNotFound], with the revision at which the value was deleted (0: the key never had a
// value), or the bucket's.
func Read(ctx context.Context, js jetstream.JetStream, bucket, key string) (Entry[[]byte], error) {
	if !keyForm.MatchString(key) {
		return Entry[[]byte]{}, ErrNotFound // a wildcard would match other keys
	}
	msg, err := natsclient.AskLeader(ctx, js, "KV_"+bucket, natsclient.Question{Last: "$KV." + bucket + "." + key})
	switch {
	case err != nil:
		return Entry[[]byte]{}, fmt.Errorf("kv: read %s/%s: %w", bucket, key, err)
	case msg == nil:
		return Entry[[]byte]{}, ErrNotFound
	case msg.Header.Get("KV-Operation") != "":
		return Entry[[]byte]{Revision: msg.Sequence, Time: msg.Time}, ErrNotFound
	}
	return Entry[[]byte]{Value: msg.Data, Revision: msg.Sequence, Time: msg.Time}, nil
}

func (b *Bucket[T]) decode(entry jetstream.KeyValueEntry) (Entry[T], error) {
	out := Entry[T]{Revision: entry.Revision(), Time: entry.Created()}
	if err := unmarshal(entry.Value(), &out.Value); err != nil {
		return out, fmt.Errorf("kv: read %s/%s: %w", b.name, entry.Key(), err)
	}
	return out, nil
}

// Put stores a value under key if the key has the given revision (0: it has no value), and returns the new revision.
// Error: [ErrChanged] if it has another revision; after any other error it is unknown whether the value was stored.
func (b *Bucket[T]) Put(ctx context.Context, key string, value T, revision uint64) (uint64, error) {
	return b.PutFor(ctx, key, value, revision, 0)
}

// PutFor is [Bucket.Put] for a value that expires after ttl, in whole seconds; 0: it does not expire. The bucket's
// stream must allow TTLs of messages (NATS ADR-43).
func (b *Bucket[T]) PutFor(
	ctx context.Context,
	key string,
	value T,
	revision uint64,
	ttl time.Duration,
) (uint64, error) {
	put, err := b.putAt(ctx, key, value, revision, ttl)
	if revision > 0 || !errors.Is(err, ErrChanged) {
		return put, err
	}
	// A deleted key has a marker, at whose revision it is created again.
	if revision, err = b.marker(ctx, key); err != nil {
		return 0, err
	}
	return b.putAt(ctx, key, value, revision, ttl)
}

// PutAt stores a value under key if the key's last change, which may be a deletion, has the given revision (0: the key
// never had a value), and returns the new revision. Unlike [Bucket.Put] at 0, it detects a value that was stored and
// deleted in the meantime. Error: [ErrChanged] if the last change has another revision; after any other error the
// outcome is unknown.
func (b *Bucket[T]) PutAt(ctx context.Context, key string, value T, revision uint64) (uint64, error) {
	return b.putAt(ctx, key, value, revision, 0)
}

// putAt is PutAt with the ttl of PutFor.
func (b *Bucket[T]) putAt(
	ctx context.Context,
	key string,
	value T,
	revision uint64,
	ttl time.Duration,
) (uint64, error) {
	msg, err := b.message(key, value)
	if err != nil {
		return 0, err
	}
	if ttl > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, ttl.String())
	}
	return b.publish(ctx, msg, key, revision)
}

// PutAsync starts to store a value under key, at any revision, and returns a future that reports the outcome. The
// message carries the transport contract of ctx. The JetStream with which the bucket was opened bounds the pending
// messages (see [natsclient.Async]): at the bound PutAsync blocks.
func (b *Bucket[T]) PutAsync(ctx context.Context, key string, value T) (jetstream.PubAckFuture, error) {
	msg, err := b.message(key, value)
	if err != nil {
		return nil, err
	}
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return nil, err
	}
	return b.js.PublishMsgAsync(msg)
}

// message returns the message that stores a value: a put is a publish to the key's subject (NATS
// ADR-8). A [json.RawMessage] is stored unchanged.
func (b *Bucket[T]) message(key string, value T) (*nats.Msg, error) {
	data, raw := any(value).(json.RawMessage)
	if !raw {
		var err error
		if data, err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("kv: store %s/%s: %w", b.name, key, err)
		}
	}
	return &nats.Msg{Subject: b.subject(key), Header: nats.Header{}, Data: data}, nil
}

// subject returns the subject of a key's values (NATS ADR-8).
func (b *Bucket[T]) subject(key string) string { return "$KV." + b.name + "." + key }

// Newest calls each for the values whose keys match a pattern (NATS subject wildcards), the last changed first. It
// begins before a revision (0: with the newest value), and ends when each returns false, or when scan values have been
// read. It returns the revision before which the next call continues; 0: there are no more values.
func (b *Bucket[T]) Newest(
	ctx context.Context,
	pattern string,
	before uint64,
	scan int,
	each func(key string, stored Entry[T]) bool,
) (next uint64, err error) {
	prefix := b.subject("")
	return natsclient.ReadNewest(
		ctx,
		b.js,
		"KV_"+b.name,
		[]string{b.subject(pattern)},
		before,
		scan,
		func(msg *jetstream.RawStreamMsg) bool {
			stored := Entry[T]{Revision: msg.Sequence, Time: msg.Time}
			if msg.Header.Get("KV-Operation") != "" || unmarshal(msg.Data, &stored.Value) != nil {
				return true // a deleted key's marker, or a value of another format
			}
			return each(strings.TrimPrefix(msg.Subject, prefix), stored)
		},
	)
}

// Delete removes the value under key if it has the given revision. A key without a value gets a further deletion
// marker, if revision is that of its last marker (0: it never had a value). Error: [ErrChanged].
func (b *Bucket[T]) Delete(ctx context.Context, key string, revision uint64) error {
	msg := &nats.Msg{Subject: b.subject(key), Header: nats.Header{"KV-Operation": {"DEL"}}}
	_, err := b.publish(ctx, msg, key, revision)
	return err
}

// Expire is [Bucket.Delete] for a bucket whose values have TTLs: the deletion marker expires after a minute.
func (b *Bucket[T]) Expire(ctx context.Context, key string, revision uint64) error {
	msg := &nats.Msg{
		Subject: b.subject(key),
		Header:  nats.Header{"KV-Operation": {"DEL"}, jetstream.MsgTTLHeader: {streams.MarkerTTL.String()}},
	}
	_, err := b.publish(ctx, msg, key, revision)
	return err
}

// marker returns the revision at which key was deleted, 0 if it never had a value.
func (b *Bucket[T]) marker(ctx context.Context, key string) (uint64, error) {
	last, err := natsclient.AskLeader(ctx, b.js, "KV_"+b.name, natsclient.Question{Last: b.subject(key)})
	switch {
	case err != nil:
		return 0, fmt.Errorf("kv: read %s/%s: %w", b.name, key, err)
	case last == nil:
		return 0, nil
	case last.Header.Get("KV-Operation") == "":
		return 0, fmt.Errorf("%w: %s/%s", ErrChanged, b.name, key)
	}
	return last.Sequence, nil
}

func (b *Bucket[T]) publish(ctx context.Context, msg *nats.Msg, key string, revision uint64) (uint64, error) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	return publish(ctx, b.js, b.name, key, msg)
}

// Put stores bytes under a bucket's key at any revision, and returns the new revision. The message carries the
// transport contract of ctx. After an error the outcome is unknown.
func Put(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) (uint64, error) {
	return publish(
		ctx,
		js,
		bucket,
		key,
		&nats.Msg{Subject: "$KV." + bucket + "." + key, Header: nats.Header{}, Data: data},
	)
}

// create stores bytes under a bucket's key that never had a value. Error: [ErrChanged] if it had one.
func create(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) error {
	msg := &nats.Msg{
		Subject: "$KV." + bucket + "." + key,
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}},
		Data:    data,
	}
	_, err := publish(ctx, js, bucket, key, msg)
	return err
}

// replaceDeleted stores bytes under a bucket's key whose value was deleted. Error: [ErrChanged] if
// it has a value.
func replaceDeleted(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) error {
	subject := "$KV." + bucket + "." + key
	marker, err := natsclient.AskLeader(ctx, js, "KV_"+bucket, natsclient.Question{Last: subject})
	if err != nil {
		return fmt.Errorf("kv: read %s/%s: %w", bucket, key, err)
	}
	last := uint64(0)
	if marker != nil {
		if marker.Header.Get("KV-Operation") == "" {
			return fmt.Errorf("%w: %s/%s", ErrChanged, bucket, key)
		}
		last = marker.Sequence
	}
	msg := &nats.Msg{
		Subject: subject,
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(last, 10)}},
		Data:    data,
	}
	_, err = publish(ctx, js, bucket, key, msg)
	return err
}

// Delete removes the value under a bucket's key at any revision.
func Delete(ctx context.Context, js jetstream.JetStream, bucket, key string) error {
	_, err := publish(
		ctx,
		js,
		bucket,
		key,
		&nats.Msg{Subject: "$KV." + bucket + "." + key, Header: nats.Header{"KV-Operation": {"DEL"}}},
	)
	return err
}

// publish publishes a change of a bucket's key with the transport contract of ctx, and returns the new revision. Error:
// [ErrChanged] if the key does not have the revision that the message expects.
func publish(ctx context.Context, js jetstream.JetStream, bucket, key string, msg *nats.Msg) (uint64, error) {
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return 0, err
	}
	attempt, cancel := context.WithTimeout(ctx, natsclient.AckTimeout)
	defer cancel()
	ack, err := js.PublishMsg(attempt, msg)
	if err != nil && attempt.Err() != nil && ctx.Err() == nil {
		err = natsclient.ErrNoAck // the next read of the key shows whether it was stored
	}
	if err != nil {
		if natsclient.IsWrongSequence(err) {
			return 0, fmt.Errorf("%w: %s/%s", ErrChanged, bucket, key)
		}
		return 0, fmt.Errorf("kv: store %s/%s: %w", bucket, key, err)
	}
	return ack.Sequence, nil
}

// All returns all values by key.
func (b *Bucket[T]) All(ctx context.Context) (map[string]Entry[T], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all map[string]Entry[T]
	err := b.watch(ctx, func(changes Changes[T]) {
		if changes.Whole {
			all = changes.Put
		}
		cancel()
	})
	if all != nil {
		return all, nil
	}
	if err == nil {
		err = context.Cause(ctx)
	}
	return nil, err
}

// History returns the values of key that the bucket still stores, newest first.
func (b *Bucket[T]) History(ctx context.Context, key string) ([]Entry[T], error) {
	entries, err := b.kv.History(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("kv: read %s/%s: %w", b.name, key, err)
	}
	var out []Entry[T]
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].Operation() != jetstream.KeyValuePut {
			continue
		}
		stored, err := b.decode(entries[i])
		if err != nil {
			return nil, err
		}
		out = append(out, stored)
	}
	return out, nil
}
