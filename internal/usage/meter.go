package usage

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Config configures a [Meter].
type Config struct {
	// Quota is the quota of tenants without an individual one; 0: unlimited.
	Quota fleet.StorageQuota
	// Flush is the interval at which counts are exchanged with other nodes; 0: two seconds.
	Flush time.Duration
	// Log receives warnings about tenants that approach their quotas.
	Log zerolog.Logger
}

const (
	// flushEvery is the default of Config.Flush.
	flushEvery = 2 * time.Second
	// warnAt is the used fraction of a quota at which a warning is logged.
	warnAt = 0.8
	// reserve determines by how much commands of the platform, which are the steps of workflows, may exceed a quota: by
	// 1/reserve of it, so that a workflow that has begun can end.
	reserve = 20
)

// Meter counts what tenants store, and rejects commands that exceed their quotas. Its methods may be called
// concurrently.
type Meter struct {
	js      jetstream.JetStream
	journal *journal.Journal
	config  Config
	bucket  *kv.Bucket[record]
	tenants *kv.Bucket[fleet.Tenant]
	node    string // of this process, in records

	refused map[string]prometheus.Counter // by quota

	mu    sync.RWMutex
	known map[contextkit.TenantID]*tenant
	own   map[contextkit.TenantID]fleet.StorageQuota // individual quotas
	shard [shards]known

	flushes map[int]string // ids of flushes that have not ended, by shard; used by Run's goroutine alone
}

// known is the last version of a shard that was read or written.
type known struct {
	revision uint64
	record   record
}

// tenant is a tenant's counts.
type tenant struct {
	name   string
	limits atomic.Pointer[[len(Quotas)]int64] // nil: no quota

	mu      sync.Mutex
	stored  Counts // in the records of all nodes
	held    Counts // reserved by Admit and not released
	pending *entry // appended by this node and not flushed to a record
	flushed *entry // the part of pending that the running flush adds; nil: no flush runs
	warned  [len(Quotas)]bool
}

// Open returns the meter of a node, after loading the stored counts and quotas.
func Open(ctx context.Context, js jetstream.JetStream, journal *journal.Journal, config Config) (*Meter, error) {
	m := &Meter{
		js:      js,
		journal: journal,
		config:  config,
		node:    contextkit.NewID(),
		known:   map[contextkit.TenantID]*tenant{},
		own:     map[contextkit.TenantID]fleet.StorageQuota{},
		refused: map[string]prometheus.Counter{},
	}
	for _, quota := range Quotas {
		m.refused[quota] = prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "headgate_quota_refused_total",
			Help:        "Commands refused because their tenant's storage quota is used up, by quota.",
			ConstLabels: prometheus.Labels{"quota": quota},
		})
	}
	var err error
	if m.bucket, err = kv.Open[record](ctx, js, streams.BucketUsage); err != nil {
		return nil, err
	}
	if m.tenants, err = kv.Open[fleet.Tenant](ctx, js, streams.BucketTenants); err != nil {
		return nil, err
	}
	quotas, err := m.tenants.All(ctx)
	if err != nil {
		return nil, err
	}
	m.setQuotas(kv.Changes[fleet.Tenant]{Put: quotas, Whole: true})
	for n := range shards {
		kept, err := m.bucket.Get(ctx, shardKey(n))
		if isAbsent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.see(n, kept)
	}
	return m, nil
}

func isAbsent(err error) bool { return errors.Is(err, kv.ErrNotFound) }

// Admit reserves counts of a tenant's quota, so that concurrent commands of this node do not exceed it together, until
// the caller calls [Held.Release]. It returns a [*QuotaError] if the tenant would exceed its quota. platform reports
// whether the command is one of the platform, which may exceed the quota by a twentieth.
func (m *Meter) Admit(id contextkit.TenantID, add Counts, platform bool) (Held, error) {
	t := m.tenant(id)
	quota := t.limits.Load()
	if quota == nil {
		return Held{}, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	use := t.stored.plus(t.pending.counts(today(time.Now()))).plus(t.held)
	wanted := use.plus(add).values()
	for n, used := range use.values() {
		limit := quota[n]
		if platform {
			limit += limit / reserve
		}
		if quota[n] > 0 && wanted[n] > limit && wanted[n] > used {
			m.refused[Quotas[n]].Inc()
			return Held{}, &QuotaError{
				Tenant: id,
				Quota:  Quotas[n],
				Limit:  quota[n],
				Use:    used,
			}
		}
	}
	t.held = t.held.plus(add)
	return Held{t, add}, nil
}

// Held is the part of a tenant's quota that a command reserves until its events are counted, or known not to be stored.
// The zero value reserves nothing.
type Held struct {
	tenant *tenant
	counts Counts
}

// Release ends the reservation. It must be called once; if the events were appended, after [Meter.Add].
func (h Held) Release() {
	if h.tenant == nil {
		return
	}
	h.tenant.mu.Lock()
	defer h.tenant.mu.Unlock()
	h.tenant.held = h.tenant.held.minus(h.counts)
}

// Add adds appended events to the tenant's counts.
func (m *Meter) Add(id contextkit.TenantID, add Counts) {
	t := m.tenant(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending.Events += add.Events
	t.pending.Bytes += add.Bytes
	t.pending.Aggregates += add.Aggregates
	if add.Keys > 0 {
		t.pending.count(today(time.Now()), add.Keys)
	}
}

// Use returns a tenant's counts as known to this node.
func (m *Meter) Use(id contextkit.TenantID) Counts {
	t := m.tenant(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stored.plus(t.pending.counts(today(time.Now())))
}

// tenant returns the tenant's entry, and creates it if needed.
func (m *Meter) tenant(id contextkit.TenantID) *tenant {
	m.mu.RLock()
	t := m.known[id]
	m.mu.RUnlock()
	if t != nil {
		return t
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.make(id)
}

// make is tenant for callers that hold m.mu.
func (m *Meter) make(id contextkit.TenantID) *tenant {
	t := m.known[id]
	if t == nil {
		t = &tenant{name: id.String(), pending: &entry{}}
		m.limit(id, t)
		if e := m.shard[shardOf(t.name)].record.Tenants[t.name]; e != nil {
			t.stored = e.counts(today(time.Now()))
		}
		m.known[id] = t
	}
	return t
}

// limit sets the quota of a tenant's entry: its individual quota, or the default. The caller holds m.mu.
func (m *Meter) limit(id contextkit.TenantID, t *tenant) {
	quota, defaults := limits(m.own[id]), limits(m.config.Quota)
	bounded := false
	for n := range quota {
		if quota[n] == 0 {
			quota[n] = defaults[n]
		}
		bounded = bounded || quota[n] > 0
	}
	if !bounded {
		t.limits.Store(nil)
		return
	}
	t.limits.Store(&quota)
}

// setQuotas applies changes of tenants' individual quotas.
func (m *Meter) setQuotas(changes kv.Changes[fleet.Tenant]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if changes.Whole {
		clear(m.own)
	}
	for name, kept := range changes.Put {
		id, err := contextkit.ParseTenantID(name)
		if err != nil {
			continue // written by another program
		}
		delete(m.own, id)
		if q := kept.Value.Storage; q != nil {
			m.own[id] = *q
		}
	}
	for _, name := range changes.Deleted {
		if id, err := contextkit.ParseTenantID(name); err == nil {
			delete(m.own, id)
		}
	}
	for id, t := range m.known {
		m.limit(id, t)
	}
}

// see applies a shard that was read, unless the same or a newer version is known.
func (m *Meter) see(n int, kept kv.Entry[record]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if kept.Revision <= m.shard[n].revision {
		return
	}
	if kept.Value.Epoch != m.journal.Epoch() {
		kept.Value = record{} // the counts of a journal that was replaced
	}
	m.shard[n] = known{kept.Revision, kept.Value}
	day := today(time.Now())
	for id, t := range m.known {
		if shardOf(t.name) != n {
			continue
		}
		t.mu.Lock()
		t.stored = Counts{}
		if e := kept.Value.Tenants[t.name]; e != nil {
			t.stored = e.counts(day)
		}
		t.mu.Unlock()
		m.warn(id, t)
	}
}

// warn logs once that a tenant has used four fifths of a quota, and again only after its use has fallen below that.
func (m *Meter) warn(id contextkit.TenantID, t *tenant) {
	quota := t.limits.Load()
	if quota == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, used := range t.stored.values() {
		near := quota[n] > 0 && float64(used) >= warnAt*float64(quota[n])
		if near && !t.warned[n] {
			m.config.Log.Warn().Str("tenant",
				id.String()).Str("quota", Quotas[n]).Int64("use", used).Int64("limit", quota[n]).
				Msg("a tenant has used four fifths of its storage quota; commands beyond the quota are refused")
		}
		t.warned[n] = near
	}
}
