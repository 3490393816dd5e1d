package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/streams"
)

// Errors of Append.
var (
	// ErrConflict: the aggregate's last event is not the expected one.
	ErrConflict = errors.New("the aggregate has changed")
	// ErrDuplicate: the idempotency key was used within the dedupe window.
	ErrDuplicate = errors.New("the idempotency key was used before")
	// ErrTooLarge: an event exceeds the maximum size of a message.
	ErrTooLarge = errors.New("the event is too large")
	// ErrTooMany: there are more than [MaxAppend] events.
	ErrTooMany = errors.New("too many events for one append")
	// ErrRefused: JetStream refused the append and stored no event. While JetStream cannot store anything, the error is
	// also a [*natshealth.StorageError].
	ErrRefused = errors.New("JetStream refused the events")
)

// MaxAppend bounds the events of one append: JetStream accepts atomic batches of at most 1,000 messages (NATS ADR-50).
const MaxAppend = 1000

// maxBatches bounds a node's atomic batches in flight: JetStream accepts at most 50 per stream.
const maxBatches = 8

// batchHeaders is the size reserved for the headers that a batch adds to a message, in bytes.
const batchHeaders = 512

// Journal appends and reads the events of aggregates. Its methods may be called concurrently.
type Journal struct {
	js        jetstream.JetStream
	health    *Integrity
	commits   *committer          // nil: appends are not grouped
	link      func() *link        // of the connection
	batches   chan struct{}       // holds a value for each batch in flight
	confirmed confirmation        // the last confirmation of the leader
	storage   *natshealth.Storage // the state of the storage of EVENTS; may be nil
}

// Option is an option of [Open].
type Option func(*Journal)

// GroupCommit lets appends that wait for earlier ones share one write (group commit). It increases the throughput of a
// server that syncs every write to disk; on other servers a group costs more than single messages. grouped is called
// for each write with its number of appends.
func GroupCommit(grouped func(appends int)) Option {
	return func(j *Journal) {
		j.commits = &committer{
			publish:  j.publish,
			grouped:  grouped,
			maxAlone: maxAlone,
			minGroup: minGroup,
		}
	}
}

// Open opens the journal that [setup.Ensure] has created, and checks its integrity. [Journal.Integrity] continues these
// checks.
func Open(ctx context.Context, js jetstream.JetStream, options ...Option) (*Journal, error) {
	health, err := openIntegrity(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("journal: open journal: %w", err)
	}
	storage := natshealth.StorageOf(js)
	j := &Journal{
		js:     js,
		health: health,
		link: sync.OnceValue(func() *link { // at the first use
			l := watch(js.Conn())
			storage.WhenDeclared(l.interrupt)
			return l
		}),
		confirmed: confirmation{turn: make(chan struct{}, 1)},
		batches:   make(chan struct{}, maxBatches),
		storage:   storage,
	}
	for _, option := range options {
		option(j)
	}
	return j, nil
}

// Replicated reports whether the journal has several replicas.
func (j *Journal) Replicated() bool { return j.health.replicated.Load() }

// Integrity returns the state of the journal's integrity. Its Run must run while the process uses the journal, since it
// detects damage and accepted losses.
func (j *Journal) Integrity() *Integrity { return j.health }

// Epoch identifies this journal: a sequence is meaningful only together with it. It changes when an
// operator accepts that the journal's end is lost, see [Integrity.Changed].
func (j *Journal) Epoch() int64 { return j.health.epoch.Load() }

// AcceptedEnd returns the last valid sequence of an epoch, for comparison with cursors that were stored in that epoch:
// events with greater sequences were lost, or replaced by other events. It returns the largest number if no loss of the
// journal's end has been accepted since.
func (j *Journal) AcceptedEnd(epoch int64) uint64 { return (*j.health.ends.Load())(epoch) }

// Append appends the events of one aggregate, all or none, and sets their Sequence and Size. lastSequence is the
// sequence of the aggregate's last event; 0: it has none. Append returns when the events are stored.
//
// Nothing was appended after [ErrConflict], [ErrDuplicate], [ErrTooLarge], [ErrTooMany], [ErrRefused], [ErrEndMissing],
// and the error of ctx, which is returned if ctx ended before the events were sent. After they are sent, Append waits
// up to four seconds for their outcome, also if ctx ends. After any other error the outcome is unknown, and the caller
// must load the aggregate again.
func (j *Journal) Append(ctx context.Context, tenant contextkit.TenantID, lastSequence uint64, events []Event) error {
	if err := j.health.Appendable(); err != nil {
		return err
	}
	if len(events) > MaxAppend {
		return fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(events), MaxAppend)
	}
	messages := make([]*nats.Msg, len(events))
	for i := range events {
		msg, err := events[i].Message(ctx, tenant)
		if err != nil {
			return err
		}
		messages[i] = msg
	}
	if key := events[0].Command.IdempotencyKey; key != "" {
		messages[0].Header.Set(jetstream.MsgIDHeader, tenant.String()+"/"+key)
	}
	messages[0].Header.Set(jetstream.ExpectedLastSubjSeqHeader, fmt.Sprint(lastSequence))
	for i, msg := range messages {
		if most := min(streams.MaxMessageBytes, j.js.Conn().MaxPayload()) - batchHeaders; int64(msg.Size()) > most {
			return fmt.Errorf("%w: %s has %d bytes, and NATS takes %d", ErrTooLarge, events[i].Type, msg.Size(), most)
		}
	}

	if err := j.storage.Admit(streams.Events); err != nil {
		return fmt.Errorf("journal: append: %w: %w", ErrRefused, err)
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
	j.health.acknowledged(&events[len(events)-1])
	return nil
}

// While calls do with a context that also ends when the connection to NATS is lost, since requests on a lost connection
// are not answered. It returns the error of do, or errLinkLost if do was cancelled for this reason.
func (j *Journal) While(ctx context.Context, do func(ctx context.Context) error) error {
	bound, release := j.link().bind(ctx)
	defer release()
	err := do(bound)
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(bound), errLinkLost) {
		return errLinkLost
	}
	return err
}

// publish publishes messages, all or none, and returns the sequence of the last one. If ctx has ended, it sends
// nothing. After it has sent the messages, it waits for the acknowledgement up to natsclient.AckTimeout, also if ctx
// ends.
func (j *Journal) publish(ctx context.Context, messages []*nats.Msg) (result committed) {
	if len(messages) > 1 {
		select {
		case j.batches <- struct{}{}:
			defer func() { <-j.batches }()
		case <-ctx.Done():
		}
	}
	if result.err = ctx.Err(); result.err != nil {
		return result
	}
	began := time.Now()
	//nolint:contextcheck // a caller that leaves must learn what it has appended
	result.err = j.While(context.Background(), func(ctx context.Context) (err error) {
		attempt, cancel := context.WithTimeout(ctx, natsclient.AckTimeout)
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
			if ack, err = jetstreamext.PublishMsgBatch(
				attempt, j.js, messages, jetstreamext.BatchFlowControl{},
			); err == nil {
				result.last = ack.Sequence
			}
		}
		if err != nil && attempt.Err() != nil && ctx.Err() == nil {
			return natsclient.ErrNoAck
		}
		return err
	})
	j.storage.Report(streams.Events, began, result.err)
	return result
}

// appendError returns the error of Append for an error of publish.
func appendError(err error) error {
	if natsclient.Refused(err) == natsclient.RefusedTooLarge {
		return fmt.Errorf("journal: append: %w: %w", ErrTooLarge, err) // max_payload may be smaller than before
	}
	var api jetstream.JetStreamError
	if errors.As(err, &api) && api.APIError() != nil {
		switch {
		case natsclient.IsWrongSequence(err):
			return ErrConflict
		case api.APIError().ErrorCode == jetstreamext.JSErrCodeBatchPublishDuplicateMsgID:
			return ErrDuplicate
		}
		return fmt.Errorf("journal: append: %w: %w", ErrRefused, err) // the server answered: nothing is stored
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrReconnectBufExceeded) {
		return fmt.Errorf("journal: append: %w: %w", ErrRefused, err) // no server received it
	}
	return fmt.Errorf("journal: append: %w", err)
}

// Load calls each for the events of an aggregate in order, from the sequence from on (1: all), and for at most a number
// of them (most; 0: all). The events include all that were acknowledged before the call. Load stops at the first error
// of each, and returns it. If a version is missing, it is missing at the leader of the stream, not only at a replica. A
// message that is not an event is an [*UnreadableError], unless an operator has declared it not to be an event: then
// pass is called for it.
func (j *Journal) Load(
	ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string, from uint64, most int,
	each func(Event) error, pass ...func(*UnreadableError),
) error {
	l := loading{
		journal: j,
		subject: streams.EventSubject(tenant, aggregateType, aggregateID),
		next:    max(from, 1),
		left:    cmp.Or(most, math.MaxInt),
		each:    each,
		pass:    pass,
	}
	return j.While(ctx, func(ctx context.Context) error { return l.read(ctx, math.MaxUint64) })
}

// LoadAll is Load for all events from a sequence on. It returns the sequence and version of the aggregate's last
// message, also if that is before from; zeros: the aggregate has no messages, or the last one cannot be read, see
// [Journal.Count]. Errors: those of Load, and [ErrUnreadable].
func (j *Journal) LoadAll(
	ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string, from uint64,
	each func(Event) error, pass ...func(*UnreadableError),
) (last uint64, version int64, err error) {
	l := loading{
		journal: j,
		subject: streams.EventSubject(tenant, aggregateType, aggregateID),
		next:    max(from, 1),
		left:    math.MaxInt,
		each:    each,
		pass:    pass,
	}
	err = j.While(ctx, func(ctx context.Context) error {
		msg, err := natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{Last: l.subject})
		if msg == nil || err != nil {
			return err
		}
		event, err := ReadEvent(RawMessage(msg))
		last, version = msg.Sequence, event.Version
		if fault, ok := errors.AsType[*UnreadableError](err); ok {
			version = fault.Version
		}
		switch {
		case last < l.next:
			return nil
		case err == nil && (last == l.next || from <= 1 && version == 1):
			return each(event) // it is the only one
		}
		return l.read(ctx, last)
	})
	return last, version, err
}

// ErrUnreadable reports that an event of the aggregate cannot be read.
var ErrUnreadable = errors.New("an event of the aggregate cannot be read")

// loading reads the events of an aggregate in order.
type loading struct {
	journal *Journal
	subject string
	next    uint64 // the sequence at which to continue
	left    int
	chain   Chain // of the versions that were read
	each    func(Event) error
	pass    []func(*UnreadableError) // called for messages that were declared not to be events
}

// read reads events up to the sequence last; math.MaxUint64: all, if the last one is unknown.
func (l *loading) read(ctx context.Context, last uint64) error {
	leader := false // the remaining events are read from the leader, one by one
	for asked := 1; l.left > 0 && l.next <= last; asked++ {
		msg, err := natsclient.AskLeader(ctx, l.journal.js, streams.Events,
			natsclient.Question{From: l.next, Subject: l.subject})
		if msg == nil && err == nil && last != math.MaxUint64 {
			return ErrUnreadable
		}
		if msg == nil || err != nil {
			return err
		}
		if err := l.take(ctx, msg, false); err != nil {
			return err
		}
		if asked >= fewEvents && l.left > 0 && l.next <= last && !leader { // there may be many: read them from replicas
			err := natsclient.ReadBatchesWithin(ctx, l.journal.js, streams.Events, l.subject, l.next, l.left,
				natsclient.FewSilences, func(msg *jetstream.RawStreamMsg) error { return l.take(ctx, msg, true) })
			if leader = errors.Is(err, errReplicaGap) || errors.Is(err, natsclient.ErrSilent); err != nil && !leader {
				return err
			}
		}
	}
	return nil
}

func (l *loading) take(ctx context.Context, msg *jetstream.RawStreamMsg, replica bool) error {
	event, err := ReadEvent(RawMessage(msg))
	if fault, ok := errors.AsType[*UnreadableError](err); ok {
		l.journal.Unreadable(fault)
		declared, err := l.journal.Declared(ctx, fault)
		if err != nil {
			return err
		}
		if !declared {
			return fault
		}
		l.next = msg.Sequence + 1
		l.chain.Pass(fault.Version)
		for _, pass := range l.pass {
			pass(fault)
		}
		return nil
	}
	if replica && event.Version > l.chain.Version && !l.chain.Continues(event.Version) {
		return errReplicaGap
	}
	l.next, l.left = msg.Sequence+1, l.left-1
	l.chain.Next(event.Version)
	return l.each(event)
}

// errReplicaGap reports that a replica does not have an event yet.
var errReplicaGap = errors.New("a version is missing")

// fewEvents is the number of events that are read from the leader one by one before the others are read together. A
// node rarely lacks more of them when it decides a command.
const fewEvents = 2

// End returns the journal's last sequence.
func End(ctx context.Context, js jetstream.JetStream) (uint64, error) {
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		return 0, fmt.Errorf("journal: the journal's end: %w", err)
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// Last returns the sequence of the tenant's last event; 0: it has none.
func (j *Journal) Last(ctx context.Context, tenant contextkit.TenantID) (uint64, error) {
	msg, err := natsclient.AskLeader(ctx, j.js, streams.Events, natsclient.Question{Last: streams.TenantEvents(tenant)})
	if msg == nil || err != nil {
		return 0, err
	}
	return msg.Sequence, nil
}

// Event returns the tenant's event with a sequence, and false if there is none. The error is an [*UnreadableError] if
// the message with the sequence is not an event.
func (j *Journal) Event(ctx context.Context, tenant contextkit.TenantID, sequence uint64) (Event, bool, error) {
	msg, err := natsclient.AskLeader(ctx, j.js, streams.Events,
		natsclient.Question{From: sequence, Subject: streams.TenantEvents(tenant)})
	if err != nil || msg == nil || msg.Sequence != sequence {
		return Event{}, false, err
	}
	event, err := ReadEvent(RawMessage(msg))
	return event, err == nil, err
}

// Count returns the number of the aggregate's events in the journal, readable or not.
func (j *Journal) Count(
	ctx context.Context, tenant contextkit.TenantID, aggregateType, aggregateID string,
) (count uint64, err error) {
	err = j.While(ctx, func(ctx context.Context) (err error) {
		count, err = natsclient.CountMessages(ctx, j.js, streams.Events,
			streams.EventSubject(tenant, aggregateType, aggregateID))
		return err
	})
	return count, err
}
