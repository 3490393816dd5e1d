package natsclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// newestWindow is how many sequences are read at first on the way back, and how many
// messages are in memory.
const newestWindow = 500

// newestBytes bounds the bytes of the messages that are in memory together.
const newestBytes = 8 << 20

// ReadNewest calls each for a stream's messages on subjects that do not overlap, the newest
// first, starting before a sequence (0: at the newest), until it returns false or scan
// messages have been read. It returns the sequence to continue before, 0 when there are no
// more.
func ReadNewest(
	ctx context.Context,
	js jetstream.JetStream,
	stream string,
	subjects []string,
	before uint64,
	scan int,
	each func(*jetstream.RawStreamMsg) bool,
) (next uint64, err error) {
	info, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("natsclient: read %s: %w", stream, err)
	}
	first, end := info.CachedInfo().State.FirstSeq, info.CachedInfo().State.LastSeq+1
	if before != 0 {
		end = min(before, end)
	}
	window := uint64(newestWindow)
	for read := 0; end > first && read < scan; {
		from := first
		if end > first+window {
			from = end - window
		}
		var found []*jetstream.RawStreamMsg
		for _, subject := range subjects {
			part, count, partFrom, err := readWindow(ctx, js, stream, subject, from, end)
			if err != nil {
				return 0, err
			}
			read += count
			from = max(from, partFrom)
			found = append(found, part...)
		}
		found = slices.DeleteFunc(found, func(msg *jetstream.RawStreamMsg) bool { return msg.Sequence < from })
		slices.SortFunc(found, func(a, b *jetstream.RawStreamMsg) int { return cmp.Compare(a.Sequence, b.Sequence) })
		for _, msg := range slices.Backward(found) {
			if !each(msg) {
				return msg.Sequence + 1, nil // each has not accepted this one
			}
		}
		// Where the subject's messages are few among others', more is read per request.
		switch {
		case from > end-min(window, end): // the messages are large: as many are read next as were held
			window = max(end-from, 1)
		case len(found) < newestWindow/2:
			window *= 2
		case len(found) > newestWindow:
			window = newestWindow
		}
		end = from
	}
	if end <= first {
		return 0, nil
	}
	return end, nil
}

// readWindow returns a subject's messages with sequences in [from, end), in order, and the
// number of messages that it has read. If not all of them fit the bounds in number and bytes,
// it returns the newest, and the sequence of the first of these.
func readWindow(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from, end uint64,
) (found []*jetstream.RawStreamMsg, read int, _ uint64, err error) {
	errEnd := errors.New("end")
	bytes := 0
	err = ReadBatches(ctx, js, stream, subject, from, 0, func(msg *jetstream.RawStreamMsg) error {
		if msg.Sequence >= end {
			return errEnd
		}
		read++
		found = append(found, msg)
		bytes += len(msg.Data)
		drop := 0
		if len(found) == 2*newestWindow {
			drop = newestWindow
		}
		for n := 0; n < len(found)-1 && (n < drop || bytes > newestBytes); n++ {
			bytes -= len(found[n].Data)
			drop = max(drop, n+1)
		}
		if drop > 0 {
			found = slices.Delete(found, 0, drop)
			from = found[0].Sequence // those before are read again
		}
		return nil
	})
	if errors.Is(err, errEnd) {
		err = nil
	}
	return found, read, from, err
}
