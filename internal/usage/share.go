package usage

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/kv"
)

// flushTries bounds the attempts to change a shard that other nodes change concurrently.
const flushTries = 8

// lastFlush bounds the last flush, when the node ends.
const lastFlush = 5 * time.Second

// Run shares counts with other nodes, and follows their counts and the quotas, until ctx ends; then
// it shares the counts that are left.
func (m *Meter) Run(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	failed := func(err error) {
		m.config.Log.Warn().Err(err).Msg("storage counts and quotas of tenants cannot be followed; retrying")
	}
	running.Go(func() {
		m.bucket.FollowChanges(ctx, func(changes kv.Changes[record]) {
			for key, kept := range changes.Put {
				if n, err := strconv.Atoi(strings.TrimPrefix(key, "shard.")); err == nil && n >= 0 && n < shards &&
					key == shardKey(n) {
					m.see(n, kept)
				}
			}
		}, failed)
	})
	running.Go(func() { m.tenants.FollowChanges(ctx, m.setQuotas, failed) })
	running.Go(func() { m.recount(ctx) })
	var flushes outage
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlush)
			defer cancel()
			// A node that ends during an outage of NATS has not failed: a recount of the journal finds
			// the difference.
			if err := m.flush(last); err != nil {
				m.config.Log.Warn().Err(err).Msg(
					"the last storage counts of tenants were not stored; they are recounted from the journal",
				)
			}
			return nil
		case <-time.After(m.flushPause()):
		}
		if err := m.flush(ctx); ctx.Err() == nil {
			flushes.log(m.config.Log, err)
		}
	}
}

// flushPause returns the time until the next flush, half of which is jitter: nodes change the same shards.
func (m *Meter) flushPause() time.Duration {
	return backoff.Around(cmp.Or(m.config.Flush, flushEvery), 0.5)
}

// outage is whether the counts cannot be shared. The zero value: they can.
type outage bool

// log logs the result of a flush where it differs from the one before.
func (o *outage) log(log zerolog.Logger, err error) {
	switch {
	case err != nil && !bool(*o):
		log.Warn().Err(err).Msg("storage counts of tenants cannot be shared with other nodes; retrying")
	case err == nil && bool(*o):
		log.Info().Msg("storage counts of tenants are shared with other nodes again")
	}
	*o = err != nil
}

// flush adds what the node has counted to the shards.
func (m *Meter) flush(ctx context.Context) error {
	var dirty [shards][]*tenant
	m.mu.RLock()
	for _, t := range m.known {
		t.mu.Lock()
		if t.flushed != nil || t.pending.Events > 0 {
			n := shardOf(t.name)
			dirty[n] = append(dirty[n], t)
		}
		t.mu.Unlock()
	}
	m.mu.RUnlock()
	var errs []error
	for n, tenants := range dirty {
		if len(tenants) > 0 {
			errs = append(errs, m.flushShard(ctx, n, tenants))
		}
	}
	return errors.Join(errs...)
}

// flushShard adds the counts of tenants to their shard. If the outcome is unknown they are
// added by the next flush, under the same id.
func (m *Meter) flushShard(ctx context.Context, n int, tenants []*tenant) error {
	id := m.begin(n, tenants)
	day := today(time.Now())
	for range flushTries {
		m.mu.RLock()
		at := m.shard[n]
		m.mu.RUnlock()
		if slices.Contains(at.record.Flushes, id) {
			m.end(n, tenants) // an earlier attempt was stored
			return nil
		}
		next := record{Epoch: m.journal.Epoch(), Flushes: at.record.Flushes}
		for name, e := range at.record.Tenants {
			*next.of(name) = *e.clone()
		}
		for _, t := range tenants {
			if t.flushed != nil { // it is this goroutine's
				next.of(t.name).add(t.flushed, 1)
			}
		}
		for _, e := range next.Tenants {
			e.settle(day)
		}
		next.flushed(id)
		revision, err := m.bucket.Put(ctx, shardKey(n), next, at.revision)
		switch {
		case err == nil:
			m.end(n, tenants)
			m.see(n, kv.Entry[record]{Value: next, Revision: revision})
			return nil
		case !errors.Is(err, kv.ErrChanged):
			return err
		}
		kept, err := m.bucket.Get(ctx, shardKey(n))
		if err != nil {
			return err
		}
		m.see(n, kept)
	}
	return kv.ErrChanged
}

// begin copies the pending counts of a shard's tenants, unless an earlier flush of the shard has not
// ended, and returns the id of the flush.
func (m *Meter) begin(n int, tenants []*tenant) string {
	if m.flushes == nil {
		m.flushes = map[int]string{}
	}
	if id, again := m.flushes[n]; again {
		return id
	}
	for _, t := range tenants {
		t.mu.Lock()
		t.flushed = t.pending.clone()
		t.mu.Unlock()
	}
	m.flushes[n] = contextkit.NewID()
	return m.flushes[n]
}

// end subtracts the flushed counts from the pending ones.
func (m *Meter) end(n int, tenants []*tenant) {
	delete(m.flushes, n)
	for _, t := range tenants {
		t.mu.Lock()
		if t.flushed != nil {
			t.pending.add(t.flushed, -1)
			for day, keys := range t.pending.Keys {
				if keys == 0 {
					delete(t.pending.Keys, day)
				}
			}
		}
		t.flushed = nil
		t.mu.Unlock()
	}
}
