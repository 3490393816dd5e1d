// Package usage counts each tenant's events in the journal, and rejects commands that exceed the tenant's storage
// quota.
//
// Each aggregate node counts the events that it appends, and every two seconds adds the counts to records that all
// nodes share (bucket "usage": 64 records, each for a part of the tenants). A node receives changes of the records
// within about a second.
//
// # Tolerance
//
// A single node does not exceed a quota: it reserves a command's counts at its admission, so that concurrent commands
// do not exceed the quota together. Other nodes can exceed it with the events of about three seconds. Two kinds of
// events are not counted: events that a node appended within two seconds before it was killed, and stored events whose
// acknowledgement was lost with the connection to NATS. If the counts of all tenants and the journal's number of
// messages differ by more than 1 % and 10,000 messages, one node counts the journal again, as it does for a journal
// that was never counted or was restored. Otherwise a count is accurate except for the events of about five seconds.
package usage

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Counts are a tenant's stored events, or additions to them.
type Counts struct {
	// Events counts events in the journal, and Bytes the bytes of their messages.
	Events, Bytes int64
	// Aggregates counts aggregates with at least one event.
	Aggregates int64
	// Keys counts commands with idempotency keys within the last seven days, after which keys expire.
	Keys int64
}

func (c Counts) plus(d Counts) Counts {
	return Counts{c.Events + d.Events, c.Bytes + d.Bytes, c.Aggregates + d.Aggregates, c.Keys + d.Keys}
}

func (c Counts) minus(d Counts) Counts {
	return Counts{c.Events - d.Events, c.Bytes - d.Bytes, c.Aggregates - d.Aggregates, c.Keys - d.Keys}
}

// Quotas are the names of the quotas in errors, settings and metrics.
var Quotas = [...]string{"events", "bytes", "aggregates", "keys"}

// values returns the counts in the order of [Quotas].
func (c Counts) values() [len(Quotas)]int64 {
	return [...]int64{c.Events, c.Bytes, c.Aggregates, c.Keys}
}

// limits returns the quota in the order of [Quotas].
func limits(q fleet.StorageQuota) [len(Quotas)]int64 {
	return [...]int64{q.Events, q.Bytes, q.Aggregates, q.Keys}
}

// QuotaError reports that a command would exceed its tenant's quota.
type QuotaError struct {
	// Tenant is the tenant, and Quota one of [Quotas].
	Tenant contextkit.TenantID
	Quota  string
	// Limit is the quota, and Use the current count.
	Limit, Use int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf(
		"tenant %s uses %d of its quota of %d %s: an operator can raise the quota (TenantService.SetStorageQuota)",
		e.Tenant, e.Use, e.Limit, e.Quota,
	)
}

const (
	// shards is the number of records among which tenants are divided. Changing it changes the stored form.
	shards = 64
	// keyDays is the number of days for which keys are stored, including the current one.
	keyDays = int64(streams.IdempotencyTTL/(24*time.Hour)) + 1
	// recentFlushes bounds the flush ids of a record. They prevent a flush whose outcome is unknown from being added
	// twice.
	recentFlushes = 64
)

// record is the stored form of a shard.
type record struct {
	// Epoch is the epoch of the counted journal.
	Epoch int64 `json:"epoch"`
	// Tenants are the counts by tenant.
	Tenants map[string]*entry `json:"tenants"`
	// Flushes are the ids of the last flushes, at most recentFlushes.
	Flushes []string `json:"flushes,omitempty"`
}

// entry is the stored form of a tenant's counts.
type entry struct {
	Events     int64 `json:"events"`
	Bytes      int64 `json:"bytes"`
	Aggregates int64 `json:"aggregates"`
	// Keys counts the commands with keys, by day since 1970-01-01.
	Keys map[int64]int64 `json:"keys,omitempty"`
}

// today returns the number of days from 1970-01-01 to a time, in UTC.
func today(now time.Time) int64 { return now.Unix() / int64((24 * time.Hour).Seconds()) }

// counts returns the entry's counts as of a day.
func (e *entry) counts(day int64) Counts {
	c := Counts{Events: e.Events, Bytes: e.Bytes, Aggregates: e.Aggregates}
	for at, keys := range e.Keys {
		if at > day-keyDays {
			c.Keys += keys
		}
	}
	return c
}

// add adds d to the entry; sign is 1, or -1 to subtract.
func (e *entry) add(d *entry, sign int64) {
	e.Events, e.Bytes, e.Aggregates = e.Events+sign*d.Events, e.Bytes+sign*d.Bytes, e.Aggregates+sign*d.Aggregates
	for day, keys := range d.Keys {
		e.count(day, sign*keys)
	}
}

func (e *entry) count(day, keys int64) {
	if e.Keys == nil {
		e.Keys = map[int64]int64{}
	}
	e.Keys[day] += keys
}

// settle removes expired keys, and sets negative counts to zero.
func (e *entry) settle(day int64) {
	e.Events, e.Bytes, e.Aggregates = max(e.Events, 0), max(e.Bytes, 0), max(e.Aggregates, 0)
	maps.DeleteFunc(e.Keys, func(at, keys int64) bool { return at <= day-keyDays || keys <= 0 })
}

func (e *entry) clone() *entry {
	out := *e
	out.Keys = maps.Clone(e.Keys)
	return &out
}

func (r *record) of(tenant string) *entry {
	if r.Tenants == nil {
		r.Tenants = map[string]*entry{}
	}
	e := r.Tenants[tenant]
	if e == nil {
		e = &entry{}
		r.Tenants[tenant] = e
	}
	return e
}

func (r *record) flushed(id string) {
	r.Flushes = append(r.Flushes, id)
	if over := len(r.Flushes) - recentFlushes; over > 0 {
		r.Flushes = append([]string(nil), r.Flushes[over:]...)
	}
}

func shardOf(tenant string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(tenant))
	return int(h.Sum32() % shards)
}

func shardKey(n int) string { return "shard." + strconv.Itoa(n) }

// Read returns the stored counts of all tenants.
func Read(ctx context.Context, js jetstream.JetStream) (map[string]Counts, error) {
	bucket, err := kv.Open[record](ctx, js, streams.BucketUsage)
	if err != nil {
		return nil, err
	}
	out, day := map[string]Counts{}, today(time.Now())
	for n := range shards {
		kept, err := bucket.Get(ctx, shardKey(n))
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for tenant, e := range kept.Value.Tenants {
			out[tenant] = e.counts(day)
		}
	}
	return out, nil
}
