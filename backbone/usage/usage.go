// Package usage counts what each tenant stores in the journal, and refuses what exceeds its
// quota.
//
// Aggregate nodes count what they append themselves, which costs nothing but an addition, and
// every two seconds add it to records that they share (bucket "usage": 64 of them, each with a
// part of the tenants). A node knows the records of all nodes within about a second.
//
// # Tolerance
//
// One node does not exceed a quota: a command's counts are held from its admission on, so that
// concurrent commands do not exceed it together. A quota can be exceeded by what the other nodes
// append for the tenant within about three seconds. A node that is killed leaves out what it appended within the last
// two seconds. Where the counts of all tenants and the journal's number of messages differ by
// more than a hundredth and 10,000 messages, because nodes were killed often or nodes of a
// version that does not count have appended, one node counts the journal again; so it does for a
// journal that was never counted, or was restored. A count is right to within what was appended
// in about five seconds.
package usage

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"time"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

// Counts is what a tenant has stored, or what is added to that.
type Counts struct {
	// Events and Bytes are the events in the journal, and the bytes of their messages.
	Events, Bytes int64
	// Aggregates have at least one event.
	Aggregates int64
	// Keys are the commands with idempotency keys of the last seven days, for which keys are
	// remembered.
	Keys int64
}

func (c Counts) plus(d Counts) Counts {
	return Counts{c.Events + d.Events, c.Bytes + d.Bytes, c.Aggregates + d.Aggregates, c.Keys + d.Keys}
}

func (c Counts) minus(d Counts) Counts {
	return Counts{c.Events - d.Events, c.Bytes - d.Bytes, c.Aggregates - d.Aggregates, c.Keys - d.Keys}
}

// Quotas are the names of a tenant's quotas, as in errors, settings and metrics.
var Quotas = [...]string{"events", "bytes", "aggregates", "keys"}

// values returns the counts in the order of [Quotas].
func (c Counts) values() [len(Quotas)]int64 {
	return [...]int64{c.Events, c.Bytes, c.Aggregates, c.Keys}
}

// limits returns the quota in the order of [Quotas].
func limits(q backbone.StorageQuota) [len(Quotas)]int64 {
	return [...]int64{q.Events, q.Bytes, q.Aggregates, q.Keys}
}

// QuotaError says that a command would exceed its tenant's quota.
type QuotaError struct {
	// Tenant is the tenant, and Quota one of [Quotas].
	Tenant contextkit.TenantID
	Quota  string
	// Limit is the quota, and Use what is stored.
	Limit, Use int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("tenant %s uses %d of its quota of %d %s: an operator can raise the quota (TenantService.SetStorageQuota)", e.Tenant, e.Use, e.Limit, e.Quota)
}

const (
	// shards is how many records the tenants are divided among. It is part of the stored form.
	shards = 64
	// keyDays is how many days keys are remembered, this one included.
	keyDays = int64(backbone.IdempotencyTTL/(24*time.Hour)) + 1
	// recentFlushes is how many flushes a record remembers, so that one whose outcome is
	// unknown is not added twice.
	recentFlushes = 64
)

// record is a shard as it is stored.
type record struct {
	// Epoch is that of the journal that is counted.
	Epoch int64 `json:"epoch"`
	// Tenants are the counts by tenant.
	Tenants map[string]*entry `json:"tenants"`
	// Flushes are the ids of the last changes.
	Flushes []string `json:"flushes,omitempty"`
}

// entry is what is stored of a tenant.
type entry struct {
	Events     int64 `json:"events"`
	Bytes      int64 `json:"bytes"`
	Aggregates int64 `json:"aggregates"`
	// Keys are the commands with keys by day since 1970.
	Keys map[int64]int64 `json:"keys,omitempty"`
}

// today is the number of a time's day since 1970 in UTC.
func today(now time.Time) int64 { return now.Unix() / int64((24 * time.Hour).Seconds()) }

// counts returns the entry's counts on a day.
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

// settle drops what is no longer remembered, and what cannot be.
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
	bucket, err := backbone.OpenBucket[record](ctx, js, backbone.BucketUsage)
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
