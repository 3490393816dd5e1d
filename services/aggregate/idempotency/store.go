package idempotency

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
)

// Store holds records by name until they expire. Its methods may be called concurrently.
type Store interface {
	// Put starts to write a record, and replaces one of that name. The future reports the outcome.
	Put(ctx context.Context, name string, record []byte) (jetstream.PubAckFuture, error)
	// Get returns a record, nil if there is none or it has expired.
	Get(ctx context.Context, name string) ([]byte, error)
}

// Key identifies the aggregate of a log.
type Key struct {
	Tenant   contextkit.TenantID
	Type, ID string
}

// recordName returns the name of a record: the aggregate, the sequence of its first event, and its
// number of answers.
func recordName(key Key, first uint64, answers int) string {
	return fmt.Sprintf("%s.%s.%s.%d-%d", key.Tenant, key.Type, key.ID, first, answers)
}
