package usage

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// checkEvery is how often the counts are compared with the journal.
	checkEvery = time.Minute
	// The journal is counted again when counts and messages differ by more than the messages
	// divided by driftShare, and by more than driftLeast.
	driftShare, driftLeast = 100, 10_000
	// recountPause is the least time between two counts of a journal.
	recountPause = time.Hour
	// claim is the time after its last update for which a node is considered to be counting.
	claim = 30 * time.Second
	// countPart bounds the messages of one read. After a read the node pauses for countRest times
	// the duration of the read.
	countPart, countRest = 512, 4
)

// keyCount is the key by which nodes agree on the node that counts the journal.
const keyCount = "count"

// counting is a count of the journal.
type counting struct {
	// Epoch is the journal's epoch.
	Epoch int64 `json:"epoch"`
	// Node counts it, until Until unless it extends that; both are zero when the count is complete.
	Node  string    `json:"node,omitempty"`
	Until time.Time `json:"until"`
	// Done is the time of the last complete count.
	Done time.Time `json:"done"`
}

// claimed reports whether a node counts the journal. A claim that ends later than any does is of a node whose clock was
// ahead, and does not count.
func (c *counting) claimed(now time.Time) bool {
	left := c.Until.Sub(now)
	return left > 0 && left <= 2*claim
}

// recent reports whether the last complete count ended a short time ago; one in the future has another clock's time.
func (c *counting) recent(now time.Time) bool {
	since := now.Sub(c.Done)
	return since >= 0 && since < recountPause
}

// recount counts the journal whenever the stored counts differ from it, until ctx ends.
func (m *Meter) recount(ctx context.Context) {
	var bucket *kv.Bucket[counting]
	pause := cmp.Or(m.config.Flush, flushEvery)
	for drifts := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = checkEvery
		if bucket == nil {
			opened, err := kv.Open[counting](ctx, m.js, streams.BucketUsage)
			if err != nil {
				continue
			}
			bucket = opened
		}
		kept, err := bucket.Get(ctx, keyCount)
		if err != nil && !isAbsent(err) {
			continue // NATS is unreachable
		}
		now, epoch := time.Now(), m.journal.Epoch()
		never := kept.Value.Epoch != epoch || kept.Value.Done.IsZero()
		drifts++
		if !never && (kept.Value.recent(now) || !m.drifts(ctx)) {
			drifts = 0
		}
		if (!never && drifts < 2) || kept.Value.Epoch == epoch && kept.Value.claimed(now) {
			continue
		}
		if err := m.count(ctx, bucket, kept); err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrChanged) {
			m.config.Log.Warn().Err(err).Msg("counting the journal was interrupted; retrying")
		}
	}
}

// drifts reports whether the counts of all tenants differ much from the journal's messages.
func (m *Meter) drifts(ctx context.Context) bool {
	stream, err := m.js.Stream(ctx, streams.Events)
	if err != nil {
		return false
	}
	messages := int64(stream.CachedInfo().State.Msgs)
	m.mu.RLock()
	defer m.mu.RUnlock()
	for n := range m.shard {
		for _, e := range m.shard[n].record.Tenants {
			messages -= e.Events
		}
	}
	return max(messages, -messages) > max(driftLeast,
		int64(stream.CachedInfo().State.Msgs)/driftShare)
}

// count counts the journal up to its current end, if no other node does, and replaces by the
// result what nodes had counted until then.
func (m *Meter) count(ctx context.Context, bucket *kv.Bucket[counting], kept kv.Entry[counting]) error {
	began := time.Now()
	mine := counting{Epoch: m.journal.Epoch(), Node: m.node, Until: began.Add(claim)}
	if kept.Value.Epoch == mine.Epoch {
		mine.Done = kept.Value.Done
	}
	revision, err := bucket.Put(ctx, keyCount, mine, kept.Revision)
	if err != nil {
		return err
	}
	stream, err := m.js.Stream(ctx, streams.Events)
	if err != nil {
		return err
	}
	last := stream.CachedInfo().State.LastSeq
	// Before the counts are read, all nodes share what they have appended so far.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * cmp.Or(m.config.Flush, flushEvery)):
	}
	before, err := m.stored(ctx, mine.Epoch)
	if err != nil {
		return err
	}
	counted, err := m.countUntil(ctx, last, func() error {
		if time.Until(mine.Until) >= claim/2 {
			return nil
		}
		mine.Until = time.Now().Add(claim)
		revision, err = bucket.Put(ctx, keyCount, mine, revision)
		return err
	})
	if err != nil {
		return err
	}
	if err := m.replace(ctx, mine.Epoch, counted, before); err != nil {
		return err
	}
	mine.Node, mine.Until, mine.Done = "", time.Time{}, time.Now().UTC()
	if _, err := bucket.Put(ctx, keyCount, mine, revision); err != nil {
		return err
	}
	m.config.Log.Info().Uint64("until", last).Dur("took_ms", time.Since(began)).Msg(
		"storage counts of tenants were recounted from the journal",
	)
	return nil
}

// stored returns the records of all shards; a record of another epoch counts as empty.
func (m *Meter) stored(ctx context.Context, epoch int64) (*[shards]record, error) {
	var all [shards]record
	for n := range shards {
		kept, err := m.bucket.Get(ctx, shardKey(n))
		if err != nil && !isAbsent(err) {
			return nil, err
		}
		if kept.Value.Epoch == epoch {
			all[n] = kept.Value
		}
	}
	return &all, nil
}

// countUntil counts the journal's events up to a sequence, in parts with pauses between them. It calls proceed after
// each part.
func (m *Meter) countUntil(ctx context.Context, last uint64, proceed func() error) (*record, error) {
	var counted record
	for next := uint64(1); next <= last; {
		part, from := time.Now(), next
		err := natsclient.ReadPart(
			ctx, m.js, streams.Events, "events.>", next, countPart, func(msg *jetstream.RawStreamMsg) error {
				next = msg.Sequence + 1
				if msg.Sequence <= last {
					counted.event(msg)
				}
				return nil
			},
		)
		if err != nil {
			return nil, err
		}
		if next == from {
			break // no events follow
		}
		if err := proceed(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(countRest * time.Since(part)):
		}
	}
	return &counted, nil
}

// event counts a message of the journal.
func (r *record) event(msg *jetstream.RawStreamMsg) {
	parts := strings.SplitN(msg.Subject, ".", 3) // events.TENANT.…
	if len(parts) < 3 {
		return
	}
	e := r.of(parts[1])
	e.Events++
	e.Bytes += natsclient.MessageBytes(msg)
	if journal.IsFirst(msg.Header) {
		e.Aggregates++
	}
	if day := today(msg.Time); msg.Header.Get(jetstream.MsgIDHeader) != "" && day > today(time.Now())-keyDays {
		e.count(day, 1)
	}
}

// replace replaces the shards' former counts by the counted ones, and retains what nodes have
// added since.
func (m *Meter) replace(ctx context.Context, epoch int64, counted *record, before *[shards]record) error {
	var parts [shards]record
	for name, e := range counted.Tenants {
		*parts[shardOf(name)].of(name) = *e
	}
	day := today(time.Now())
	for n := range shards {
		err := kv.ErrChanged
		for try := 0; try < flushTries && errors.Is(err, kv.ErrChanged); try++ {
			var now kv.Entry[record]
			if now, err = m.bucket.Get(ctx, shardKey(n)); err != nil && !isAbsent(err) {
				return err
			}
			if now.Value.Epoch != epoch {
				now.Value = record{}
			}
			if len(parts[n].Tenants) == 0 && len(now.Value.Tenants) == 0 {
				err = nil
				break
			}
			next := record{Epoch: epoch, Flushes: now.Value.Flushes}
			for name, e := range parts[n].Tenants {
				*next.of(name) = *e.clone()
			}
			for name, e := range now.Value.Tenants {
				next.of(name).add(e, 1)
			}
			for name, e := range before[n].Tenants {
				next.of(name).add(e, -1)
			}
			for _, e := range next.Tenants {
				e.settle(day)
			}
			var revision uint64
			if revision, err = m.bucket.Put(ctx, shardKey(n), next, now.Revision); err == nil {
				m.see(n, kv.Entry[record]{Value: next, Revision: revision})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
