package natsclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// BatchSize is the number of messages that one direct get requests.
const BatchSize = 512

// loadBytes bounds the messages of one direct get, which are in memory together.
const loadBytes = 8 << 20

// SilentAfter is the wait for an answer of a leader before the request is repeated, since the
// server may have stopped. A request that any replica may answer is repeated after firstSilence,
// which doubles each time.
const SilentAfter, firstSilence = 2 * time.Second, 250 * time.Millisecond

// ReadBatches calls each for a stream's messages on a subject in order, from a
// sequence (1: all) on, for most of them at most (0: all). It stops at each's first error
// and returns it.
func ReadBatches(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from uint64,
	most int,
	each func(*jetstream.RawStreamMsg) error,
) error {
	return ReadBatchesWithin(ctx, js, stream, subject, from, most, math.MaxInt, each)
}

// FewSilences is the number of unanswered requests in a row, some four seconds, after which the
// server counts as unable to read a batch: it does not answer then.
const FewSilences = 4

// ReadBatchesWithin is ReadBatches that returns [ErrSilent] after as many unanswered requests in
// a row.
func ReadBatchesWithin(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from uint64,
	most, silences int,
	each func(*jetstream.RawStreamMsg) error,
) error {
	left, patience, silent := cmp.Or(most, math.MaxInt), firstSilence, 0
	for next := max(from, 1); left > 0; {
		var failed error
		count, err := readBatch(
			ctx,
			js,
			stream,
			subject,
			next,
			min(left, BatchSize),
			patience,
			func(msg *jetstream.RawStreamMsg) error {
				next = msg.Sequence + 1
				failed = each(msg)
				return failed
			},
		)
		left -= count
		switch {
		case failed != nil:
			return failed
		case errors.Is(err, jetstreamext.ErrNoMessages):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("natsclient: read %s: %w", subject, context.Cause(ctx))
		case errors.Is(err, ErrSilent):
			patience = min(2*patience, SilentAfter)
			if silent++; silent >= silences && count == 0 {
				return ErrSilent
			}
			continue
		case err != nil:
			return fmt.Errorf("natsclient: read %s: %w", subject, err)
		}
		silent = 0
	}
	return nil
}

// ErrSilent reports that an answer did not arrive, or not completely.
var ErrSilent = errors.New("JetStream does not answer")

// readBatch is ReadBatches with one request, whose answer may pause for at most patience. It
// returns the number of received messages. Errors beyond those of each and the request:
// [ErrSilent], and [jetstreamext.ErrNoMessages] when there are none.
func readBatch(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from uint64,
	most int,
	patience time.Duration,
	each func(*jetstream.RawStreamMsg) error,
) (count int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(ErrSilent) })
	defer silence.Stop()
	batch, err := jetstreamext.GetBatch(
		ctx,
		js,
		stream,
		most,
		jetstreamext.GetBatchSubject(subject),
		jetstreamext.GetBatchSeq(from),
		jetstreamext.GetBatchMaxBytes(loadBytes),
	)
	if err != nil {
		return 0, orSilent(ctx, err)
	}
	for msg, err := range batch {
		if err != nil {
			return count, orSilent(ctx, err)
		}
		silence.Reset(patience)
		count++
		if err := each(msg); err != nil {
			return count, err
		}
	}
	if count == 0 {
		// Neither a message nor the answer that there is none: the request was cut off, and taking
		// it for the end would forget messages. It counts as unanswered, which ends ctx.
		<-ctx.Done()
		return 0, orSilent(ctx, context.Cause(ctx))
	}
	return count, nil
}

// orSilent returns err, or ErrSilent if the silence is its cause.
func orSilent(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), ErrSilent) {
		return ErrSilent
	}
	return err
}
