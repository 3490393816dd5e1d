package natsclient

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// directHeaders are the headers that JetStream adds to the answers of direct gets (NATS
// ADR-31): they are no part of the stored message.
var directHeaders = []string{
	jetstream.StreamHeader, jetstream.SubjectHeader, jetstream.SequenceHeader, jetstream.TimeStampHeaer,
	"Nats-Num-Pending", "Nats-Last-Sequence", "Nats-UpTo-Sequence",
}

// errReadEnough ends a read at its last sequence.
var errReadEnough = errors.New("read enough")

// ReadAll calls each for a stream's messages in order, as they are stored, from a sequence on up to
// the sequence to (0: until the stream's leader has no further one). It returns the sequence at
// which the next read continues.
//
// A message that is replaced by a later one on its subject while the stream is read may be
// missing; with to = 0, each is then called for the later one. Together, the messages that each is
// called for contain all messages that the stream had at the end of the read.
func ReadAll(
	ctx context.Context,
	js jetstream.JetStream,
	stream string,
	from, to uint64,
	each func(*jetstream.RawStreamMsg) error,
) (next uint64, err error) {
	next = max(from, 1)
	take := func(msg *jetstream.RawStreamMsg) error {
		if to > 0 && msg.Sequence > to {
			return errReadEnough
		}
		for _, name := range directHeaders {
			delete(msg.Header, name)
		}
		if err := each(msg); err != nil {
			return err
		}
		next = msg.Sequence + 1
		if next > to && to > 0 {
			return errReadEnough
		}
		return nil
	}
	for to == 0 || next <= to {
		err := ReadBatches(ctx, js, stream, ">", next, 0, take)
		if err == nil { // as far as the replica that has answered knows
			var msg *jetstream.RawStreamMsg
			if msg, err = AskLeader(ctx, js, stream, Question{From: next, Subject: ">"}); msg == nil && err == nil {
				return next, nil
			}
			if err == nil {
				err = take(msg)
			}
		}
		switch {
		case errors.Is(err, errReadEnough):
			return next, nil
		case err != nil:
			return next, err
		}
	}
	return next, nil
}

// ReadPart calls each for a stream's messages on a subject (with wildcards) in order, from a
// sequence on, for most of them at most. It stops at each's first error and returns it. It may
// miss messages that a replica does not have yet.
func ReadPart(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from uint64,
	most int,
	each func(*jetstream.RawStreamMsg) error,
) error {
	return ReadBatches(ctx, js, stream, subject, from, most, each)
}

// FirstMessage returns a stream's first message on a subject (with wildcards) from a sequence on,
// as its leader has it; nil if there is none.
func FirstMessage(
	ctx context.Context,
	js jetstream.JetStream,
	stream, subject string,
	from uint64,
) (*jetstream.RawStreamMsg, error) {
	return AskLeader(ctx, js, stream, Question{From: from, Subject: subject})
}

// HasMessage reports whether the leader of a stream has a message on a subject.
func HasMessage(ctx context.Context, js jetstream.JetStream, stream, subject string) (bool, error) {
	msg, err := AskLeader(ctx, js, stream, Question{Last: subject})
	return msg != nil, err
}

// MessageBytes is the size of a stored message: its subject, headers and data.
func MessageBytes(msg *jetstream.RawStreamMsg) int64 {
	const lineEnd, colon = 2, 2
	size := len(msg.Subject) + len(msg.Data) + len("NATS/1.0\r\n\r\n")
	for name, values := range msg.Header {
		if slices.Contains(directHeaders, name) {
			continue
		}
		for _, value := range values {
			size += len(name) + colon + len(value) + lineEnd
		}
	}
	return int64(size)
}
