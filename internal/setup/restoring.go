package setup

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// streamRestoring is a stream that exists while a backup is being restored, and after a
// restore has failed.
const streamRestoring = "RESTORING"

// ErrRestoring means that a backup is being restored to the NATS servers, or that a restore has
// failed: their data is incomplete.
var ErrRestoring = errors.New(
	"a backup is being restored, or a restore was interrupted: wait for it, or restore again with --replace",
)

// BeginRestore prevents nodes from starting until [EndRestore].
func BeginRestore(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        streamRestoring,
		Subjects:    []string{"restoring"},
		MaxMsgs:     1,
		Storage:     jetstream.FileStorage,
		Description: "a restore of a backup is under way or was interrupted",
	})
	if err != nil {
		return fmt.Errorf("setup: begin restore: %w", err)
	}
	return nil
}

// EndRestore lets nodes start.
func EndRestore(ctx context.Context, js jetstream.JetStream) error {
	if err := js.DeleteStream(ctx, streamRestoring); err != nil {
		return fmt.Errorf("setup: end restore: %w", err)
	}
	return nil
}

// StreamNames returns the names of all streams of the platform: those of buckets and of an interrupted
// restore included.
func StreamNames() []string {
	names := []string{streamRestoring}
	for _, definition := range streams.Definitions() {
		names = append(names, definition.Name)
	}
	return names
}

// Check is [streams.Check] for a process that starts. It also returns [ErrRestoring].
func Check(ctx context.Context, js jetstream.JetStream, replicas streams.Replicas) (outdated []string, err error) {
	if err := checkRestored(ctx, js); err != nil {
		return nil, err
	}
	return streams.Check(ctx, js, replicas)
}

// checkRestored returns [ErrRestoring] if a restore is incomplete.
func checkRestored(ctx context.Context, js jetstream.JetStream) error {
	return natsclient.Patiently(ctx, func(ctx context.Context) error {
		_, err := js.Stream(ctx, streamRestoring)
		switch {
		case err == nil:
			return ErrRestoring
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return nil
		}
		return fmt.Errorf("setup: stream %s: %w", streamRestoring, err)
	})
}
