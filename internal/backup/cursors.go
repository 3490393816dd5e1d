package backup

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// moveCursors gives the restored cursors of runners the restored journal's epoch: the
// sequences in them, up to the journal's end, are those of the events that were restored. Other
// members of a cursor stay as they are.
func (r *restoring) moveCursors(ctx context.Context) error {
	if _, there := r.manifest.stream(bucketStream(streams.BucketCursors)); !there {
		return nil
	}
	journal, err := r.js.Stream(ctx, streams.Events)
	if err != nil {
		return fmt.Errorf("backup: stream %s: %w", streams.Events, err)
	}
	epoch := journal.CachedInfo().Created.UnixNano()
	ctx = contextkit.PlatformContext(ctx)
	stream := bucketStream(streams.BucketCursors)
	info, err := r.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("backup: stream %s: %w", stream, err)
	}
	_, err = natsclient.ReadAll(
		ctx, r.js, stream, 1, info.CachedInfo().State.LastSeq, func(raw *jetstream.RawStreamMsg) error {
			moved := moveCursor(raw.Data, epoch, r.manifest.Last)
			if moved == nil {
				return nil
			}
			msg := &nats.Msg{Subject: raw.Subject, Header: nats.Header{}, Data: moved}
			if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
				return err
			}
			_, err := r.js.PublishMsg(ctx, msg)
			return err
		},
	)
	if err != nil {
		return fmt.Errorf("backup: cursors: %w", err)
	}
	return nil
}

// moveCursor returns a cursor in another epoch, at most at last; nil if it is no cursor.
func moveCursor(text []byte, epoch int64, last uint64) []byte {
	members := map[string]json.RawMessage{}
	if json.Unmarshal(text, &members) != nil || members["epoch"] == nil {
		return nil
	}
	var read uint64
	if json.Unmarshal(members["read"], &read) == nil && read > last {
		members["read"] = json.RawMessage(fmt.Sprint(last))
	}
	members["epoch"] = json.RawMessage(fmt.Sprint(epoch))
	moved, err := json.Marshal(members)
	if err != nil {
		return nil
	}
	return moved
}
