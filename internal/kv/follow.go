package kv

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Follow calls each with all values, first with the current ones and then after every change, until
// ctx ends. If following fails, it calls failed once per outage and retries each second; the last
// known values stay.
func (b *Bucket[T]) Follow(ctx context.Context, each func(map[string]Entry[T]), failed func(error)) {
	b.FollowChanges(ctx, whole(each), failed)
}

// Follow opens a bucket and follows its changes until ctx ends, see [Bucket.FollowChanges].
// While it cannot be opened, it tries again each second.
func Follow[T any](
	ctx context.Context,
	js jetstream.JetStream,
	name string,
	each func(Changes[T]),
	failed func(error),
) {
	for failing := false; ctx.Err() == nil; failing = true {
		bucket, err := Open[T](ctx, js, name)
		if err == nil {
			bucket.FollowChanges(ctx, each, failed)
			return
		}
		if !failing && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(FollowPause):
		}
	}
}

// Whole returns a function for [Follow] that calls each with all values, which may be
// retained.
func Whole[T any](each func(map[string]Entry[T])) func(Changes[T]) { return whole(each) }

// Changes are changes of a bucket's keys.
type Changes[T any] struct {
	// Put are the stored values, by their keys.
	Put map[string]Entry[T]
	// Deleted are keys that have no value any more.
	Deleted []string
	// Whole reports that Put has all values of the bucket: other keys have none.
	Whole bool
}

// FollowChanges is [Bucket.Follow] for large buckets: each receives all values first, and then only
// changes.
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
		case <-time.After(FollowPause):
		}
	}
}

// changesTogether is the number of changes after which each is called even while more arrive.
const changesTogether = 256

// whole turns changes into all values.
func whole[T any](each func(map[string]Entry[T])) func(Changes[T]) {
	values := map[string]Entry[T]{}
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

// FollowKey calls each with the value under key, immediately and after every change, until ctx ends
// or each fails. It returns the error.
func (b *Bucket[T]) FollowKey(ctx context.Context, key string, each func(Entry[T]) error) error {
	updates, err := b.kv.Watch(ctx, key)
	if err != nil {
		return fmt.Errorf("kv: follow %s/%s: %w", b.name, key, err)
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
				return fmt.Errorf("kv: follow %s/%s: the watch has ended", b.name, key)
			}
			if entry == nil || entry.Operation() != jetstream.KeyValuePut {
				continue
			}
			stored, err := b.decode(entry)
			if err != nil {
				return err
			}
			if err := each(stored); err != nil {
				return err
			}
		}
	}
}

// watch calls each until ctx or the watch ends. Changes that have arrived together are passed in
// one call.
func (b *Bucket[T]) watch(ctx context.Context, each func(Changes[T])) error {
	updates, err := b.kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("kv: follow %s: %w", b.name, err)
	}
	defer func() { _ = updates.Stop() }() // it ends with ctx anyway
	pending := Changes[T]{Put: map[string]Entry[T]{}, Whole: true}
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
				return fmt.Errorf("kv: follow %s: the watch has ended", b.name)
			}
			if entry == nil {
				complete = true // the initial values have arrived
			} else {
				b.take(&pending, entry)
			}
			if complete && (len(updates.Updates()) == 0 || len(pending.Put)+len(pending.Deleted) >= changesTogether) {
				each(pending)
				pending = Changes[T]{Put: map[string]Entry[T]{}}
			}
		}
	}
}

// take adds the change of a key.
func (b *Bucket[T]) take(pending *Changes[T], entry jetstream.KeyValueEntry) {
	key := entry.Key()
	if entry.Operation() != jetstream.KeyValuePut {
		delete(pending.Put, key)
		if !pending.Whole {
			pending.Deleted = append(pending.Deleted, key)
		}
		return
	}
	stored, err := b.decode(entry)
	if err != nil {
		return // a value of another format
	}
	pending.Put[key] = stored
	pending.Deleted = slices.DeleteFunc(pending.Deleted, func(other string) bool { return other == key })
}
