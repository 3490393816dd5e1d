package backbone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// streamRestoring is a stream that exists while a backup is being restored, and after a
// restore has failed.
const streamRestoring = "RESTORING"

// ErrRestoring means that a backup is being restored to the NATS servers, or that a restore has
// failed: their data is incomplete.
var ErrRestoring = errors.New("a backup is being restored, or a restore was interrupted: wait for it, or restore again with --replace")

// BeginRestore prevents nodes from starting until [EndRestore].
func BeginRestore(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: streamRestoring, Subjects: []string{"restoring"}, MaxMsgs: 1, Storage: jetstream.FileStorage,
		Description: "a restore of a backup is under way or was interrupted",
	})
	if err != nil {
		return fmt.Errorf("backbone: begin restore: %w", err)
	}
	return nil
}

// EndRestore lets nodes start.
func EndRestore(ctx context.Context, js jetstream.JetStream) error {
	if err := js.DeleteStream(ctx, streamRestoring); err != nil {
		return fmt.Errorf("backbone: end restore: %w", err)
	}
	return nil
}

// checkRestored returns [ErrRestoring] if a restore is incomplete.
func checkRestored(ctx context.Context, js jetstream.JetStream) error {
	return patiently(ctx, func(ctx context.Context) error {
		_, err := js.Stream(ctx, streamRestoring)
		switch {
		case err == nil:
			return ErrRestoring
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return nil
		}
		return fmt.Errorf("backbone: stream %s: %w", streamRestoring, err)
	})
}

// RecordRestored transfers the record of the backed-up stream, created at from (nanoseconds since
// 1970), to the restored stream: the gaps that operators have accepted stay accepted, and a later
// end is not missing.
func RecordRestored(ctx context.Context, js jetstream.JetStream, from int64) error {
	stream, err := js.Stream(ctx, StreamEvents)
	if err != nil {
		return fmt.Errorf("backbone: stream %s: %w", StreamEvents, err)
	}
	records, err := openJournalRecords(ctx, js)
	if err != nil {
		return err
	}
	created, last := stream.CachedInfo().Created.UnixNano(), stream.CachedInfo().State.LastSeq
	return records.change(ctx, func(record *JournalRecord) (bool, error) {
		if gaps := record.acceptedGaps(from); len(gaps) > 0 {
			record.Accepted = append(record.Accepted, AcceptedLoss{
				Stream: created, Epoch: created, Last: last, Recorded: last, Gaps: gaps, Reason: "accepted before the backup was taken", Time: time.Now().UTC(),
			})
			record.Accepted = record.Accepted[max(0, len(record.Accepted)-maxAccepted):]
		}
		record.Tail, record.Findings = Tail{}, nil
		return true, nil
	})
}
