package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// streamRestoring is a stream that exists while a backup is being restored, and after a
// restore has failed.
const (
	streamRestoring  = "RESTORING"
	subjectRestoring = "restoring"
)

// retainedBytes bounds the records of one message of a [Retained] stream.
const retainedBytes = 256 << 10

// retainedMessage is a message of the stream.
type retainedMessage struct {
	Records []json.RawMessage `json:"records,omitempty"`
	// Complete is true in the last message.
	Complete bool `json:"complete,omitempty"`
}

// ErrRestoring means that a backup is being restored to the NATS servers, or that a restore has
// failed: their data is incomplete.
var ErrRestoring = errors.New(
	"a backup is being restored, or a restore was interrupted: wait for it, or restore again with --replace",
)

// BeginRestore prevents nodes from starting until [EndRestore].
func BeginRestore(ctx context.Context, js jetstream.JetStream, replicas streams.Replicas) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:        streamRestoring,
		Subjects:    []string{subjectRestoring},
		MaxMsgs:     -1,
		Storage:     jetstream.FileStorage,
		Replicas:    max(int(replicas), 1),
		Description: "a restore of a backup is under way or was interrupted",
	})
	if err != nil {
		return fmt.Errorf("setup: begin restore: %w", err)
	}
	return nil
}

// Retain stores records, which are JSON, until [EndRestore]: data that a restore replaces and must return. They are
// stored when it returns, and replace those of a Retain that was interrupted. It must be called after [BeginRestore].
func Retain(ctx context.Context, js jetstream.JetStream, records []json.RawMessage) error {
	stream, err := js.Stream(ctx, streamRestoring)
	if err != nil {
		return fmt.Errorf("setup: retain: %w", err)
	}
	if err := stream.Purge(ctx); err != nil {
		return fmt.Errorf("setup: retain: %w", err)
	}
	for len(records) > 0 {
		var m retainedMessage
		for size := 0; len(records) > 0 && (size == 0 || size+len(records[0]) <= retainedBytes); records = records[1:] {
			size += len(records[0])
			m.Records = append(m.Records, records[0])
		}
		if err := publishRetained(ctx, js, m); err != nil {
			return err
		}
	}
	return publishRetained(ctx, js, retainedMessage{Complete: true})
}

func publishRetained(ctx context.Context, js jetstream.JetStream, m retainedMessage) error {
	text, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("setup: retain: %w", err)
	}
	msg := &nats.Msg{Subject: subjectRestoring, Header: nats.Header{}, Data: text}
	if err := contextkit.InjectNATS(contextkit.PlatformContext(ctx), msg.Header); err != nil {
		return fmt.Errorf("setup: retain: %w", err)
	}
	if _, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(streamRestoring)); err != nil {
		return fmt.Errorf("setup: retain: %w", err)
	}
	return nil
}

// Retained returns the records of a [Retain] that has returned, if a restore was interrupted after it; complete is
// false if there is none.
func Retained(ctx context.Context, js jetstream.JetStream) (records []json.RawMessage, complete bool, err error) {
	stream, err := js.Stream(ctx, streamRestoring)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("setup: retained records: %w", err)
	}
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; state.Msgs > 0 && sequence <= state.LastSeq; sequence++ {
		stored, err := stream.GetMsg(ctx, sequence)
		if err != nil {
			return nil, false, fmt.Errorf("setup: retained records: %w", err)
		}
		var m retainedMessage
		if err := json.Unmarshal(stored.Data, &m); err != nil {
			return nil, false, fmt.Errorf("setup: retained records: message %d: %w", sequence, err)
		}
		records, complete = append(records, m.Records...), m.Complete
	}
	if !complete {
		return nil, false, nil
	}
	return records, true, nil
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
