package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors of a [Bucket].
var (
	// ErrNotKept: nothing is kept under the key.
	ErrNotKept = errors.New("nothing is kept under the key")
	// ErrChanged: the value is not at the revision that the change was made for.
	ErrChanged = errors.New("the value has been changed by another")
)

// followAgain is the wait before a bucket is followed again after a failure.
const followAgain = time.Second

// Kept is a value as it stands in a bucket.
type Kept[T any] struct {
	Value T
	// Revision grows with every change in the bucket.
	Revision uint64
	// Time is when it was put.
	Time time.Time
}

// Bucket is a key-value bucket of JSON values that are changed by compare and set.
// Its methods may be called concurrently.
type Bucket[T any] struct {
	js   jetstream.JetStream
	kv   jetstream.KeyValue
	name string
}

// OpenBucket opens a bucket that [EnsureStreams] made.
func OpenBucket[T any](ctx context.Context, js jetstream.JetStream, name string) (*Bucket[T], error) {
	kv, err := js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("backbone: open bucket %s: %w", name, err)
	}
	return &Bucket[T]{js: js, kv: kv, name: name}, nil
}

// Get returns the value under key, as the bucket's leader has it. Errors: [ErrNotKept], with the
// revision at which the value was deleted (0: the key never had one), or the bucket's.
func (b *Bucket[T]) Get(ctx context.Context, key string) (Kept[T], error) {
	text, err := ReadKept(ctx, b.js, b.name, key)
	out := Kept[T]{Revision: text.Revision, Time: text.Time}
	if err == nil {
		if err = json.Unmarshal(text.Value, &out.Value); err != nil {
			err = fmt.Errorf("backbone: read %s/%s: %w", b.name, key, err)
		}
	}
	return out, err
}

// keyForm is what a key may be (NATS ADR-8).
var keyForm = regexp.MustCompile(`^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$`)

// ReadKept returns the bytes under a bucket's key, by the word of its leader: what the KV
// API asks is any replica, which may be behind. Errors: [ErrNotKept], with the revision at which
// the value was deleted (0: the key never had one), or the bucket's.
func ReadKept(ctx context.Context, js jetstream.JetStream, bucket, key string) (Kept[[]byte], error) {
	if !keyForm.MatchString(key) {
		return Kept[[]byte]{}, ErrNotKept // a wildcard would be answered
	}
	msg, err := askLeader(ctx, js, "KV_"+bucket, question{Last: "$KV." + bucket + "." + key})
	switch {
	case err != nil:
		return Kept[[]byte]{}, fmt.Errorf("backbone: read %s/%s: %w", bucket, key, err)
	case msg == nil:
		return Kept[[]byte]{}, ErrNotKept
	case msg.Header.Get("KV-Operation") != "":
		return Kept[[]byte]{Revision: msg.Sequence, Time: msg.Time}, ErrNotKept
	}
	return Kept[[]byte]{Value: msg.Data, Revision: msg.Sequence, Time: msg.Time}, nil
}

func (b *Bucket[T]) decode(entry jetstream.KeyValueEntry) (Kept[T], error) {
	out := Kept[T]{Revision: entry.Revision(), Time: entry.Created()}
	if err := json.Unmarshal(entry.Value(), &out.Value); err != nil {
		return out, fmt.Errorf("backbone: read %s/%s: %w", b.name, entry.Key(), err)
	}
	return out, nil
}

// Put keeps a value under key if it is at revision, 0 for a key without a value,
// and returns its new revision. Error: [ErrChanged] if it is not; any other leaves
// open whether it was kept.
func (b *Bucket[T]) Put(ctx context.Context, key string, value T, revision uint64) (uint64, error) {
	return b.PutFor(ctx, key, value, revision, 0)
}

// PutFor is [Bucket.Put] for a value that expires after ttl, whole seconds; 0: it does not. The
// bucket's stream allows TTLs of messages (NATS ADR-43).
func (b *Bucket[T]) PutFor(ctx context.Context, key string, value T, revision uint64, ttl time.Duration) (uint64, error) {
	put, err := b.putAt(ctx, key, value, revision, ttl)
	if revision > 0 || !errors.Is(err, ErrChanged) {
		return put, err
	}
	// A deleted key has a marker, at whose revision it is made anew.
	if revision, err = b.marker(ctx, key); err != nil {
		return 0, err
	}
	return b.putAt(ctx, key, value, revision, ttl)
}

// PutAt stores a value under key if the key's last change, a deletion included, has the revision
// (0: the key never had a value), and returns the new revision. A value that was stored and deleted
// in between is noticed, unlike by [Bucket.Put] at 0. Error: [ErrChanged] if it has another
// revision; after any other error the outcome is not known.
func (b *Bucket[T]) PutAt(ctx context.Context, key string, value T, revision uint64) (uint64, error) {
	return b.putAt(ctx, key, value, revision, 0)
}

// putAt is PutAt with the ttl of PutFor.
func (b *Bucket[T]) putAt(ctx context.Context, key string, value T, revision uint64, ttl time.Duration) (uint64, error) {
	msg, err := b.message(key, value)
	if err != nil {
		return 0, err
	}
	if ttl > 0 {
		msg.Header.Set(jetstream.MsgTTLHeader, ttl.String())
	}
	return b.publish(ctx, msg, key, revision)
}

// PutAsync starts to store a value under key, at any revision, and returns a future that reports the
// outcome. The message carries ctx's contract. The number of pending messages is bounded by the
// JetStream that the bucket was opened with (see [Async]): beyond it PutAsync waits.
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
			return nil, fmt.Errorf("backbone: keep %s/%s: %w", b.name, key, err)
		}
	}
	return &nats.Msg{Subject: b.subject(key), Header: nats.Header{}, Data: data}, nil
}

// subject is where a key's values are published (NATS ADR-8).
func (b *Bucket[T]) subject(key string) string { return "$KV." + b.name + "." + key }

// Newest calls each for the values whose keys fit a pattern (NATS subject wildcards), the
// last changed first, from before a revision (0: from the newest) on, until it returns
// false, or scan of them have been read. It returns the revision to go on before, 0 when
// there are no more.
func (b *Bucket[T]) Newest(ctx context.Context, pattern string, before uint64, scan int, each func(key string, kept Kept[T]) bool) (next uint64, err error) {
	prefix := b.subject("")
	return readNewest(ctx, b.js, "KV_"+b.name, []string{b.subject(pattern)}, before, scan, func(msg *jetstream.RawStreamMsg) bool {
		kept := Kept[T]{Revision: msg.Sequence, Time: msg.Time}
		if msg.Header.Get("KV-Operation") != "" || json.Unmarshal(msg.Data, &kept.Value) != nil {
			return true // a deleted key's marker, or not for us to understand
		}
		return each(strings.TrimPrefix(msg.Subject, prefix), kept)
	})
}

// Delete removes the value under key if it is at revision. A key without a value gets a further
// marker, at the revision of its last one (0: it never had a value). Error: [ErrChanged].
func (b *Bucket[T]) Delete(ctx context.Context, key string, revision uint64) error {
	msg := &nats.Msg{Subject: b.subject(key), Header: nats.Header{"KV-Operation": {"DEL"}}}
	_, err := b.publish(ctx, msg, key, revision)
	return err
}

// Expire is [Bucket.Delete] for a bucket whose values have TTLs: nothing remains of the key after
// a minute.
func (b *Bucket[T]) Expire(ctx context.Context, key string, revision uint64) error {
	msg := &nats.Msg{Subject: b.subject(key), Header: nats.Header{"KV-Operation": {"DEL"}, jetstream.MsgTTLHeader: {markerTTL.String()}}}
	_, err := b.publish(ctx, msg, key, revision)
	return err
}

// marker returns the revision at which key was deleted, 0 if it never was there.
func (b *Bucket[T]) marker(ctx context.Context, key string) (uint64, error) {
	last, err := askLeader(ctx, b.js, "KV_"+b.name, question{Last: b.subject(key)})
	switch {
	case err != nil:
		return 0, fmt.Errorf("backbone: read %s/%s: %w", b.name, key, err)
	case last == nil:
		return 0, nil
	case last.Header.Get("KV-Operation") == "":
		return 0, fmt.Errorf("%w: %s/%s", ErrChanged, b.name, key)
	}
	return last.Sequence, nil
}

func (b *Bucket[T]) publish(ctx context.Context, msg *nats.Msg, key string, revision uint64) (uint64, error) {
	msg.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(revision, 10))
	return publishKept(ctx, b.js, b.name, key, msg)
}

// PutKept stores bytes under a bucket's key, replaces its value, and returns the new revision.
// The message carries ctx's contract. After an error the outcome is not known.
func PutKept(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) (uint64, error) {
	return publishKept(ctx, js, bucket, key, &nats.Msg{Subject: "$KV." + bucket + "." + key, Header: nats.Header{}, Data: data})
}

// createKept stores bytes under a bucket's key that never had a value. Error: [ErrChanged] if it had.
func createKept(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) error {
	msg := &nats.Msg{Subject: "$KV." + bucket + "." + key, Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}}, Data: data}
	_, err := publishKept(ctx, js, bucket, key, msg)
	return err
}

// replaceDeleted stores bytes under a bucket's key whose value was deleted. Error: [ErrChanged] if
// it has a value.
func replaceDeleted(ctx context.Context, js jetstream.JetStream, bucket, key string, data []byte) error {
	subject := "$KV." + bucket + "." + key
	marker, err := askLeader(ctx, js, "KV_"+bucket, question{Last: subject})
	if err != nil {
		return fmt.Errorf("backbone: read %s/%s: %w", bucket, key, err)
	}
	last := uint64(0)
	if marker != nil {
		if marker.Header.Get("KV-Operation") == "" {
			return fmt.Errorf("%w: %s/%s", ErrChanged, bucket, key)
		}
		last = marker.Sequence
	}
	msg := &nats.Msg{Subject: subject, Header: nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(last, 10)}}, Data: data}
	_, err = publishKept(ctx, js, bucket, key, msg)
	return err
}

// deleteKept removes the value under a bucket's key at any revision.
func deleteKept(ctx context.Context, js jetstream.JetStream, bucket, key string) error {
	_, err := publishKept(ctx, js, bucket, key, &nats.Msg{Subject: "$KV." + bucket + "." + key, Header: nats.Header{"KV-Operation": {"DEL"}}})
	return err
}

// publishKept publishes a change of a bucket's key under ctx's contract and returns the new
// revision. Error: [ErrChanged] if the key is not at the revision that the message expects.
func publishKept(ctx context.Context, js jetstream.JetStream, bucket, key string, msg *nats.Msg) (uint64, error) {
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return 0, err
	}
	attempt, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	ack, err := js.PublishMsg(attempt, msg)
	if err != nil && attempt.Err() != nil && ctx.Err() == nil {
		err = errNoAck // whether it is stored, the key's next reader finds out
	}
	if err != nil {
		if errors.Is(appendError(err), ErrConflict) {
			return 0, fmt.Errorf("%w: %s/%s", ErrChanged, bucket, key)
		}
		return 0, fmt.Errorf("backbone: keep %s/%s: %w", bucket, key, err)
	}
	return ack.Sequence, nil
}

// All returns all values by their keys.
func (b *Bucket[T]) All(ctx context.Context) (map[string]Kept[T], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all map[string]Kept[T]
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

// History returns the values that key has had, the newest first, as far as the
// bucket keeps them.
func (b *Bucket[T]) History(ctx context.Context, key string) ([]Kept[T], error) {
	entries, err := b.kv.History(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("backbone: read %s/%s: %w", b.name, key, err)
	}
	var out []Kept[T]
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].Operation() != jetstream.KeyValuePut {
			continue
		}
		kept, err := b.decode(entries[i])
		if err != nil {
			return nil, err
		}
		out = append(out, kept)
	}
	return out, nil
}

// Follow calls each with all values, first as they are and then whenever some
// change, until ctx ends. When it cannot follow, it calls failed, once until it can again, and
// tries again each second; the values known last stay.
func (b *Bucket[T]) Follow(ctx context.Context, each func(map[string]Kept[T]), failed func(error)) {
	b.FollowChanges(ctx, whole(each), failed)
}

// FollowBucket opens a bucket and follows its changes until ctx ends, see [Bucket.FollowChanges].
// While it cannot be opened, it tries again each second.
func FollowBucket[T any](ctx context.Context, js jetstream.JetStream, name string, each func(Changes[T]), failed func(error)) {
	for failing := false; ctx.Err() == nil; failing = true {
		bucket, err := OpenBucket[T](ctx, js, name)
		if err == nil {
			bucket.FollowChanges(ctx, each, failed)
			return
		}
		if !failing && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

// Whole returns a function for [FollowBucket] that calls each with all values, which may be
// retained.
func Whole[T any](each func(map[string]Kept[T])) func(Changes[T]) { return whole(each) }

// Changes are what happened to a bucket's keys.
type Changes[T any] struct {
	// Put are the values that were kept, by their keys.
	Put map[string]Kept[T]
	// Deleted are keys that have no value any more.
	Deleted []string
	// Whole says that Put is everything there is: what it does not have is gone.
	Whole bool
}

// FollowChanges is [Bucket.Follow] for buckets with much in them: each hears of all
// values first, and then of what changes alone.
func (b *Bucket[T]) FollowChanges(ctx context.Context, each func(Changes[T]), failed func(error)) {
	for failing := false; ctx.Err() == nil; {
		err := b.watch(ctx, func(changes Changes[T]) {
			failing = false
			each(changes)
		})
		if err != nil && ctx.Err() == nil && !failing {
			failing = true
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

// changesTogether is how many changes at least are told of even while more arrive.
const changesTogether = 256

// whole turns changes into all values.
func whole[T any](each func(map[string]Kept[T])) func(Changes[T]) {
	values := map[string]Kept[T]{}
	return func(changes Changes[T]) {
		if changes.Whole {
			clear(values)
		}
		maps.Copy(values, changes.Put)
		for _, key := range changes.Deleted {
			delete(values, key)
		}
		each(maps.Clone(values))
	}
}

// FollowKey calls each with the value under key, first as it is and then whenever it
// changes, until each fails, which is returned, or ctx ends.
func (b *Bucket[T]) FollowKey(ctx context.Context, key string, each func(Kept[T]) error) error {
	updates, err := b.kv.Watch(ctx, key)
	if err != nil {
		return fmt.Errorf("backbone: follow %s/%s: %w", b.name, key, err)
	}
	defer func() { _ = updates.Stop() }() // it ends with ctx anyway
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case entry, open := <-updates.Updates():
			if !open && ctx.Err() != nil {
				return ctx.Err()
			}
			if !open {
				return fmt.Errorf("backbone: follow %s/%s: the watch has ended", b.name, key)
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			kept, err := b.decode(entry)
			if err != nil {
				return err
			}
			if err := each(kept); err != nil {
				return err
			}
		}
	}
}

// watch calls each until ctx ends or the watch does. What has arrived together is one
// call.
func (b *Bucket[T]) watch(ctx context.Context, each func(Changes[T])) error {
	updates, err := b.kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("backbone: follow %s: %w", b.name, err)
	}
	defer func() { _ = updates.Stop() }() // it ends with ctx anyway
	pending := Changes[T]{Put: map[string]Kept[T]{}, Whole: true}
	complete := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, open := <-updates.Updates():
			if !open && ctx.Err() != nil {
				return nil
			}
			if !open {
				return fmt.Errorf("backbone: follow %s: the watch has ended", b.name)
			}
			if entry == nil {
				complete = true // all that were there before are known
			} else {
				b.take(&pending, entry)
			}
			if complete && (len(updates.Updates()) == 0 || len(pending.Put)+len(pending.Deleted) >= changesTogether) {
				each(pending)
				pending = Changes[T]{Put: map[string]Kept[T]{}}
			}
		}
	}
}

// take adds what happened to a key.
func (b *Bucket[T]) take(pending *Changes[T], entry jetstream.KeyValueEntry) {
	key := entry.Key()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(pending.Put, key)
		if !pending.Whole {
			pending.Deleted = append(pending.Deleted, key)
		}
		return
	}
	kept, err := b.decode(entry)
	if err != nil {
		return // not for us to understand
	}
	pending.Put[key] = kept
	pending.Deleted = slices.DeleteFunc(pending.Deleted, func(other string) bool { return other == key })
}
