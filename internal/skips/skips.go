package skips

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Max bounds the skip records of a tenant, revoked ones included.
const Max = 1000

// Skip is the record of an operator's decision that a view is made without an event. It stays when
// it is revoked: the revision of a view's records grows with every decision.
type Skip struct {
	// Tenant is the tenant, and View the view's name.
	Tenant string `json:"tenant"`
	View   string `json:"view"`
	// Fingerprint identifies the view's definition: another definition does not follow the record.
	Fingerprint uint64 `json:"fingerprint,string"`
	// EventID is the event's id, Sequence its sequence, and EventType its type.
	EventID   string `json:"event_id"`
	Sequence  uint64 `json:"sequence"`
	EventType string `json:"event_type"`
	// AggregateType and AggregateID are those of the event's aggregate.
	AggregateType string `json:"aggregate_type"`
	AggregateID   string `json:"aggregate_id"`
	// By is the subject of the operator who decided last, Reason the reason and Time the time.
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Time   time.Time `json:"time"`
	// Revoked reports that the event is not skipped any longer.
	Revoked bool `json:"revoked,omitempty"`
}

// Key returns the record's key in [streams.BucketSkips].
func (s Skip) Key() string {
	sum := sha256.Sum256([]byte(s.EventID)) // an id may have any characters
	return fmt.Sprintf("%s.%016x.%s", s.Tenant, s.Fingerprint, hex.EncodeToString(sum[:12]))
}

// OfTenant returns the tenant's skip records, the newest first, as the bucket's leader has them.
func OfTenant(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID) ([]kv.Entry[Skip], error) {
	bucket, err := kv.Open[Skip](ctx, js, streams.BucketSkips)
	if err != nil {
		return nil, err
	}
	var out []kv.Entry[Skip]
	for before := uint64(0); ; {
		before, err = bucket.Newest(ctx, tenant.String()+".>", before, Max, func(_ string, kept kv.Entry[Skip]) bool {
			out = append(out, kept)
			return true
		})
		if err != nil {
			return nil, fmt.Errorf("skips: read skips: %w", err)
		}
		if before == 0 {
			return out, nil
		}
	}
}

// TenantOf returns the tenant that a key of [streams.BucketSkips] names.
func TenantOf(key string) string {
	tenant, _, _ := strings.Cut(key, ".")
	return tenant
}
