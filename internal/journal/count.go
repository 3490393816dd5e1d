package journal

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// CountEvents returns the number of messages of the journal on a subject, which may have
// wildcards, after a sequence. It reads one of them, from any replica: the number may be behind.
func CountEvents(ctx context.Context, js jetstream.JetStream, subject string, after uint64) (int64, error) {
	return natsclient.CountAfter(ctx, js, streams.Events, subject, after)
}
