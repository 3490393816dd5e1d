package backbone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// Errors of Append.
var (
	// ErrConflict: the aggregate's last event is not the expected one.
	ErrConflict = errors.New("the aggregate has changed")
	// ErrDuplicate: the idempotency key was used within the dedupe window.
	ErrDuplicate = errors.New("the idempotency key was used before")
	// ErrTooLarge: an event does not fit a message.
	ErrTooLarge = errors.New("the event is too large")
	// ErrTooMany: there are more than [MaxAppend] events.
	ErrTooMany = errors.New("too many events for one append")
	// ErrRefused: JetStream refused the append and stored nothing of it. While it stores
	// nothing, the error is a [*StorageError] too.
	ErrRefused = errors.New("JetStream refused the events")
)

// MaxAppend bounds the events of one append: JetStream takes atomic batches of at most
// 1,000 messages (NATS ADR-50).
const MaxAppend = 1000

// maxBatches bounds a node's atomic batches on their way: JetStream refuses a stream's
// fifty-first.
const maxBatches = 8

// ackTimeout bounds the wait for an append's acknowledgement, and leaves of a call's usual
// time enough to ask what became of it.
const ackTimeout = 4 * time.Second

// batchHeaders is room for the headers that a batch adds to its messages, in bytes.
const batchHeaders = 512

// loadBatch is how many events one direct get asks for.
const loadBatch = 512

// loadBytes bounds the messages of one direct get, which are in memory together.
const loadBytes = 8 << 20

// Journal appends and reads the events of aggregates. Its methods may be called
// concurrently.
type Journal struct {
	js      jetstream.JetStream
	epoch   int64
	commits *committer    // nil: every append goes by itself
	link    func() *link  // of the connection
	batches chan struct{} // holds a value for each batch on its way
	storage *Storage      // what is known of EVENTS; may be nil
}

// OpenJournal opens the journal that [EnsureStreams] made.
func OpenJournal(ctx context.Context, js jetstream.JetStream) (*Journal, error) {
	stream, err := js.Stream(ctx, StreamEvents)
	if err != nil {
		return nil, fmt.Errorf("backbone: open journal: %w", err)
	}
	storage := StorageOf(js)
	return &Journal{
		js: js, epoch: stream.CachedInfo().Created.UnixNano(),
		link: sync.OnceValue(func() *link { // by the first use
			l := watch(js.Conn())
			storage.whenDeclared(l.interrupt)
			return l
		}),
		batches: make(chan struct{}, maxBatches), storage: storage,
	}, nil
}

// GroupCommit lets appends that wait for others share a write. It is for a server that
// syncs every write to disk, which then bounds what it stores in a second; of one that
// does not, a group takes more than its messages one by one. It is called before the
// first append; grouped hears how many appends shared each write.
func (j *Journal) GroupCommit(grouped func(appends int)) {
	j.commits = &committer{publish: j.publish, grouped: grouped}
}

// Epoch tells this journal from any other: a sequence means nothing without it.
func (j *Journal) Epoch() int64 { return j.epoch }

// Append appends events, all of one aggregate, all or none, and sets their
// Sequence. lastSequence is the sequence of the aggregate's last event, 0 for
// none. It returns once the events are stored. After [ErrConflict], [ErrDuplicate],
// [ErrTooLarge], [ErrTooMany] and [ErrRefused] nothing was appended. After any other error
// the outcome is unknown, and the caller must load the aggregate again.
func (j *Journal) Append(ctx context.Context, tenant contextkit.TenantID, lastSequence uint64, events []Event) error {
	if len(events) > MaxAppend {
		return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(events), MaxAppend)
	}
	messages := make([]*nats.Msg, len(events))
	for i := range events {
		msg, err := events[i].message(ctx, tenant)
		if err != nil {
			return err
		}
		if most := min(MaxMessageBytes, j.js.Conn().MaxPayload()) - batchHeaders; int64(msg.Size()) > most {
			return fmt.Errorf("%w: %s has %d bytes, and NATS takes %d", ErrTooLarge, events[i].Type, msg.Size(), most)
		}
		messages[i] = msg
	}
	if key := events[0].Command.IdempotencyKey; key != "" {
		messages[0].Header.Set(jetstream.MsgIDHeader, tenant.String()+"/"+key)
	}
	messages[0].Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(lastSequence))

	if err := j.storage.admit(StreamEvents); err != nil {
		return fmt.Errorf("backbone: append: %w: %w", ErrRefused, err)
	}
	var result committed
	if j.commits != nil {
		result = j.commits.commit(ctx, messages)
	} else {
		result = j.publish(ctx, messages)
	}
	switch {
	case result.err != nil:
		return appendError(result.err)
	case result.duplicate:
		return ErrDuplicate
	}
	for i := range events {
		events[i].Sequence = result.last - uint64(len(events)-1-i)
		events[i].Size = messages[i].Size() // with the headers of JetStream
	}
	return nil
}

// While runs do with a context that also ends when the connection to NATS is lost, since
// what was asked before is not answered after it: where do returns that its context has
// ended, the error then says why. Any other error of do's is returned as it is.
func (j *Journal) While(ctx context.Context, do func(ctx context.Context) error) error {
	bound, release := j.link().bind(ctx)
	defer release()
	err := do(bound)
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(bound), errLinkLost) {
		return errLinkLost
	}
	return err
}

// errNoAck says that an acknowledgement has not come in time: the server that was to give
// it may be gone.
var errNoAck = errors.New("JetStream did not acknowledge in time")

// publish publishes messages, all or none. Their sequences end with the one returned.
func (j *Journal) publish(ctx context.Context, messages []*nats.Msg) (result committed) {
	began := time.Now()
	result.err = j.While(ctx, func(ctx context.Context) (err error) {
		if len(messages) > 1 {
			select {
			case j.batches <- struct{}{}:
				defer func() { <-j.batches }()
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		attempt, cancel := context.WithTimeout(ctx, ackTimeout)
		defer cancel()
		if len(messages) == 1 {
			// The retries of PublishMsg are for a missing stream or leader; the
			// expected sequence makes them safe, but the attempt's deadline decides.
			var ack *jetstream.PubAck
			if ack, err = j.js.PublishMsg(attempt, messages[0], jetstream.WithRetryAttempts(0)); err == nil {
				result.last, result.duplicate = ack.Sequence, ack.Duplicate
			}
		} else {
			var ack *jetstreamext.BatchAck
			if ack, err = jetstreamext.PublishMsgBatch(attempt, j.js, messages, jetstreamext.BatchFlowControl{}); err == nil {
				result.last = ack.Sequence
			}
		}
		if err != nil && attempt.Err() != nil && ctx.Err() == nil {
			return errNoAck
		}
		return err
	})
	j.storage.report(StreamEvents, began, result.err)
	return result
}

func appendError(err error) error {
	var api jetstream.JetStreamError
	if errors.As(err, &api) && api.APIError() != nil {
		switch api.APIError().ErrorCode {
		case jetstream.JSErrCodeStreamWrongLastSequence, errCodeWrongLastSequenceConstant:
			return ErrConflict
		case jetstreamext.JSErrCodeBatchPublishDuplicateMsgID:
			return ErrDuplicate
		}
		return fmt.Errorf("backbone: append: %w: %w", ErrRefused, err) // the server answered: nothing is stored
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("backbone: append: %w: %w", ErrRefused, err) // no server received it
	}
	return fmt.Errorf("backbone: append: %w", err)
}

// errCodeWrongLastSequenceConstant is the server's second code for the same
// refusal, used when another batch on the subject is being committed.
const errCodeWrongLastSequenceConstant jetstream.ErrorCode = 10164

// Load calls each for the aggregate's events in order, from the journal
// sequence from (1: all) on, for most of them at most (0: all). What was acknowledged
// before the call is among them. It stops at each's first error and returns it.
func (j *Journal) Load(ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string, from uint64, most int, each func(Event) error) error {
	subject := EventSubject(tenant, aggregateType, aggregateID)
	next, left := max(from, 1), cmp.Or(most, math.MaxInt)
	take := func(msg *jetstream.RawStreamMsg) error {
		next, left = msg.Sequence+1, left-1
		event, err := ParseEvent(msg.Header, msg.Data, msg.Sequence)
		if err != nil {
			return err
		}
		return each(event)
	}
	return j.While(ctx, func(ctx context.Context) error {
		for asked := 1; left > 0; asked++ {
			msg, err := askLeader(ctx, j.js, StreamEvents, question{From: next, Subject: subject})
			if msg == nil || err != nil {
				return err
			}
			if err := take(msg); err != nil {
				return err
			}
			if asked >= fewEvents && left > 0 { // there may be many: replicas have most of them
				if err := readBatches(ctx, j.js, StreamEvents, subject, next, left, take); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// fewEvents is how many events are asked of the leader one by one before the others are
// read together: a command's node misses that many at most, as a rule.
const fewEvents = 2

// silentAfter is how long an answer may be silent before it is asked for again: the server
// that was to give it may be gone. Where any replica may answer, another is asked soon:
// after firstSilence, then after twice as long each time.
const silentAfter, firstSilence = 2 * time.Second, 250 * time.Millisecond

// readBatches calls each for a stream's messages on a subject in order, from a
// sequence (1: all) on, for most of them at most (0: all). It stops at each's first error
// and returns it.
func readBatches(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64, most int, each func(*jetstream.RawStreamMsg) error) error {
	left, patience := cmp.Or(most, math.MaxInt), firstSilence
	for next := max(from, 1); left > 0; {
		var failed error
		count, err := readBatch(ctx, js, stream, subject, next, min(left, loadBatch), patience, func(msg *jetstream.RawStreamMsg) error {
			next = msg.Sequence + 1
			failed = each(msg)
			return failed
		})
		left -= count
		switch {
		case failed != nil:
			return failed
		case errors.Is(err, jetstreamext.ErrNoMessages):
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("backbone: read %s: %w", subject, context.Cause(ctx))
		case errors.Is(err, errSilent):
			patience = min(2*patience, silentAfter)
		case err != nil:
			return fmt.Errorf("backbone: read %s: %w", subject, err)
		}
	}
	return nil
}

// errSilent says that an answer was not given, or not to its end.
var errSilent = errors.New("JetStream does not answer")

// readBatch is readBatches with one request, which may be silent for so long as there is
// patience. It returns how many messages came. Errors beyond those of each and the
// request: [errSilent], and [jetstreamext.ErrNoMessages] when there are none.
func readBatch(ctx context.Context, js jetstream.JetStream, stream, subject string, from uint64, most int, patience time.Duration, each func(*jetstream.RawStreamMsg) error) (count int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()
	batch, err := jetstreamext.GetBatch(ctx, js, stream, most, jetstreamext.GetBatchSubject(subject), jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchMaxBytes(loadBytes))
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
		// Neither a message nor the answer that there is none: the request
		// was cut off, and taking it for the end would forget messages.
		return 0, orSilent(ctx, errors.New("the answer broke off"))
	}
	return count, nil
}

// orSilent returns err, or errSilent if that is why.
func orSilent(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return err
}

// Last returns the sequence of the tenant's last event, 0 if there is none.
func (j *Journal) Last(ctx context.Context, tenant contextkit.TenantID) (uint64, error) {
	msg, err := askLeader(ctx, j.js, StreamEvents, question{Last: TenantEvents(tenant)})
	if msg == nil || err != nil {
		return 0, err
	}
	return msg.Sequence, nil
}

// Event returns the tenant's event with a sequence, and false if the journal has none there. An
// error wraps [ErrMalformedEvent] if the message there is no event.
func (j *Journal) Event(ctx context.Context, tenant contextkit.TenantID, sequence uint64) (Event, bool, error) {
	msg, err := askLeader(ctx, j.js, StreamEvents, question{From: sequence, Subject: TenantEvents(tenant)})
	if err != nil || msg == nil || msg.Sequence != sequence {
		return Event{}, false, err
	}
	event, err := ParseEvent(msg.Header, msg.Data, msg.Sequence)
	return event, err == nil, err
}
