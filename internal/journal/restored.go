package journal

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/streams"
)

// RecordRestored transfers the record of the backed-up stream, created at from (nanoseconds since
// 1970), to the restored stream: the gaps that operators have accepted stay accepted, and a later
// end is not missing.
func RecordRestored(ctx context.Context, js jetstream.JetStream, from int64) error {
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		return fmt.Errorf("journal: stream %s: %w", streams.Events, err)
	}
	records, err := openRecords(ctx, js)
	if err != nil {
		return err
	}
	created, last := stream.CachedInfo().Created.UnixNano(), stream.CachedInfo().State.LastSeq
	return records.change(ctx, func(record *Record) (bool, error) {
		if gaps := record.acceptedGaps(from); len(gaps) > 0 {
			record.Accepted = append(record.Accepted, AcceptedLoss{
				Stream:   created,
				Epoch:    created,
				Last:     last,
				Recorded: last,
				Gaps:     gaps,
				Reason:   "accepted before the backup was taken",
				Time:     time.Now().UTC(),
			})
			record.Accepted = record.Accepted[max(0, len(record.Accepted)-maxAccepted):]
		}
		record.Tail, record.Findings = Tail{}, nil
		return true, nil
	})
}
