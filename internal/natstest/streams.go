package natstest

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Tenants opens the bucket of tenants.
func Tenants(t *testing.T, js jetstream.JetStream) *kv.Bucket[fleet.Tenant] {
	t.Helper()
	bucket, err := kv.Open[fleet.Tenant](t.Context(), js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	return bucket
}

// Narrow updates a stream as a process of an earlier version does when it starts: it knows
// fewer subjects.
func Narrow(t *testing.T, js jetstream.JetStream, name string, subjects ...string) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.Subjects, config.MaxMsgsPerSubject, config.Metadata = subjects, -1, nil
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}
