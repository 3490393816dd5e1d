package projection

import (
	"context"
	"maps"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/skips"
	"github.com/headgate/headgate/internal/streams"
)

// skipSet are the skip records of one tenant's view definition. It is immutable.
type skipSet struct {
	revision uint64                          // of the newest record
	records  map[string]kv.Entry[skips.Skip] // by event id
}

// skips reports whether the view skips an event. s may be nil.
func (s *skipSet) skips(eventID string) bool {
	if s == nil {
		return false
	}
	record, ok := s.records[eventID]
	return ok && !record.Value.Revoked
}

// at returns the KV revision of the newest record, 0 for none.
func (s *skipSet) at() uint64 {
	if s == nil {
		return 0
	}
	return s.revision
}

// changedUpTo reports whether a record newer than a KV revision concerns an event up to a sequence.
func (s *skipSet) changedUpTo(sequence, revision uint64) bool {
	if s == nil {
		return false
	}
	for _, record := range s.records {
		if record.Revision > revision && record.Value.Sequence <= sequence {
			return true
		}
	}
	return false
}

// active returns the number of records up to a sequence that are not revoked.
func (s *skipSet) active(sequence uint64) int {
	if s == nil {
		return 0
	}
	count := 0
	for _, record := range s.records {
		if !record.Value.Revoked && record.Value.Sequence <= sequence {
			count++
		}
	}
	return count
}

// skipRecords are the skip records of all tenants that the node has received. Its methods may be called concurrently.
type skipRecords struct {
	js jetstream.JetStream

	mu   sync.RWMutex
	sets map[string]map[uint64]*skipSet // by tenant and fingerprint
}

func newSkipRecords(js jetstream.JetStream) *skipRecords {
	return &skipRecords{js: js, sets: map[string]map[uint64]*skipSet{}}
}

// of returns the records of a tenant's view definition, nil for none. r may be nil.
func (r *skipRecords) of(tenant contextkit.TenantID, fingerprint uint64) *skipSet {
	if r == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.sets[tenant.String()][fingerprint]
}

// any reports whether a tenant has records.
func (r *skipRecords) any(tenant contextkit.TenantID) bool {
	if r == nil {
		return false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.sets[tenant.String()]) > 0
}

// put adds records, unless newer ones are known, and returns the tenants whose records have changed.
func (r *skipRecords) put(records map[string]kv.Entry[skips.Skip]) map[string]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := map[string]struct{}{}
	for key, record := range records {
		tenant := skips.TenantOf(key)
		if tenant != record.Value.Tenant {
			continue // the control service writes no such key
		}
		before := r.sets[tenant][record.Value.Fingerprint]
		if before != nil && before.records[record.Value.EventID].Revision >= record.Revision {
			continue
		}
		next := &skipSet{revision: max(before.at(), record.Revision), records: map[string]kv.Entry[skips.Skip]{}}
		if before != nil {
			maps.Copy(next.records, before.records)
		}
		next.records[record.Value.EventID] = record
		if r.sets[tenant] == nil {
			r.sets[tenant] = map[uint64]*skipSet{}
		}
		r.sets[tenant][record.Value.Fingerprint] = next
		changed[tenant] = struct{}{}
	}
	return changed
}

// refresh reads a tenant's records again.
func (r *skipRecords) refresh(ctx context.Context, tenant contextkit.TenantID) error {
	found, err := skips.OfTenant(ctx, r.js, tenant)
	if err != nil {
		return err
	}
	records := make(map[string]kv.Entry[skips.Skip], len(found))
	for _, record := range found {
		records[record.Value.Key()] = record
	}
	r.put(records)
	return nil
}

// followSkips updates the followers of tenants whose skip records change, until ctx ends.
func (s *Service) followSkips(ctx context.Context) {
	kv.Follow(ctx, s.js, streams.BucketSkips, func(changes kv.Changes[skips.Skip]) {
		for name := range s.skips.put(changes.Put) {
			tenant, err := contextkit.ParseTenantID(name)
			if err != nil {
				continue
			}
			if views, ok := s.viewsOf(tenant); ok {
				views.current.followSkips()
				if views.building != nil {
					views.building.followSkips()
				}
			}
		}
	}, func(err error) {
		s.log.Warn().Err(err).Dur("again_in_ms", reopenDelay).Msg(
			"receiving skip records failed, using the last known ones",
		)
	})
}
